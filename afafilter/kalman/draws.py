"""Joint draws of the states given the data: the simulation smoother.

    x* = E[x | z] + x+ - E[x | z+],      (x+, z+) drawn from the model

x+ - E[x | z+] is independent of z+ and has the covariance of x given z, so x* has the joint law of
the states given z. Along flat directions x+ may start anywhere, since smoothing undoes it: it
starts at 0. (Durbin and Koopman, A simple and efficient simulation smoother for state space time
series analysis, Biometrika 89, 2002, 603-615; diffuse start: sec. 2.4.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.kalman import queries as ask
from afafilter.kalman.run import run
from afafilter.kalman.timeline import Timeline
from afafilter.linalg.transitions import lower_roots


def draw_paths(
    model: Any,
    line: Timeline,
    z: Array,
    scale: Array | None,
    asked: Array | None,
    mean: Array,
    n: int,
    rng: np.random.Generator,
) -> Array:
    """n draws (n, ..., Tq, d) of the states of paths z (m, T, p), smoothed to mean (..., Tq, d).

    line: nodes of prior, observations and queries. scale (m, T) multiplies the noise covariance of
    single observations. asked: query times, or None for the states that observations show.
    """
    early = asked is not None and bool((line.asked < 0).any())
    if early:
        raise ValueError(
            "sample_paths needs query_times from the time of the prior on; give a Prior with an "
            "earlier t0"
        )
    m, p = len(z), z.shape[-1]
    repeated = None if scale is None else np.tile(scale, (n, 1))
    paths, shown = _simulated(line, n * m, p, rng, repeated)
    shown[np.isnan(np.tile(z, (n, 1, 1)))] = np.nan
    found = run(line, shown, True, repeated, False)
    if asked is None:
        smoothed, at = ask.at_observations(line, found).mean, line.seen_at
    else:
        smoothed, at = ask.smoothed(model, line, found, asked).mean, line.asked
    moved = paths[:, at] - smoothed
    return mean + moved.reshape(n, *mean.shape)


def _simulated(
    line: Timeline, count: int, p: int, rng: np.random.Generator, scale: Array | None
) -> tuple[Array, Array]:
    """States (count, N, d) at the nodes and observations (count, T, p) of the model.

    x_k = F x_{k-1} + b + V^{1/2} e, z = H x + off + R^{1/2} v; F and V^{1/2} come by columns.
    """
    chain, (start, cov, _) = line.chain, line.law
    N, d = len(line.times), len(start)
    x = rng.standard_normal((count, N, d))
    x[:, 0] = start + x[:, 0] @ lower_roots(cov[None])[0]
    for k in range(1, N):
        u = chain.step[k]
        x[:, k] = x[:, k - 1] @ chain.F[u] + chain.b[u] + x[:, k] @ chain.root[u]
    node = np.flatnonzero(chain.obs >= 0)
    cfg = chain.cfg[chain.obs[node]]
    noise = rng.standard_normal((count, len(node), p))
    if scale is not None:
        noise *= np.sqrt(np.where(np.isfinite(scale), scale, 0.0))[..., None]
    roots = lower_roots(chain.R)[cfg]
    z = np.einsum("kij,nkj->nki", chain.H[cfg], x[:, node]) + chain.off[cfg]
    return x, z + np.einsum("kij,nki->nkj", roots, noise)
