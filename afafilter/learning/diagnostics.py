"""Residual checks of a fitted model: are the standardised innovations white, normal, homogeneous?

Under the true model the innovations of the Kalman filter, divided by the Cholesky factor of their
covariance, are independent standard normal numbers. Everything here is numbers; the page that
draws them is `afafilter.plotting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, given, observations, positive_int
from afafilter._base.containers import takes_tables
from afafilter._base.frames import data_frame
from afafilter._base.normal import half_width
from afafilter._base.shown import ShownByFields
from afafilter._base.signatures import told_type
from afafilter.learning.result import FitResult
from afafilter.likelihood.data import prepare
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE
from afafilter.scoring.gaussian import whiten
from afafilter.scoring.tally import determined

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Check:
    """A test statistic, its reference distribution in words, and its p value."""

    statistic: float
    reference: str
    p_value: float


@dataclass(frozen=True, repr=False)
class Diagnostics(ShownByFields):
    """Standardised innovations and what they say about the model.

    Attributes
    ----------
    t : ndarray, shape (T,)
        Times.
    residuals : ndarray, shape (..., T, p)
        Standardised innovations, NaN where missing or used up by a diffuse
        start.
    acf : ndarray, shape (p, L + 1)
        Autocorrelation per component, lag 0 first, in steps of the observation index.
    acf_band : float
        Half-width of its pointwise 95 % band.
    nis : float
        Mean normalised innovation squared per observed scalar; 1 for the true model.
    nis_test : Check
        Two-sided chi-square test of it.
    ljung_box : tuple of Check
        Per component, H0: no autocorrelation up to `lags`.
    normality : tuple of Check
        Per component, Jarque-Bera.
    heteroscedasticity : tuple of Check
        Per component, ratio of sums of squares, last third over first third.
    skewness, kurtosis : ndarray, shape (p,)
        0 and 3 for normal residuals.
    """

    t: Array
    residuals: Array
    acf: Array
    acf_band: float
    nis: float
    nis_test: Check
    ljung_box: tuple[Check, ...]
    normality: tuple[Check, ...]
    heteroscedasticity: tuple[Check, ...]
    skewness: Array
    kurtosis: Array

    def to_pandas(self) -> pd.DataFrame:
        """One row per test and component: statistic, reference, p_value."""
        rows = [("NIS", -1, self.nis_test)]
        for name, tests in (
            ("Ljung-Box", self.ljung_box),
            ("Jarque-Bera", self.normality),
            ("heteroscedasticity", self.heteroscedasticity),
        ):
            rows += [(name, c, test) for c, test in enumerate(tests)]
        return data_frame(
            [(name, c, t.statistic, t.reference, t.p_value) for name, c, t in rows],
            columns=["test", "component", "statistic", "reference", "p_value"],
        )


@takes_tables
def diagnose(
    model: LinearSDE | DiscreteModel | FitResult,
    t: ArrayLike | None = None,
    z: ArrayLike | None = None,
    *,
    obs_cov: ArrayLike | None = None,
    lags: int | None = None,
    n_params: int | None = None,
) -> Diagnostics:
    """Check the innovations of a model on data.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or FitResult
        A model, or the result of a fit (then `n_params` is known).
    t, z, obs_cov : array_like, optional
        As for `kalman_filter`; z (..., T, p).
    lags : int, optional
        Number of autocorrelations in the Ljung-Box test; None: min(20, a quarter of the data).
    n_params : int, optional
        Fitted parameters, taken off the degrees of freedom of Ljung-Box as far as at least
        one is left (None: 0, or those of the fit less the measurement variance).

    Returns
    -------
    Diagnostics

    Raises
    ------
    ValueError, TypeError
        Bad data, or fewer than 8 residuals in a component.

    Notes
    -----
    Durbin & Koopman (2012), sec. 2.12: Q(L) = n (n + 2) sum_k r_k^2 / (n - k), chi-square;
    H(h), F(h, h), h = n / 3; N = n (skewness^2 / 6 + (kurtosis - 3)^2 / 24), chi-square with 2
    degrees of freedom. Missing values are left out: lags count observed residuals.

    Examples
    --------
    >>> from afafilter import brownian, datasets, diagnose
    >>> nile, model = datasets.load_nile(), brownian(process_var=1469.0, obs_var=15099.0)
    >>> len(diagnose(model, nile.t, nile.z).to_pandas()) > 0
    True
    """
    from scipy import stats

    if n_params is not None:
        positive_int(n_params, "n_params", low=0)
    if isinstance(model, FitResult):
        if n_params is None:
            n_params = max(len(model.params) - 1, 0)
        model = model.model
    if not isinstance(model, (LinearSDE, DiscreteModel)):
        raise TypeError(
            f"model must be a LinearSDE, a DiscreteModel or a FitResult, got {told_type(model)}"
        )
    data = prepare(t, given(z), model.obs_dim, obs_cov)
    values = observations(z, len(data.t), model.obs_dim)
    lead = values.shape[:-2]
    residuals = standardised_innovations(model, data.t, values, obs_cov)
    paths = residuals.reshape(-1, *residuals.shape[-2:])
    p = paths.shape[-1]
    series = [[x[~np.isnan(x)] for x in paths[..., c]] for c in range(p)]
    shortest = min(sum(len(x) for x in parts) for parts in series)
    if shortest < 8:
        raise ValueError(f"at least 8 residuals per component are needed, got {shortest}")
    length = min(max(len(x) for x in parts) for parts in series)
    count = min(20, max(1, length // 4)) if lags is None else positive_int(lags, "lags")
    if count >= length:
        raise ValueError(f"lags must be below the {length} residuals, got {count}")
    acf = np.array([_autocorrelation(parts, count) for parts in series])
    sizes = [sum(len(x) for x in parts) for parts in series]
    pooled = [np.concatenate(parts) for parts in series]
    total = sum(sizes)
    nis = float(sum((x**2).sum() for x in pooled)) / total
    skew = np.array([float(stats.skew(x)) for x in pooled])
    kurt = np.array([float(stats.kurtosis(x, fisher=False)) for x in pooled])
    return Diagnostics(
        t=data.t,
        residuals=residuals.reshape(*lead, len(data.t), p),
        acf=acf,
        acf_band=half_width(0.95) / np.sqrt(min(sizes)),
        nis=nis,
        nis_test=_nis_test(nis, total),
        ljung_box=tuple(_ljung_box(r, parts, n_params or 0) for r, parts in zip(acf, series)),
        normality=tuple(_jarque_bera(s, k, n) for s, k, n in zip(skew, kurt, sizes, strict=True)),
        heteroscedasticity=tuple(_heteroscedasticity(parts) for parts in series),
        skewness=skew,
        kurtosis=kurt,
    )


def standardised_innovations(
    model: LinearSDE | DiscreteModel, t: Array, z: Array, obs_cov: ArrayLike | None = None
) -> Array:
    """Innovations times the inverse Cholesky factor of their covariance, shape of z.

    NaN where nothing was observed and where a diffuse start is not yet resolved.
    """
    from afafilter.kalman.estimators import kalman_filter

    estimate = kalman_filter(model, t, z, obs_cov=obs_cov)
    assert estimate.innovation is not None
    assert estimate.innovation_cov is not None
    known, error, cov = determined(estimate.innovation, estimate.innovation_cov)
    white = whiten(error, cov, np.zeros(error.shape[-1])).y
    return np.where(known, white, np.nan)


def _autocorrelation(parts: list[Array], lags: int) -> Array:
    mean = np.concatenate(parts).mean()
    centred = [x - mean for x in parts]
    variance = float(sum(x @ x for x in centred))
    return np.array(
        [sum(x[k:] @ x[: max(len(x) - k, 0)] for x in centred) / variance for k in range(lags + 1)]
    )


def _ljung_box(acf: Array, parts: list[Array], n_params: int) -> Check:
    from scipy.stats import chi2

    lags = len(acf) - 1
    k = np.arange(1, lags + 1)
    n = sum(len(x) for x in parts)
    if len(parts) == 1:
        weights = n * (n + 2) / (n - k)
    else:  # each path contributes n_i - k products to the numerator
        lengths = np.array([len(x) for x in parts])
        products = np.maximum(lengths[:, None] - k, 0).sum(axis=0)
        weights = n**2 / np.maximum(products, 1)
    statistic = float((weights * acf[1:] ** 2).sum())
    df = max(lags - n_params, 1)
    return Check(statistic, f"chi2({df})", float(chi2.sf(statistic, df)))


def _jarque_bera(skew: float, kurt: float, n: int) -> Check:
    statistic = n * (skew**2 / 6 + (kurt - 3) ** 2 / 24)
    return Check(float(statistic), "chi2(2)", float(np.exp(-statistic / 2)))


def _heteroscedasticity(parts: list[Array]) -> Check:
    from scipy.stats import f

    thirds = [round(len(x) / 3) for x in parts]
    h = int(sum(thirds))
    late = np.concatenate([x[len(x) - m :] for x, m in zip(parts, thirds, strict=True)])
    early = np.concatenate([x[:m] for x, m in zip(parts, thirds, strict=True)])
    ratio = float((late**2).sum() / (early**2).sum())
    tail = float(min(f.cdf(ratio, h, h), f.sf(ratio, h, h)))
    return Check(ratio, f"F({h}, {h})", min(1.0, 2 * tail))


def _nis_test(nis: float, n: int) -> Check:
    from scipy.stats import chi2

    tail = float(min(chi2.cdf(nis * n, n), chi2.sf(nis * n, n)))
    return Check(nis, f"chi2({n})/{n}", min(1.0, 2 * tail))
