"""Settings that several experiments share, so that their numbers can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from afafilter import (
    IMQ,
    Estimate,
    Huber,
    LinearSDE,
    Outliers,
    Power,
    Prior,
    StudentT,
    adaptive_filter,
    filterpy_filter,
    kalman_filter,
    mixture_filter,
    raw_observation,
    rts_smoother,
    spiral,
)

Estimator = Callable[..., Estimate]

STEPS = 128
TIMES = 0.1 * np.arange(STEPS)
SCORED = slice(20, STEPS)
"""Steps that count: before them flat priors dominate every estimator."""
OUTLIERS = partial(Outliers, scale=10.0)


def paper_spiral(process_var: float, obs_var: float = 1.0) -> LinearSDE:
    """The circular spiral, eigenvalues -0.1 +- i, flat prior: the paper's system whitened."""
    return replace(spiral(process_var=process_var, obs_var=obs_var), prior="diffuse")


def ring_start(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """n starts (n, 2) at radius 20 +- 3 and random angles."""
    radius = 20.0 + 3.0 * rng.standard_normal(n)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def observation_anchor(model: LinearSDE, t: object, z: object, **options: object) -> Estimate:
    """The paper's robust AFA: power weight, residuals against z_i, gamma^2 = eta^2."""
    return adaptive_filter(
        model, t, z, weight=Power(4.0), anchor="observation", anchor_cov=model.R, **options
    )


def from_a_guess(model: LinearSDE, t: object, z: object, **options: object) -> Estimate:
    """Kalman filter started from N(0, 1e6 I) instead of a flat prior.

    Robust recursions need it: from a flat start the first observation cannot be doubted, and an
    outlier there locks them.
    """
    guess = Prior(np.zeros(model.dim), 1e6 * np.eye(model.dim))
    return kalman_filter(replace(model, prior=guess), t, z, **options)


def estimators() -> Mapping[str, Estimator]:
    """Everybody in the accuracy table and the regime map, by name."""
    return {
        "raw": raw_observation,
        "AFA": adaptive_filter,
        "AFA observation": observation_anchor,
        "AFA prediction": partial(
            adaptive_filter, weight=StudentT(4.0), anchor="prediction", iterations=5
        ),
        "AFA estimate": partial(
            adaptive_filter, weight=StudentT(4.0), anchor="estimate", iterations=5
        ),
        "AFA exact robust": partial(
            adaptive_filter,
            weight=StudentT(4.0),
            anchor="estimate",
            iterations=5,
            correlation="exact",
        ),
        "Kalman": kalman_filter,
        "RTS": rts_smoother,
        "filterpy": filterpy_filter,
        "WoLF-IMQ": partial(from_a_guess, weight=IMQ(2.0), metric="R"),
        "Huber": partial(from_a_guess, weight=Huber(1.5), anchor="estimate"),
        "variational": partial(from_a_guess, weight=StudentT(4.0), anchor="variational"),
        "IRKF": partial(from_a_guess, weight=StudentT(4.0), anchor="estimate"),
        "mixture guessed": partial(mixture_filter, outlier_rate=0.05, outlier_scale=25.0),
    }


def mixture_known(rate: float) -> Estimator:
    """The mixture filter that is told the contamination by which `OUTLIERS(rate=rate)` draws."""
    added = OUTLIERS(rate=rate).scale
    assert added is not None
    return partial(mixture_filter, outlier_rate=rate, outlier_scale=1.0 + added**2)
