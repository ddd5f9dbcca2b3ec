"""Compile the kernels and leave them in the cache on disk, by small runs of all that has any.

Jobs share no large kernel: processes side by side do not compile the same one twice.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.learning import families


def _times(n: int) -> Array:
    return np.cumsum(np.random.default_rng(0).exponential(0.3, n))


def _data(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape)


def _gappy(*shape: int) -> Array:
    z = _data(*shape)
    z[np.random.default_rng(2).random(shape) < 0.2] = np.nan
    return z


def _fit(model: Any, **options: Any) -> None:
    from afafilter.learning.fit import fit

    fit(model, _times(30), _data(30, model.obs_dim), max_iter=2, **options)


def _fit_one_component() -> None:
    from afafilter.models.presets import ornstein_uhlenbeck

    _fit(ornstein_uhlenbeck(), free=["R"])
    _fit(families.ornstein_uhlenbeck() + families.noise())


def _fit_one_flat_component() -> None:
    from afafilter.models.presets import brownian

    _fit(brownian())
    _fit(families.brownian() + families.noise())


def _fit_several_components() -> None:
    from afafilter.models.presets import spiral

    for method in ("ml", "em"):
        _fit(spiral(), method=method, free=["R"])
    _fit(families.cycle() + families.noise())


def _kalman() -> None:
    from afafilter.kalman.estimators import rts_smoother
    from afafilter.models.presets import constant_velocity, spiral

    rts_smoother(constant_velocity(), _times(20), _gappy(20, 1))
    rts_smoother(spiral(prior="stationary"), _times(3000), _data(3000, 2))


def _kalman_paths() -> None:
    from afafilter.kalman.estimators import rts_smoother
    from afafilter.models.presets import spiral

    rts_smoother(spiral(prior="stationary"), _times(20), _data(9, 20, 2))


def _kalman_paths_with_gaps() -> None:
    from afafilter.kalman.estimators import rts_smoother
    from afafilter.models.presets import spiral

    rts_smoother(spiral(prior="stationary"), _times(20), _gappy(9, 20, 2))


def _kalman_robust() -> None:
    from afafilter.kalman.estimators import rts_smoother
    from afafilter.models.presets import spiral
    from afafilter.weights import StudentT

    rts_smoother(spiral(prior="stationary"), _times(20), _gappy(9, 20, 2), weight=StudentT(5.0))


def _adaptive() -> None:
    from afafilter.adaptive.estimators import adaptive_smoother
    from afafilter.models.presets import constant_velocity

    adaptive_smoother(constant_velocity(), _times(8), _data(2, 8, 1), correlation="exact")


def _adaptive_robust() -> None:
    from afafilter.adaptive.estimators import adaptive_smoother
    from afafilter.models.presets import constant_velocity
    from afafilter.weights import StudentT

    adaptive_smoother(
        constant_velocity(), _times(8), _data(2, 8, 1), correlation="exact", weight=StudentT(5.0),
        anchor="estimate",
    )  # fmt: skip


def _attention(dtype: Any) -> None:
    from afafilter.attention.functions import isotropic_attention
    from afafilter.weights import StudentT

    x = _data(40, 4).astype(dtype)
    for weight in (StudentT(5.0), None):
        isotropic_attention(
            x, x, x, _times(40), decay=0.1, frequency=1.0, process_var=1.0, key_var=1.0,
            weight=weight,
        )  # fmt: skip


def _simulate() -> None:
    from afafilter.models.presets import constant_velocity, spiral
    from afafilter.simulation.simulate import simulate

    for model in (constant_velocity(), spiral()):
        simulate(model, _times(5), 2, rng=np.random.default_rng(0), x0=np.zeros(2))


def _linear_time() -> None:
    from afafilter.adaptive.linear_time.filter import linear_time_filter
    from afafilter.models.presets import ornstein_uhlenbeck, spiral

    linear_time_filter(spiral(), _times(50), _data(50, 2), method="linear")
    linear_time_filter(ornstein_uhlenbeck(), _times(50), _data(50, 1), method="linear")


JOBS: dict[str, Callable[[], None]] = {
    "fit of a model with one component": _fit_one_component,
    "fit of a model with one component and a flat prior": _fit_one_flat_component,
    "fit of a model with several components": _fit_several_components,
    "Kalman filter": _kalman,
    "robust adaptive filter with exact correlation": _adaptive_robust,
    "adaptive filter with exact correlation": _adaptive,
    "attention in double precision": lambda: _attention(np.float64),
    "attention in single precision": lambda: _attention(np.float32),
    "Kalman filter of paths with gaps of their own": _kalman_paths_with_gaps,
    "Kalman filter of many paths": _kalman_paths,
    "robust Kalman filter": _kalman_robust,
    "simulation": _simulate,
    "adaptive filter in linear time": _linear_time,
}
"""What is run, the longest first."""


def compile_kernels(jobs: int = 1) -> Iterator[str]:
    """Compile all kernels that are not in the cache yet; yields a line on each group of them.

    Raises
    ------
    OSError
        Where no cache can be written.
    """
    from joblib import Parallel, delayed

    where = cache_directory()
    if where is None:
        raise OSError(
            "no cache can be written beside the package or in the user's cache; "
            "set NUMBA_CACHE_DIR to a directory that can"
        )
    run = Parallel(n_jobs=jobs, return_as="generator_unordered")
    start = time.perf_counter()
    for done, (name, seconds) in enumerate(run(delayed(_run)(name) for name in JOBS), start=1):
        yield f"{done:2} of {len(JOBS)}  {name} ({seconds:.0f} s)"
    yield f"compiled in {time.perf_counter() - start:.0f} s, kept in {where}"


def cache_directory() -> str | None:
    """Where compiled kernels are kept; None where nothing can be written."""
    from afafilter._core.kalman_root_kernels import triangularise

    path: str | None = triangularise.stats.cache_path
    return path


def _run(name: str) -> tuple[str, float]:
    """One group, in a process of its own where there are several."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two steps of a fit do not converge
        JOBS[name]()
    return name, time.perf_counter() - start
