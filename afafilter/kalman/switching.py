"""Filters for models that switch: IMM, and a Rao-Blackwellised particle filter.

The exact posterior is a mixture of M^k Gaussians after k observations, one for each history of
modes. `imm_filter` keeps one for each present mode, `particle_filter` the histories that represent
the mixture best. Both begin exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from afafilter._base.checks import Array, generator, positive_int
from afafilter._base.containers import takes_tables
from afafilter.kalman.histories import Cloud, Prediction, collapse, filtered, log_of, normalised
from afafilter.kalman.inputs import Model
from afafilter.models.forcing import honours_forcing
from afafilter.models.switching import SwitchingModel, contaminated
from afafilter.results import Estimate


@takes_tables
@honours_forcing
def imm_filter(
    model: SwitchingModel | Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    outlier_rate: float | None = None,
    outlier_scale: float | None = None,
    outlier_length: float | None = None,
    query_times: ArrayLike | None = None,
) -> Estimate:
    """Interacting multiple models: one Gaussian for each mode, mixed before every step.

    Parameters
    ----------
    model : SwitchingModel, LinearSDE or DiscreteModel
        The modes of one that does not switch are ordinary and outlying noise (`contaminated`).
    t, z : array_like
        As for `kalman_filter`; NaN = missing component, leading axes are paths.
    outlier_rate, outlier_scale, outlier_length : float, optional
        As for `contaminated`; not for a SwitchingModel.
    query_times : array_like, shape (Tq,), optional
        Non-decreasing times of the estimates, for LinearSDE modes; default t. From an observation
        on the state moves by the mode that the next one is seen in.

    Returns
    -------
    Estimate
        mean (..., T, d), cov (..., T, d, d), loglik (...,) and loglik_steps (..., T) of the
        predictive mixtures; `info["mode_probability"]` (..., T, M) given the data up to each time.

    Raises
    ------
    ValueError, TypeError
        As for `kalman_filter` and `contaminated`; a flat prior of models that differ in more than
        R, or one that needs more than 256 histories; query_times between observations before a flat
        prior is determined; an innovation that is known exactly.

    Notes
    -----
    Blom & Bar-Shalom, IEEE Trans. Autom. Control 33 (1988) 780; Bar-Shalom, Li & Kirubarajan
    (2001), sec. 11.6.6. With independent outliers it is `mixture_filter`; outliers that come in
    runs (`outlier_length`) are what it adds. Exact at the first observation, and all through a flat
    start. O(n T M (d^3 + p^3)) in NumPy, vectorised over paths.

    Examples
    --------
    >>> from afafilter import imm_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> imm_filter(spiral(), data.t, data.z, outlier_rate=0.1, outlier_scale=100.0).mean.shape
    (1, 50, 2)
    """
    switching = _switching(model, outlier_rate, outlier_scale, outlier_length)
    logP, M = log_of(switching.switching), len(switching.models)

    def merged(cloud: Cloud) -> Cloud:
        """One Gaussian for each last mode."""
        if cloud.logw.shape[1] == M:
            return cloud
        own = cloud.mode[:, None, :] == np.arange(M)[:, None]
        logw, share = normalised(np.where(own, cloud.logw[:, None, :], -np.inf))
        mean, cov = collapse(share, cloud.mean[:, None], cloud.cov[:, None])
        return Cloud(logw, mean, cov, np.broadcast_to(np.arange(M), logw.shape))

    def mix(cloud: Cloud) -> Prediction:
        # c_j = sum_i p_ij mu_i;  mu_{i|j} = p_ij mu_i / c_j
        now = merged(cloud)
        joint = now.logw[:, None, :] + logP.T  # (n, j, i)
        logc, share = normalised(joint)
        mean, cov = collapse(share, now.mean[:, None], now.cov[:, None])
        return logc[:, None], mean[:, None], cov[:, None]

    return filtered(switching, t, z, query_times, mix, lambda cloud: cloud, "IMM")


@takes_tables
@honours_forcing
def particle_filter(
    model: SwitchingModel | Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    outlier_rate: float | None = None,
    outlier_scale: float | None = None,
    outlier_length: float | None = None,
    query_times: ArrayLike | None = None,
    n_particles: int = 64,
    rng: np.random.Generator | int = 0,
) -> Estimate:
    """Rao-Blackwellised particle filter: histories of modes, with a Kalman filter for each.

    Parameters
    ----------
    model, t, z, outlier_rate, outlier_scale, outlier_length, query_times
        As for `imm_filter`.
    n_particles : int
        N, number of histories kept. As long as there are no more than that the answer is exact;
        then it tends to the exact posterior as N grows.
    rng : numpy.random.Generator or int
        Generator of the resampling, or its seed.

    Returns
    -------
    Estimate
        As from `imm_filter`; loglik is an unbiased estimate of the likelihood's logarithm up to
        O(1/N), and `info["effective_particles"]` (..., T) 1 / sum w^2 after each observation.

    Raises
    ------
    ValueError, TypeError
        As for `imm_filter`; n_particles that is no positive number.

    Notes
    -----
    Every history branches into all modes, so that nothing is drawn but which of the N M branches
    survive: those whose weight exceeds c stay with it, the others by stratified resampling with
    weight c, sum min(w / c, 1) = N (Fearnhead & Clifford, JRSS B 65 (2003) 887, who show that this
    loses least; Chen & Liu, JRSS B 62 (2000) 493, for the Kalman filter inside). The near-optimal
    reference for robust filters: told the contamination, no causal estimator has a smaller mean
    squared error but for O(1/N). O(n T N M (d^3 + p^3)), memory O(n N M d^2), vectorised over paths
    and particles.

    Examples
    --------
    >>> from afafilter import particle_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> found = particle_filter(spiral(), data.t, data.z, outlier_rate=0.1, outlier_scale=100.0)
    >>> found.info["mode_probability"].shape
    (1, 50, 2)
    """
    size, stream = positive_int(n_particles, "n_particles"), generator(rng)
    switching = _switching(model, outlier_rate, outlier_scale, outlier_length)
    logP = log_of(switching.switching)

    def branch(now: Cloud) -> Prediction:
        return now.logw[:, :, None] + logP[now.mode], now.mean[:, :, None], now.cov[:, :, None]

    def keep(cloud: Cloud) -> Cloud:
        return _survivors(cloud, size, stream.random(len(cloud.logw)))

    return filtered(switching, t, z, query_times, branch, keep, "particles")


def _switching(
    model: Any, rate: float | None, scale: float | None, length: float | None
) -> SwitchingModel:
    """The model that switches, given or made of a contamination."""
    if isinstance(model, SwitchingModel):
        if any(x is not None for x in (rate, scale, length)):
            raise ValueError(
                "outlier_rate, outlier_scale and outlier_length make modes of a plain model; a "
                "SwitchingModel has its own"
            )
        return model
    if rate is None or scale is None:
        raise ValueError("outlier_rate and outlier_scale must be given unless the model switches")
    return contaminated(model, rate, scale, outlier_length=length)


def _survivors(cloud: Cloud, size: int, uniform: Array) -> Cloud:
    """At most `size` of the Gaussians, by the resampling that loses least; uniform (n,)."""
    n, L = cloud.logw.shape
    if size >= L:
        return cloud
    w = np.exp(cloud.logw)
    # c_j = weight of all but the j largest / (size - j); least j with the next weight <= c_j.
    down = -np.sort(-w, axis=1)[:, :size]
    rest = np.maximum(1.0 - np.cumsum(down, axis=1) + down, 0.0)
    c = rest / (size - np.arange(size))
    kept = np.argmax(down <= c, axis=1)
    c = np.take_along_axis(c, kept[:, None], axis=1)
    certain = w > c
    with np.errstate(invalid="ignore", divide="ignore"):
        logc = np.log(c)
        along = np.cumsum(np.where(certain, 0.0, w), axis=1) / c + uniform[:, None]
    drawn = np.diff(np.floor(along), axis=1, prepend=np.zeros((n, 1))) > 0
    logw = np.where(certain, cloud.logw, np.where(drawn, logc, -np.inf))
    at = np.argsort(-logw, axis=1, kind="stable")[:, :size]
    logw = np.take_along_axis(logw, at, axis=1)
    logw = logw - logsumexp(logw, axis=1, keepdims=True)
    rows = np.arange(n)[:, None]
    return Cloud(logw, cloud.mean[rows, at], cloud.cov[rows, at], cloud.mode[rows, at])
