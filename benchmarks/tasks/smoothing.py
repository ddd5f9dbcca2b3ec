"""Filter and smoother for one series, and for a thousand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Task
from benchmarks.tasks import kalman_peers as peers

EXACT = 1e-8
BOOSTED = 1e-6
"""dynamax adds 1e-9 to the diagonal of every matrix that it inverts."""

ALONE = "afafilter, one thread"


def inputs(params: Mapping[str, Any]) -> Arrays:
    """A random stable model with d states and d/2 observed mixtures of them, and data from it."""
    from afafilter import LinearSDE, Prior, random_stable, simulate

    rng = np.random.default_rng(params["seed"])
    d, T, n = params["d"], params["T"], params.get("paths", 1)
    model = random_stable(d, max(1, d // 2), rng=rng)
    m0, P0 = np.zeros(d), 2.0 * np.eye(d)
    model = LinearSDE(model.A, Q=model.Q, R=model.R, C=model.C, prior=Prior(mean=m0, cov=P0))
    gaps = rng.exponential(0.1, T) if params.get("irregular") else np.full(T, 0.1)
    t = np.cumsum(gaps) - gaps[0]
    drawn = simulate(model, t, n, rng=rng, missing=params.get("missing", 0.0))
    if params.get("irregular"):
        F, _, V = model.transition(np.diff(t, prepend=t[0]))
    else:
        F, _, V = model.transition(0.1)
    return {
        "t": t, "z": drawn.z if "paths" in params else drawn.z[0],
        "A": model.A, "Q": model.Q, "H": model.C, "R": model.R, "F": F, "V": V,
        "m0": m0, "P0": P0,
    }  # fmt: skip


def _cases() -> tuple[Case, ...]:
    cases = []
    for d in (2, 4, 8):
        for T in (1_000, 10_000, 100_000):
            names = ["statsmodels", OURS, "dynamax", "filterpy"]
            names += ["dynamax parallel", "pykalman"] if d == 4 and T <= 10_000 else []
            names += ["simdkalman", "torch-kf"] if T <= 1_000 else []
            params = {"d": d, "T": T, "seed": d}
            cases.append(Case(f"regular d={d} N={T}", T, params, tuple(names)))
    params = {"d": 4, "T": 100_000, "seed": 4, "irregular": True, "missing": 0.1}
    names = ["statsmodels", OURS, "filterpy", "filterpy from SDE"]
    gappy = "irregular, 10 % missing, d=4 N=100000"
    cases.append(Case(gappy, 100_000, params, (*names, "dynamax")))
    cases.append(Case(gappy + " 2 threads", 100_000, params, tuple(names), threads=2))
    params = {"d": 4, "T": 1_000_000, "seed": 4, "irregular": True}
    long = "irregular, d=4 N=1000000 2 threads"
    cases.append(Case(long, 1_000_000, params, (OURS, ALONE), threads=2))
    return tuple(cases)


ONE = Task(
    "smoothing",
    "Kalman filter and RTS smoother, one series",
    "Means and covariances of the smoothed state; d/2 of d states observed. Ours starts from "
    "the continuous-time model and the times, the peers from the discretised model (filterpy from "
    "SDE: from what ours starts from).",
    (
        Library("statsmodels", peers.statsmodels, "statsmodels", EXACT),
        Library(OURS, peers.ours, None, EXACT),
        Library(ALONE, peers.ours_alone, None, EXACT),
        Library("dynamax", peers.dynamax, "dynamax", BOOSTED),
        Library("dynamax parallel", peers.dynamax_parallel, "dynamax", BOOSTED),
        Library("filterpy", peers.filterpy, "filterpy", EXACT),
        Library(
            "filterpy from SDE",
            peers.filterpy_from_sde,
            "filterpy",
            EXACT,
            "with van_loan_discretization of each step",
        ),
        Library("pykalman", peers.pykalman, "pykalman", EXACT),
        Library("simdkalman", peers.simdkalman, "simdkalman", EXACT),
        Library("torch-kf", peers.torch_kf, "torch_kf", EXACT),
    ),
    _cases(),
    inputs,
    {"T": 40},
)

_BATCH = {"d": 4, "T": 1000, "paths": 1000, "seed": 4}
_ALL = ("dynamax vmap", "dynamax vmap, one cov", OURS, "simdkalman", "torch-kf")
_GAPS = ("dynamax vmap", OURS)

MANY = Task(
    "batches",
    "Kalman filter and RTS smoother, 1000 series of 1000 steps",
    "d = 4, two observed mixtures. Without gaps covariances may be shared; with gaps every series "
    "misses 10 % of its components in a pattern of its own.",
    (
        Library("dynamax vmap", peers.dynamax, "dynamax", BOOSTED),
        Library(
            "dynamax vmap, one cov",
            peers.dynamax_once,
            "dynamax",
            BOOSTED,
            "told that covariances are shared",
        ),
        Library(OURS, peers.ours, None, BOOSTED),
        Library("simdkalman", peers.simdkalman, "simdkalman", BOOSTED),
        Library("torch-kf", peers.torch_kf, "torch_kf", BOOSTED, "one covariance for all paths"),
    ),
    (
        Case("shared covariances", 1000, _BATCH, _ALL),
        Case("shared covariances, 2 threads", 1000, {**_BATCH, "threads": 2}, _ALL, threads=2),
        Case("own gaps", 1000, {**_BATCH, "missing": 0.1}, _GAPS),
        Case("own gaps, 2 threads", 1000, {**_BATCH, "missing": 0.1, "threads": 2}, _GAPS, 2),
    ),
    inputs,
    {"T": 30, "paths": 5},
)
