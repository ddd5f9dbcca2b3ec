"""Calls on fifty observations of two states: what a call costs before any recursion does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Run, Task, estimates

Params = Mapping[str, Any]
MU, SIGMA2, ETA2, NU = 0.1, 0.3, 0.5, 4.0
VAGUE = 1e8
"""Prior variance of the written-out filter where ours starts flat."""
SETTLED = 2
"""Observations after which a flat start of constant velocity is forgotten."""


def inputs(params: Params) -> Arrays:
    """Times (T,) and data (T, p) of the model that the case names."""
    from afafilter import LinearSDE, constant_velocity, simulate

    t = 0.1 * np.arange(params["T"])
    if params["model"] == "flat":
        model, x0 = constant_velocity(process_var=1.0, obs_var=1.0), [0.0, 0.0]
    else:
        model, x0 = LinearSDE.isotropic(MU, 1.0, process_var=SIGMA2, obs_var=ETA2), None
    z = simulate(model, t, x0=x0, rng=params["seed"]).z[0]
    F, _, V = model.transition(0.1)
    P0 = VAGUE * np.eye(2) if params["model"] == "flat" else model.stationary_covariance()
    return {
        "t": t,
        "z": z,
        "A": model.A,
        "Q": model.Q,
        "R": model.R,
        "C": model.C,
        "F": F,
        "V": V,
        "P0": P0,
    }


def ours(inputs: Arrays, params: Params) -> Run:
    """kalman_filter or adaptive_filter on arrays."""
    from afafilter import LinearSDE, adaptive_filter, kalman_filter

    x = inputs
    model = LinearSDE(x["A"], Q=x["Q"], R=x["R"], C=x["C"])
    options: dict[str, Any] = {}
    if params.get("rounds"):
        options = {"weight": "student_t", "anchor": "estimate", "tolerance": 0.0}
        options["iterations"] = params["rounds"]
    estimate = adaptive_filter if params["model"] == "pairs" else kalman_filter
    return estimates(lambda: estimate(model, x["t"], x["z"], **options))


def written_out(inputs: Arrays, params: Params) -> Run:
    """The textbook's covariance recursion, or all pairs of AFA at once, in NumPy."""
    return _pairs(inputs, params) if params["model"] == "pairs" else _recursion(inputs)


def _recursion(x: Arrays) -> Run:
    def run() -> Arrays:
        m, P, C = np.zeros(2), x["P0"], x["C"]
        mean, cov = np.empty((len(x["z"]), 2)), np.empty((len(x["z"]), 2, 2))
        for k, z in enumerate(x["z"]):
            if k:
                m, P = x["F"] @ m, x["F"] @ P @ x["F"].T + x["V"]
            gain = np.linalg.solve(C @ P @ C.T + x["R"], C @ P).T
            m, P = m + gain @ (z - C @ m), P - gain @ C @ P
            mean[k], cov[k] = m, P
        return {"mean": mean, "cov": cov}

    return run


def _pairs(x: Arrays, params: Params) -> Run:
    """zbar_i = sum_j w_ij P_ij zhat_ij / sum_j w_ij P_ij of isotropic AFA (arXiv:2509.04154)."""

    def run() -> Arrays:
        tau = x["t"][:, None] - x["t"]
        E = np.exp(-MU * np.abs(tau))
        turn = np.exp(1j * tau) * E
        pulled = turn * (x["z"][:, 0] + 1j * x["z"][:, 1])
        P = np.where(tau >= 0, 1 / (SIGMA2 * (1 - E**2) / (2 * MU) + ETA2 * E**2), 0.0)
        weight = P
        for _ in range(params.get("rounds", 0)):
            anchor = (weight * pulled).sum(axis=1) / weight.sum(axis=1)
            d2 = P * np.abs(pulled - anchor[:, None]) ** 2
            weight = P * (NU + 2) / (NU + d2)
        mean = (weight * pulled).sum(axis=1) / weight.sum(axis=1)
        cov = np.eye(2) / weight.sum(axis=1)[:, None, None]
        return {"mean": np.stack([mean.real, mean.imag], axis=-1), "cov": cov}

    return run


def settled(result: Arrays, inputs: Arrays, params: Params) -> Arrays:
    """What does not depend on how vague the start was."""
    first = SETTLED if params["model"] == "flat" else 0
    return {name: value[first:] for name, value in result.items()}


WRITTEN_OUT = "NumPy, written out"
_BOTH = (OURS, WRITTEN_OUT)
_CASES = {
    "kalman_filter": {"model": "proper"},
    "kalman_filter, flat start": {"model": "flat"},
    "adaptive_filter": {"model": "pairs"},
    "adaptive_filter, five rounds": {"model": "pairs", "rounds": 5},
}

TASK = Task(
    "small_calls",
    "Small calls",
    "d = 2, 50 regular observations, one call on arrays, warm: checks, results and all.",
    (
        Library(OURS, ours, None, 1e-5),
        Library(WRITTEN_OUT, written_out, "numpy", 1e-5, "no checks, no likelihood"),
    ),
    tuple(Case(name, 50, {"T": 50, "seed": 2, **case}, _BOTH) for name, case in _CASES.items()),
    inputs,
    {"T": 20},
    reduce=settled,
)
