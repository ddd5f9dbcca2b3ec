"""Mixtures of Gaussians, one for each history of the modes of a model that switches.

    log w(r_0..r_k) = sum_l [log p(r_l | r_{l-1}) + log N(z_l; H m_l^-, S_l)]

A Kalman filter for each history, side by side: the recursion that `afafilter.kalman.switching`
keeps finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from afafilter._base.checks import Array, ObsMask
from afafilter._base.steps import distinct_steps
from afafilter._base.unknown import mark
from afafilter.kalman.estimators import kalman_filter
from afafilter.kalman.inputs import Inputs, checked_inputs, rows_of
from afafilter.models.sde import LinearSDE
from afafilter.models.switching import SwitchingModel
from afafilter.results import Estimate

MAX_HISTORIES = 256
"""Most histories of modes that a flat start is made of."""


Index = NDArray[np.intp]


class Modes(NamedTuple):
    """What each mode does at each time; axis 1 has length 1 where the modes agree.

    F (T, M, d, d), b (T, M, d), V (T, M, d, d), H (T, M, p, d), off (T, M, p), R (T, M, p, p).
    """

    F: Array
    b: Array
    V: Array
    H: Array
    off: Array
    R: Array


class Cloud(NamedTuple):
    """Gaussians: log weights (n, J), mean (n, J, d), cov (n, J, d, d) and last mode (n, J).

    The weights of a path sum to one.
    """

    logw: Array
    mean: Array
    cov: Array
    mode: Index


Prediction = tuple[Array, Array, Array]
"""Before a step: log weights (n, J, M) of Gaussians that each mode moves, their mean and cov."""


def filtered(
    model: SwitchingModel,
    t: ArrayLike,
    z: ArrayLike | None,
    query_times: ArrayLike | None,
    spread: Callable[[Cloud], Prediction],
    keep: Callable[[Cloud], Cloud],
    label: str,
) -> Estimate:
    """Filter: `spread` over the modes before a step and what to `keep` make the difference.

    Queries move the whole cloud: what `keep` drops is missing from the next step alone.
    """
    first = model.models[0]
    inputs = checked_inputs(first, t, z, None, query_times)
    grid, asked, paths, lead = inputs.grid, inputs.asked, inputs.paths, inputs.z.shape[:-2]
    (n, T, _), d, M = paths.shape, model.dim, len(model.models)
    used = np.searchsorted(grid, asked, side="right") - 1
    between = np.flatnonzero((used >= 0) & (asked > grid[used]))
    ahead = _before(model, inputs, used)
    modes = _modes(model, grid)
    mean, cov = np.empty((n, T, d)), np.empty((n, T, d, d))
    logliks, shares, size = np.zeros((n, T)), np.empty((n, T, M)), np.empty((n, T))

    def report(k: int, cloud: Cloud, loglik: Array) -> Cloud:
        w = np.exp(cloud.logw)
        mean[:, k], cov[:, k] = _report(w, cloud)
        logliks[:, k], size[:, k] = loglik, 1.0 / (w**2).sum(axis=1)
        for m in range(M):
            shares[:, k, m] = (w * (cloud.mode == m)).sum(axis=1)
        return cloud

    law = first.initial_law(grid[0]) if isinstance(first, LinearSDE) else first.initial_law()
    start = 0
    if law.diffuse.size:
        for start, (cloud, loglik) in enumerate(_flat_start(model, modes, grid, paths)):
            now = report(start, cloud, loglik)
    else:
        logc = np.broadcast_to(log_of(model.initial), (n, 1, M))
        prior = logc, law.mean[None, None, None], law.cov[None, None, None]
        now = report(0, *_update(modes, 0, prior, paths[:, 0]))
    if (used[between] < start).any():
        raise ValueError(
            f"query_times between observations need a state that is determined, as it is from "
            f"{grid[start]:g} on, got {asked[between[0]]:g}; give the model prior=Prior(mean, cov)"
        )
    for k in range(start, T):
        here = between[used[between] == k]
        if len(here):
            moved = spread(now)
            for q in here:
                ahead[q] = _moved(model, moved, float(asked[q] - grid[k]))
        if k + 1 < T:
            prior = _predict(modes, k + 1, spread(keep(now)))
            now = report(k + 1, *_update(modes, k + 1, prior, paths[:, k + 1]))
    if query_times is not None:
        laws = [ahead.get(q, (mean[:, k], cov[:, k])) for q, k in enumerate(used)]
        mean, cov = (np.stack([law[part] for law in laws], axis=1) for part in (0, 1))
    info = {"mode_probability": shares.reshape(*lead, T, M)}
    if label == "particles":
        info["effective_particles"] = size.reshape(*lead, T)
    logliks = logliks.reshape(*lead, T)
    return Estimate(
        asked,
        mean.reshape(*lead, len(asked), d),
        cov.reshape(*lead, len(asked), d, d),
        loglik=logliks.sum(axis=-1),
        loglik_steps=logliks,
        label=label,
        info=info,
    )


def _before(model: SwitchingModel, inputs: Inputs, used: Index) -> dict[int, tuple[Array, Array]]:
    """Laws at the times before the first observation: those of the first mode's prior."""
    early = int(np.count_nonzero(used < 0))
    if not early:
        return {}
    z = inputs.paths[:, :1]
    found = kalman_filter(model.models[0], inputs.grid[:1], z, query_times=inputs.asked[:early])
    return {q: (found.mean[:, q], found.cov[:, q]) for q in range(early)}


def _moved(model: SwitchingModel, prior: Prediction, dt: float) -> tuple[Array, Array]:
    """Mean (n, d) and cov (n, d, d) a time dt after an observation: every mode moves its share."""
    logc, mean, cov = prior
    steps = [one.transition(dt) for one in model.models if isinstance(one, LinearSDE)]
    F, b, V = (np.stack(part) for part in zip(*steps, strict=True))
    moved = (F @ mean[..., None])[..., 0] + b
    spread = F @ cov @ np.swapaxes(F, -1, -2) + V
    n, d = len(logc), mean.shape[-1]
    return collapse(
        np.exp(logc).reshape(n, -1), moved.reshape(n, -1, d), spread.reshape(n, -1, d, d)
    )


def _predict(modes: Modes, k: int, prior: Prediction) -> Prediction:
    """m^- = F m + b,  P^- = F P F^T + V."""
    logc, mean, cov = prior
    F = modes.F[k]
    moved = (F @ mean[..., None])[..., 0] + modes.b[k]
    return logc, moved, F @ cov @ np.swapaxes(F, -1, -2) + modes.V[k]


def _update(modes: Modes, k: int, prior: Prediction, z: Array) -> tuple[Cloud, Array]:
    """Condition every Gaussian on z (n, p) in every mode; log of what z had as its density (n,)."""
    logc, mean, cov = prior
    seen = ~np.isnan(z)[:, None, None]
    H = np.where(seen[..., None], modes.H[k], 0.0)
    v = np.where(seen, z[:, None, None] - modes.off[k] - (H @ mean[..., None])[..., 0], 0.0)
    pair = seen[..., :, None] & seen[..., None, :]
    R = np.where(pair, modes.R[k], np.eye(z.shape[-1]))
    cross = cov @ np.swapaxes(H, -1, -2)
    S = H @ cross + R
    try:
        root = np.linalg.cholesky(S)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"an innovation at observation {k} is known exactly: R of every mode must be positive "
            "definite where the state is known"
        ) from None
    # K = P^- H^T S^-1;  m = m^- + K v;  P = (I - K H) P^- (I - K H)^T + K R K^T
    K = np.swapaxes(np.linalg.solve(S, np.swapaxes(cross, -1, -2)), -1, -2)
    left = np.eye(mean.shape[-1]) - K @ H
    after = left @ cov @ np.swapaxes(left, -1, -2) + K @ R @ np.swapaxes(K, -1, -2)
    white = np.linalg.solve(root, v[..., None])[..., 0]
    volume = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)
    constant = 0.5 * np.log(2.0 * np.pi) * seen.sum(axis=-1)
    logw = logc - 0.5 * (white**2).sum(axis=-1) - volume - constant
    (n, J, M), d = logw.shape, mean.shape[-1]
    mode = np.broadcast_to(np.arange(M), logw.shape)
    moved = np.broadcast_to(mean + (K @ v[..., None])[..., 0], (n, J, M, d))
    after = np.broadcast_to(after, (n, J, M, d, d))
    parts = (x.reshape(n, J * M, *x.shape[3:]) for x in (logw, moved, after, mode))
    cloud = Cloud(*parts)
    total = logsumexp(cloud.logw, axis=1)
    return cloud._replace(logw=cloud.logw - total[:, None]), total


def _flat_start(
    model: SwitchingModel, modes: Modes, grid: Array, z: Array
) -> list[tuple[Cloud, Array]]:
    """Clouds of all histories and log-likelihoods of each time, until every state is determined.

    The histories differ in R alone, so that each is a Kalman filter with a flat start.
    """
    own = modes._replace(R=modes.R[:, :1])
    if any(part.shape[1] > 1 for part in own):
        raise ValueError(
            "a model with a flat prior may switch R only; give it prior=Prior(mean, cov)"
        )
    first, M = model.models[0], len(model.models)
    plain = kalman_filter(first, grid, z)
    known = np.isfinite(plain.cov).all(axis=(0, 2, 3))
    steps = int(np.argmax(known)) + 1 if known.any() else len(grid)
    if M**steps > MAX_HISTORIES:
        raise ValueError(
            f"a flat prior that {steps} observations determine needs {M}^{steps} histories, at "
            f"most {MAX_HISTORIES} are followed; give the model prior=Prior(mean, cov)"
        )
    logp, logP = log_of(model.initial), log_of(model.switching)
    if not isinstance(first, LinearSDE) and first.time_varying:
        first = replace(first, **{x: getattr(first, x)[:steps] for x in first.time_varying})
    found, weights = [], []
    histories = np.array(list(product(range(M), repeat=steps)))
    for history in histories:
        R = modes.R[np.arange(steps), history if modes.R.shape[1] > 1 else 0]
        estimate = kalman_filter(first, grid[:steps], z[:, :steps], obs_cov=R)
        assert estimate.loglik_steps is not None
        prior = np.concatenate([[logp[history[0]]], logP[history[:-1], history[1:]]])
        weights.append(np.cumsum(estimate.loglik_steps + prior, axis=1))
        found.append(estimate)
    logw = np.stack(weights, axis=1)
    clouds, last = [], np.zeros(len(z))
    for k in range(steps):
        one = np.unique(histories[:, : k + 1], axis=0, return_index=True)[1]  # told apart by now
        total = logsumexp(logw[:, one, k], axis=1)
        mode = np.broadcast_to(histories[one, k], (len(z), len(one)))
        mean = np.stack([found[h].mean[:, k] for h in one], axis=1)
        cov = np.stack([found[h].cov[:, k] for h in one], axis=1)
        clouds.append((Cloud(logw[:, one, k] - total[:, None], mean, cov, mode), total - last))
        last = total
    return clouds


def _modes(model: SwitchingModel, grid: Array) -> Modes:
    """Transitions and observations of every mode at every time."""
    each = []
    for one in model.models:
        if isinstance(one, LinearSDE):
            steps, which = distinct_steps(np.diff(grid, prepend=grid[0]), grid)
            moves = [part[which] for part in one.transition(steps)]
            shown = [np.broadcast_to(x, (len(grid), *x.shape)) for x in (one.C, one.offset, one.R)]
        else:
            moves = [rows_of(one, name, len(grid)) for name in ("F", "b", "Q")]
            shown = [rows_of(one, name, len(grid)) for name in ("H", "d", "R")]
        each.append([*moves, *shown])
    parts = []
    for own in zip(*each, strict=True):
        same = all(np.array_equal(own[0], other) for other in own[1:])
        parts.append(np.stack(own[:1] if same else own, axis=1))
    return Modes(*parts)


def normalised(logw: Array) -> tuple[Array, Array]:
    """Log of the sums along the last axis, and the shares in them (0 where the sum is 0)."""
    total = logsumexp(logw, axis=-1)
    return total, np.exp(logw - np.where(np.isneginf(total), 0.0, total)[..., None])


def collapse(w: Array, mean: Array, cov: Array) -> tuple[Array, Array]:
    """Mean and covariance of the mixture along the last axis of w (..., J), mean (..., J, d)."""
    centre = (w[..., None, :] @ mean)[..., 0, :]
    apart = mean - centre[..., None, :]
    scaled = w[..., None] * apart
    spread = np.swapaxes(scaled, -1, -2) @ apart
    return centre, np.einsum("...j,...jab->...ab", w, cov) + spread


def _report(w: Array, cloud: Cloud) -> tuple[Array, Array]:
    """Mean and covariance of a cloud, undetermined where its Gaussians are."""
    unknown: ObsMask = np.asarray(np.isnan(cloud.mean).any(axis=1))
    if not unknown.any():
        return collapse(w, cloud.mean, cloud.cov)
    pair = unknown[:, None, :, None] | unknown[:, None, None, :]
    mean = np.where(unknown[:, None], 0.0, cloud.mean)
    return mark(*collapse(w, mean, np.where(pair, 0.0, cloud.cov)), unknown)


def log_of(p: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(p)
