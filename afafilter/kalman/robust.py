"""Weights of the observations for robust filters and smoothers: R_k / w_k.

The weights are found here; the estimate then follows from the ordinary recursions with the scaled
noise covariances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._base.checks import Array, ObsMask, is_definite
from afafilter._base.unknown import image, through
from afafilter.kalman import recursions
from afafilter.kalman.flat_start import raise_singular, start_paths
from afafilter.kalman.inputs import Reweighting
from afafilter.kalman.queries import at_observations
from afafilter.kalman.run import run
from afafilter.kalman.timeline import Timeline

CONVERGED = 1e-9
"""Largest change of a weight that counts as converged."""


def find_weights(
    line: Timeline, z: Array, how: Reweighting, smooth: bool
) -> tuple[Array, dict[str, Any]]:
    """Weights (n, T) of the observations z (n, T, p), 1 where nothing is observed, and facts."""
    if how.metric == "R" and not is_definite(line.chain.R).all():
        raise ValueError("R must be positive definite for metric 'R'; use metric 'raw'")
    facts: dict[str, Any] = {"anchor": how.anchor, "metric": how.metric}
    if how.anchor == "prediction":
        return _causal_weights(line, z, how)[0], facts
    w, rounds = _smoothed_weights(line, z, how) if smooth else _causal_weights(line, z, how)
    converged = bool((rounds < how.iterations).all())
    return w, facts | {"iterations": int(rounds.max()), "converged": converged}


def _causal_weights(line: Timeline, z: Array, how: Reweighting) -> tuple[Array, Array]:
    chain, t = line.chain, line.times
    n, T, p = z.shape
    state = start_paths(line.law, n, chain.R)
    v, S, known = np.empty((n, p)), np.empty((n, p, p)), np.empty((n, p), bool)
    w, rounds, loglik, measures = np.ones((n, T)), np.zeros(1), np.empty(n), np.empty(3)
    for k, o in enumerate(chain.obs):
        if k > 0:
            stamp = max(abs(t[k]), abs(t[k - 1]))
            recursions.predict_all(chain, k, t[k] - t[k - 1], stamp, line.sizes, state)
        if o < 0:
            continue
        recursions.innovations_all(chain, o, z, state, v, S, known)
        w[:, o], taken = reweight(how, v, S, chain.R[chain.cfg[o]], known & ~np.isnan(v))
        rounds = np.maximum(rounds, taken)
        dropped = w[:, o] == 0
        seen = ~np.isnan(z[:, o]) & ~dropped[:, None]
        scale = 1.0 / np.where(dropped, 1.0, w[:, o])
        if recursions.update_all(chain, o, z, seen, scale, line.sizes, state, loglik, measures):
            raise_singular(chain, k)
    return w, rounds


def reweight(how: Reweighting, v: Array, S: Array, R: Array, usable: ObsMask) -> tuple[Array, int]:
    """Weights of observations with innovations v (n, p), and how many reweightings they took.

    S (n, p, p) is the covariance of the prediction without measurement noise, R (p, p) that noise;
    what is not usable (n, p) does not count. But under anchor "prediction" the residual is that of
    the estimate that the weights lead to, r = (R/w) (S + R/w)^-1 v; variational: E d2 = r^T M^-1 r
    + tr M^-1 V, V = (R/w) (S + R/w)^-1 S what the estimate leaves open of the signal.
    """
    if how.anchor == "prediction":
        return _weights(how, v, R, usable, S + R if how.metric == "innovation" else None), 0
    pair = usable[:, :, None] & usable[:, None, :]
    eye = np.eye(len(R))
    noise, spread = np.where(pair, R, eye), np.where(pair, S, 0.0)
    innovation = np.where(usable, v, 0.0)
    w = np.ones(len(v))
    active: ObsMask = np.asarray(usable.any(axis=1))
    for count in range(how.iterations):
        if not active.any():
            return w, count
        inflated = noise[active] / np.maximum(w[active], 1e-300)[:, None, None]
        share = np.linalg.solve(spread[active] + inflated, innovation[active][..., None])
        residual = np.where(usable[active], (inflated @ share)[..., 0], np.nan)
        left = None
        if how.anchor == "variational":
            left = inflated @ np.linalg.solve(spread[active] + inflated, spread[active])
        fresh = _weights(how, residual, R, usable[active], left=left)
        moving = np.abs(fresh - w[active]) > CONVERGED
        w[active] = fresh
        active[active] = moving
    return w, how.iterations


def _smoothed_weights(line: Timeline, z: Array, how: Reweighting) -> tuple[Array, Array]:
    """Smoother after smoother, each path until its weights stand still."""
    chain = line.chain
    w = np.ones(z.shape[:2])
    rounds = np.full(len(z), how.iterations)
    active = np.arange(len(z))
    H, off, R = (np.asarray(part)[chain.cfg] for part in (chain.H, chain.off, chain.R))
    for count in range(how.iterations):
        with np.errstate(divide="ignore"):
            scale = None if count == 0 else 1.0 / w[active]
        found = run(line, z[active], True, scale)
        mean, cov, open_laws = at_observations(line, found)
        residual = z[active] - off - image(H, mean, open_laws)
        left = None
        if how.anchor == "variational":
            left = through(H, mean, cov[found.group], open_laws)[1]
        fresh = _weights(how, residual, R, ~np.isnan(residual), left=left)
        moving = np.abs(fresh - w[active]).max(axis=1) > CONVERGED
        w[active] = fresh
        rounds[active[~moving]] = count
        active = active[moving]
        if not len(active):
            break
    return w, rounds


def _weights(
    how: Reweighting,
    r: Array,
    R: Array,
    usable: ObsMask,
    scale: Array | None = None,
    left: Array | None = None,
) -> Array:
    """w(d2, dim) of residuals r (..., p) in the metric, or `scale` (..., p, p); 1 if none counts.

    left (..., p, p): covariance of r; then w of the mean of d2.
    """
    if scale is None:
        scale = R if how.metric == "R" else np.broadcast_to(np.eye(R.shape[-1]), R.shape)
    pair = usable[..., :, None] & usable[..., None, :]
    matrix = np.where(pair, scale, np.eye(r.shape[-1]))
    clean = np.where(usable, r, 0.0)
    if r.shape[-1] == 1:
        d2 = clean[..., 0] ** 2 / matrix[..., 0, 0]
    else:
        d2 = (clean * np.linalg.solve(matrix, clean[..., None])[..., 0]).sum(axis=-1)
    if left is not None:
        known = np.where(pair, left, 0.0)
        d2 = d2 + np.trace(np.linalg.solve(matrix, known), axis1=-2, axis2=-1)
    count = usable.sum(axis=-1)
    return np.where(count > 0, how.weight(d2, np.maximum(count, 1)), 1.0)
