"""Choosing between fitted models: likelihood ratio and held-out score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from afafilter._base.checks import observations, positive_int
from afafilter._base.containers import takes_tables
from afafilter._base.masks import unmasked
from afafilter._base.shown import ShownByFields
from afafilter.learning.result import FitResult
from afafilter.likelihood.chain import DiscreteSystem, System
from afafilter.likelihood.data import prepare
from afafilter.likelihood.loglik import evaluate
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


@dataclass(frozen=True, repr=False)
class RatioTest(ShownByFields):
    """Likelihood ratio of nested models: statistic, degrees of freedom, p value."""

    statistic: float
    df: int
    p_value: float


def likelihood_ratio(small: FitResult, large: FitResult, df: int | None = None) -> RatioTest:
    """Likelihood ratio test of a model nested in a larger one, fitted to the same data.

    Parameters
    ----------
    small, large : FitResult
        Fits by the same method to the same observations.
    df : int, optional
        Degrees of freedom; None: the difference in the number of parameters.

    Raises
    ------
    ValueError
        If the fits are of different data, or not nested in number of parameters.

    Notes
    -----
    Chi-square with `df` degrees of freedom (Wilks). Where the small model sits on the boundary of
    the large one (a variance 0) the p value is conservative.

    Examples
    --------
    >>> from afafilter import datasets, families, fit, likelihood_ratio
    >>> nile = datasets.load_nile()
    >>> small = fit(families.brownian() + families.noise(), nile.t, nile.z)
    >>> large = fit(families.local_linear_trend() + families.noise(), nile.t, nile.z)
    >>> bool(likelihood_ratio(small, large).p_value > 0.05)
    True
    """
    from scipy.stats import chi2

    if small.n_obs != large.n_obs or small.method != large.method:
        raise ValueError("the two fits are not of the same data by the same method")
    count = len(large.params) - len(small.params) if df is None else positive_int(df, "df")
    if count < 1:
        raise ValueError("the larger model must have more parameters than the smaller one")
    statistic = 2 * (large.loglik - small.loglik)
    return RatioTest(float(statistic), count, float(chi2.sf(max(statistic, 0.0), count)))


@takes_tables
def held_out_score(
    model: LinearSDE | DiscreteModel | FitResult,
    t: ArrayLike | None,
    z: ArrayLike,
    start: int,
    *,
    obs_cov: ArrayLike | None = None,
) -> float:
    """Mean one-step log density of the held-out end z[..., start:, :] given all that came before.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or FitResult
        Fitted to z[..., :start, :] only.
    t, z, obs_cov
        The whole series, as for `fit`.
    start : int
        Index of the first held-out time, 0 < start < T.

    Returns
    -------
    float
        Average over held-out observed scalars: larger is better, comparable between models.

    Raises
    ------
    ValueError
        If start is out of range or nothing was observed after it.

    Examples
    --------
    >>> from afafilter import held_out_score, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> bool(held_out_score(spiral(), data.t, data.z[0], start=40) < 0)
    True
    """
    used = model if isinstance(model, (LinearSDE, DiscreteModel)) else model.model
    whole = prepare(t, z, used.obs_dim, obs_cov)
    start = positive_int(start, "start")
    if start >= len(whole.t):
        raise ValueError(f"start must be below the number of times {len(whole.t)}, got {start}")
    values = observations(z, len(whole.t), used.obs_dim)
    covs = None if obs_cov is None else unmasked(obs_cov, "obs_cov")[:start]
    first = prepare(whole.t[:start], values[..., :start, :], used.obs_dim, covs)
    count = whole.n_obs - first.n_obs
    if count == 0:
        raise ValueError(f"z holds no observation from index {start} on")
    system = _system(used)
    head = evaluate(_cut(system, start), first, gradient=False)[0] if first.n_obs else 0.0
    return (evaluate(system, whole, gradient=False)[0] - head) / count


def _system(model: LinearSDE | DiscreteModel) -> Any:
    return System.of(model) if isinstance(model, LinearSDE) else DiscreteSystem.of(model)


def _cut(system: Any, length: int) -> Any:
    varying = getattr(system, "time_varying", ())
    return system._replace(**{name: getattr(system, name)[:length] for name in varying})
