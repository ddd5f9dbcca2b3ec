"""Dense AFA of a track: constant velocity in the plane, which is neither isotropic nor modal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import solveh_banded

from benchmarks.contest import OURS, Array, Arrays, Case, Library, Run, Task, estimates

Params = Mapping[str, Any]
PROCESS_VAR, OBS_VAR, NU = 0.5, 0.3, 4.0
GAPS = 0.05
CHECKED = 12


def inputs(params: Params) -> Arrays:
    """Irregular times (N,) and observations (N, 2) of the position, some components missing."""
    from afafilter import simulate

    rng = np.random.default_rng(params["seed"])
    t = np.cumsum(0.2 + rng.exponential(0.8, params["N"]))  # steps that V^-1 below stands
    z = simulate(_model(), t, x0=np.zeros(4), rng=rng).z[0].copy()
    if params["gaps"]:
        z[rng.random(z.shape) < GAPS] = np.nan
    return {"t": t, "z": z}


def _model() -> Any:
    from afafilter import constant_velocity

    return constant_velocity(PROCESS_VAR, OBS_VAR, dim=2)


def ours(inputs: Arrays, params: Params) -> Run:
    """adaptive_filter or adaptive_smoother."""
    from afafilter import StudentT, adaptive_filter, adaptive_smoother

    model = _model()
    options: dict[str, Any] = {"window": params["window"] or None}
    if params["rounds"]:
        options |= {"weight": StudentT(NU), "anchor": "estimate", "tolerance": 0.0}
        options["iterations"] = params["rounds"]
    if params["exact"]:
        options["correlation"] = "exact"
    estimate = adaptive_smoother if params["exact"] else adaptive_filter
    return estimates(lambda: estimate(model, inputs["t"], inputs["z"], **options))


def written_out(inputs: Arrays, params: Params) -> Run:
    """Every query by sums over its pairs, as the paper writes them."""

    def run() -> Arrays:
        found = [answer(inputs, params, i) for i in range(params["N"])]
        return {name: np.array([f[name] for f in found]) for name in found[0]}

    return run


def answer(inputs: Arrays, params: Params, i: int) -> Arrays:
    """Mean (4,) and claimed covariance (4, 4) at t_i; both positions, both velocities.

    z_j = C x_i(t_j) + noise, pulled to t_i: H_j = [1, -tau], S_j = r + q tau^3 / 3. A weight
    w(d2, p) takes both axes together: d2 = sum over seen axes of (z_j - H_j a)^2 / S_j.
    """
    last = params["N"] if params["exact"] else i + 1
    first = max(0, last - params["window"]) if params["window"] else 0
    tau = inputs["t"][i] - inputs["t"][first:last]
    z = inputs["z"][first:last]
    seen = ~np.isnan(z)
    H = np.stack([np.ones_like(tau), -tau], axis=1)
    S = OBS_VAR + PROCESS_VAR * np.abs(tau) ** 3 / 3
    solve = _jointly if params["exact"] else _independently
    w = np.ones_like(tau)
    for round_ in range(params["rounds"] + 1):
        mean, cov = np.full((2, 2), np.nan), np.zeros((2, 2, 2))
        for axis in (0, 1):
            mean[axis], cov[axis] = solve(tau, z[:, axis], seen[:, axis], w)
        if round_ < params["rounds"] and np.isfinite(mean).all():
            d2 = np.where(seen, (z - H @ mean.T) ** 2, 0.0).sum(axis=1) / S
            w = (NU + seen.sum(axis=1)) / (NU + d2)
    whole = np.zeros((4, 4))
    whole[::2, ::2], whole[1::2, 1::2] = cov
    return {"mean": mean.T.ravel(), "cov": whole}


def _independently(tau: Array, z: Array, seen: Array, w: Array) -> tuple[Array, Array]:
    """(sum w P H^T H)^-1 sum w P H^T z with P = 1 / S; nothing where two states need more."""
    if seen.sum() < 2:
        return np.full(2, np.nan), np.full((2, 2), np.nan)
    H = np.stack([np.ones_like(tau), -tau], axis=1)[seen]
    P = (w / (OBS_VAR + PROCESS_VAR * np.abs(tau) ** 3 / 3))[seen]
    cov = np.linalg.inv(H.T @ (P[:, None] * H))
    return cov @ (H.T @ (P * z[seen])), cov


def _jointly(tau: Array, z: Array, seen: Array, w: Array) -> tuple[Array, Array]:
    """The state at tau = 0 given all, R_j / w_j: the whole path's normal equations, banded.

    (x_{k+1} - F x_k)^T V^-1 (x_{k+1} - F x_k) with F = [1, h; 0, 1] and
    V^-1 = [12 / h^3, -6 / h^2; -6 / h^2, 4 / h] / q.
    """
    n = len(tau)
    blocks = np.zeros((n, 2, 2))
    blocks[:, 0, 0] = np.where(seen, w / OBS_VAR, 0.0)
    h = -np.diff(tau)
    F = np.tile(np.eye(2), (n - 1, 1, 1))
    F[:, 0, 1] = h
    V = np.moveaxis(np.array([[12 / h**3, -6 / h**2], [-6 / h**2, 4 / h]]), 2, 0) / PROCESS_VAR
    blocks[1:] += V
    blocks[:-1] += np.swapaxes(F, 1, 2) @ V @ F
    beside = -V @ F
    bands = np.zeros((4, 2 * n))  # bands[u] holds entries (k + u, k)
    bands[0, 0::2], bands[0, 1::2], bands[1, 0::2] = (
        blocks[:, 0, 0],
        blocks[:, 1, 1],
        blocks[:, 1, 0],
    )
    bands[1, 1:-1:2] = beside[:, 0, 1]
    bands[2, 0:-2:2], bands[2, 1:-1:2] = beside[:, 0, 0], beside[:, 1, 1]
    bands[3, 0:-2:2] = beside[:, 1, 0]
    at = 2 * int(np.flatnonzero(tau == 0)[0])
    right = np.zeros((2 * n, 3))
    right[0::2, 0] = np.where(seen, z * w / OBS_VAR, 0.0)
    right[[at, at + 1], [1, 2]] = 1.0
    found = solveh_banded(bands, right, lower=True)[at : at + 2]
    return found[:, 0], found[:, 1:]


def checked_queries(params: Params) -> Array:
    """Some queries that are determined, the last among them."""
    return np.unique(np.linspace(params["N"] // 3, params["N"] - 1, CHECKED).astype(int))


def reduce(result: Arrays, inputs: Arrays, params: Params) -> Arrays:
    """The checked queries of a result."""
    return {name: value[checked_queries(params)] for name, value in result.items()}


def expected(inputs: Arrays, params: Params) -> Arrays:
    """Each checked query by itself."""
    found = [answer(inputs, params, i) for i in checked_queries(params)]
    return {name: np.array([f[name] for f in found]) for name in found[0]}


WRITTEN_OUT = "NumPy, query by query"
_BOTH = (OURS, WRITTEN_OUT)


def _case(name: str, libraries: tuple[str, ...] = _BOTH, N: int = 2000, **params: Any) -> Case:
    plain = {"N": N, "seed": 5, "gaps": False, "rounds": 0, "exact": False, "window": 0}
    return Case(name, N, {**plain, **params}, libraries)


TASK = Task(
    "tracks",
    "Dense AFA of a track",
    "Constant velocity in the plane, d = 4, p = 2, irregular times. Checked on single queries "
    "against sums over pairs as the paper writes them; the exact ones against the banded normal "
    "equations of the whole path.",
    (
        Library(OURS, ours, None, 1e-7),
        Library(WRITTEN_OUT, written_out, "numpy", 1e-7, "no checks"),
    ),
    (
        _case("plain N=2000"),
        _case("5 % missing N=2000", gaps=True),
        _case("robust, five rounds N=2000", rounds=5),
        _case("exact two-sided N=2000", (OURS,), exact=True),
        _case("exact robust two-sided, five rounds N=2000", (OURS,), exact=True, rounds=5),
        _case("window 200 N=20000", N=20_000, window=200),
    ),
    inputs,
    {"N": 40},
    expected,
    reduce,
)
