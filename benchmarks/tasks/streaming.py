"""Kalman filter fed one observation at a time: the cost of a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Run, Task
from benchmarks.tasks.smoothing import EXACT, inputs


def ours(inputs: Arrays, params: Mapping[str, Any]) -> Run:
    """KalmanStream from the continuous-time model and the times."""
    from afafilter import KalmanStream, LinearSDE, Prior

    x = inputs
    model = LinearSDE(x["A"], Q=x["Q"], R=x["R"], C=x["H"], prior=Prior(mean=x["m0"], cov=x["P0"]))
    times, rows = x["t"].tolist(), list(x["z"])

    def run() -> Arrays:
        stream = KalmanStream(model)
        found = [stream.update(t, z) for t, z in zip(times, rows)]
        return {
            "mean": np.concatenate([one.mean for one in found]),
            "cov": np.concatenate([one.cov for one in found]),
        }

    return run


def filterpy(inputs: Arrays, params: Mapping[str, Any]) -> Run:
    """KalmanFilter.predict and update, from the discretised model."""
    from filterpy.kalman import KalmanFilter

    x = inputs
    p, d = x["H"].shape
    T = len(x["z"])
    Fs, Vs = (list(np.broadcast_to(part, (T, d, d))) for part in (x["F"], x["V"]))
    rows = [None if np.isnan(z).any() else z[:, None] for z in x["z"]]

    def run() -> Arrays:
        kf = KalmanFilter(dim_x=d, dim_z=p)
        kf.x, kf.P = x["m0"][:, None].copy(), x["P0"].copy()
        kf.H, kf.R = x["H"], x["R"]
        mean, cov = np.empty((T, d)), np.empty((T, d, d))
        for k, z in enumerate(rows):
            if k:
                kf.predict(F=Fs[k], Q=Vs[k])
            kf.update(z)
            mean[k], cov[k] = kf.x[:, 0], kf.P
        return {"mean": mean, "cov": cov}

    return run


_ONE = {"d": 4, "T": 10_000, "seed": 4}
_BOTH = (OURS, "filterpy")

TASK = Task(
    "streaming",
    "Kalman filter, one observation at a time",
    "d = 4, two observed mixtures; the filtered mean and covariance after every observation. Ours "
    "starts from the continuous-time model and the times, filterpy from the discretised model.",
    (
        Library(OURS, ours, None, EXACT, "KalmanStream"),
        Library("filterpy", filterpy, "filterpy", EXACT, "predict and update"),
    ),
    (
        Case("regular d=4 N=10000", 10_000, _ONE, _BOTH),
        Case("irregular d=4 N=10000", 10_000, {**_ONE, "irregular": True}, _BOTH),
    ),
    inputs,
    {"T": 40},
)
