"""A study of many small cells on two workers: joblib's processes beside a dask cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Array, Arrays, Case, Library, Run, Task

Params = Mapping[str, Any]
WORKERS = 2
SELDOM = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""Dask's profiler and monitors interrupt small cells up to a hundred times a second."""


def inputs(params: Params) -> Arrays:
    """Times of every cell."""
    return {"t": 0.1 * np.arange(params["T"])}


def _study(t: Array, params: Params) -> Any:
    from afafilter import Outliers, Scenario, Study, adaptive_filter, kalman_filter, spiral

    rates = (0.0, 0.05, 0.1, 0.15, 0.2)
    return Study(
        {f"q={q}": spiral(0.1, 1.0, process_var=q, obs_var=0.5) for q in (0.1, 0.3)},
        {"kalman": kalman_filter, "afa": adaptive_filter},
        {
            f"{rate}": Scenario(t, n_paths=10, outliers=Outliers(rate) if rate else None)
            for rate in rates
        },
        seeds=params["seeds"],
    )


def _studies(t: Array, params: Params) -> tuple[Any, Any]:
    """A small one that starts the workers, and the one that is timed."""
    return _study(t, {**params, "seeds": 1}), _study(t, params)


def _scores(study: Any, **options: Any) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        result = study.run(folder, progress=False, **options)
        rows = result.frame
    return {"scores": rows.loc[rows["metric"] == "rmse", "value"].to_numpy()}


def joblib(inputs: Arrays, params: Params) -> Run:
    """Study.run with n_jobs; starting the processes is not timed."""
    small, study = _studies(inputs["t"], params)
    _scores(small, n_jobs=WORKERS)
    return lambda: _scores(study, n_jobs=WORKERS)


def dask(inputs: Arrays, params: Params) -> Run:
    """Study.run inside parallel_config(backend="dask"); starting the cluster is not timed."""
    import distributed
    from dask import config
    from joblib import parallel_config

    small, study = _studies(inputs["t"], params)
    with config.set(SELDOM):
        cluster = distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None
        )
        client = distributed.Client(cluster)

    def run(study: Any = study) -> Arrays:
        with client.as_current(), parallel_config(backend="dask"):
            return _scores(study)

    run(small)
    return run


TASK = Task(
    "studies",
    "A study of small cells",
    "10 paths of 50 steps, two estimators in every cell; two worker processes. Numbers must agree "
    "exactly.",
    (
        Library(OURS, joblib, None, 0.0, "joblib"),
        Library("dask", dask, "distributed", 0.0, "LocalCluster, monitors seldom"),
    ),
    (
        Case(
            "10,000 cells",
            10_000,
            {"T": 50, "seeds": 1000},
            (OURS, "dask"),
            threads=2,
            rounds=0,
            memory=False,
        ),
    ),
    inputs,
    {"seeds": 2, "T": 12},
)
