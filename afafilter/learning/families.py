"""Structured families: models with few named parameters, to be fitted.

::

    from afafilter import families as f
    fit(f.brownian() + f.noise(), t, z)                              # local level
    fit(f.cycle() + f.constant() + f.noise(), t, z)                  # damped cycle about a mean
    fit(f.matern(1.5).fix(length=3.0) + f.noise(), t, z)
    fit(f.constant_velocity(2) + f.noise(2, diagonal=True), t, z)    # a track in the plane

A family is a sum of components: independent states side by side, observed through their sum.
`noise()` is the measurement noise (without it R = 0) and `constant()` a free level. Parameters bear
the names of `afafilter.models.presets`; when a family has several components with states, the names
are preceded by that of the component, as in "cycle.decay", a second cycle being "cycle2".

With `dim` > 1 a component is there once for each axis of space, that is each component of the
observations, with shared parameters; `diagonal=True` gives each axis a variance of its own, as
"process_var[0]" and "process_var[1]".

Undamped components start diffuse, damped ones stationary. The formulas are those of
`afafilter.models.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from afafilter._base.checks import LARGEST_DIM, positive_int, scalar
from afafilter.learning.constraints import LogNormal, Normal
from afafilter.learning.family import Component, Family, Param
from afafilter.learning.start_values import Scales
from afafilter.models import blocks

__all__ = [
    "Family",
    "LogNormal",
    "Normal",
    "brownian",
    "constant",
    "constant_velocity",
    "cycle",
    "isotropic",
    "local_linear_trend",
    "matern",
    "noise",
    "ornstein_uhlenbeck",
    "oscillator",
    "seasonal",
    "spiral",
]


def noise(dim: int = 1, *, diagonal: bool = False) -> Family:
    """White measurement noise: R = obs_var I, or diagonal with obs_var[0], obs_var[1], ..."""
    p = positive_int(dim, "dim", high=LARGEST_DIM)
    param = Param("obs_var", "nonnegative", "noise_var", amplitude=True)
    params = _each(param, p) if diagonal and p > 1 else (param,)
    return _family("noise", params, partial(blocks.noise, dim=p), 0, affine=True, observes=p)


def constant(dim: int = 1) -> Family:
    """A free level: the observations' offset."""
    p = positive_int(dim, "dim", high=LARGEST_DIM)
    names = ["offset"] if p == 1 else [f"offset[{c}]" for c in range(p)]
    params = tuple(Param(name, "real", "mean", axis=c) for c, name in enumerate(names))
    return _family("constant", params, blocks.constant, 0, affine=True, observes=p)


def brownian(dim: int = 1, *, diagonal: bool = False) -> Family:
    """Brownian motion, diffuse start: dx = sqrt(process_var) dw. With `noise()`: local level."""
    params = (Param("process_var", "nonnegative", "drift_var", amplitude=True),)
    return _along_axes("brownian", params, blocks.brownian, 1, dim, diagonal, affine=True)


def ornstein_uhlenbeck(dim: int = 1, *, diagonal: bool = False) -> Family:
    """dx = -rate x dt + sqrt(process_var) dw, stationary."""
    params = (
        Param("rate", "positive", "rate"),
        Param("process_var", "nonnegative", "relaxing_force", amplitude=True),
    )
    return _along_axes("ou", params, blocks.ornstein_uhlenbeck, 1, dim, diagonal)


def isotropic(dim: int = 2) -> Family:
    """A = -decay I + rotations by `frequency`, Q = process_var I, all observed (the paper's case).

    Stationary. `dim` = 2 n or 2 n + 1 components; all pairs share the one frequency. dim = 2 with
    `noise(2)` is the spiral.
    """
    d = positive_int(dim, "dim", high=LARGEST_DIM)
    params = (
        Param("decay", "positive", "decay"),
        Param("frequency", "real", "frequency"),
        Param("process_var", "nonnegative", "turning_force"),
    )
    return _family("isotropic", params, partial(blocks.isotropic, dim=d), d, observes=d)


def spiral() -> Family:
    """`isotropic(2) + noise(2)`: decay, frequency, process_var, obs_var."""
    return isotropic(2) + noise(2)


def cycle(damped: bool = True, dim: int = 1, *, diagonal: bool = False) -> Family:
    """Stochastic cycle: a rotating pair with isotropic noise, its first component observed.

    damped: stationary with parameters decay, frequency, process_var. Otherwise without decay and
    with a diffuse start. Harvey, Forecasting, Structural Time Series Models and the Kalman Filter
    (1989), sec. 2.3.
    """
    params = (
        Param("decay", "positive", "decay"),
        Param("frequency", "positive", "frequency"),
        Param("process_var", "nonnegative", "turning_force", amplitude=True),
    )
    if damped:
        return _along_axes("cycle", params, _damped_cycle, 2, dim, diagonal)
    return _along_axes("cycle", params[1:], _lasting_cycle, 2, dim, diagonal, affine=True)


def oscillator(dim: int = 1, *, diagonal: bool = False) -> Family:
    """Damped oscillator under a white force, position observed, stationary.

    x'' + 2 decay x' + (decay^2 + frequency^2) x = sqrt(process_var) white noise.
    """
    params = (
        Param("decay", "positive", "decay"),
        Param("frequency", "positive", "frequency"),
        Param("process_var", "nonnegative", "spring_force", amplitude=True),
    )
    return _along_axes("oscillator", params, blocks.damped_oscillator, 2, dim, diagonal)


def matern(nu: float = 1.5, dim: int = 1, *, diagonal: bool = False) -> Family:
    """Gaussian process with Matern covariance: length, variance; nu = 0.5, 1.5 or 2.5."""
    if nu not in blocks.NU:
        raise ValueError(f"nu must be 0.5, 1.5 or 2.5, got {nu!r}")
    params = (
        Param("length", "positive", "length"),
        Param("variance", "positive", "signal_var", amplitude=True),
    )
    build = partial(blocks.matern, nu=float(nu))
    return _along_axes("matern", params, build, int(nu + 0.5), dim, diagonal)


def constant_velocity(dim: int = 1, *, diagonal: bool = False) -> Family:
    """Position with white acceleration, diffuse start; process_var in position^2/time^3."""
    params = (Param("process_var", "nonnegative", "slope_var", amplitude=True),)
    build = partial(blocks.trend, 0.0)
    return _along_axes("velocity", params, build, 2, dim, diagonal, affine=True)


def local_linear_trend(dim: int = 1, *, diagonal: bool = False) -> Family:
    """Level and slope, both random walks, diffuse start: level_var, slope_var."""
    params = (
        Param("level_var", "nonnegative", "level_var", amplitude=True),
        Param("slope_var", "nonnegative", "slope_var", amplitude=True),
    )
    return _along_axes("trend", params, blocks.trend, 2, dim, diagonal, affine=True)


def seasonal(period: float, harmonics: int = 1, dim: int = 1, *, diagonal: bool = False) -> Family:
    """Slowly changing periodic component: harmonics of 2 pi / period, diffuse start, process_var.

    `.fix(process_var=0.0)` makes the pattern constant.
    """
    base = 2 * np.pi / scalar(period, "period", low=0.0, strict=True)
    n = positive_int(harmonics, "harmonics", high=LARGEST_DIM)
    guess = partial(_season_var, period=float(period))
    params = (Param("process_var", "nonnegative", guess, amplitude=True),)
    build = partial(_season, tuple(base * k for k in range(1, n + 1)))
    return _along_axes("seasonal", params, build, 2 * n, dim, diagonal, affine=True)


# ------------------------------------------------------------------------------ components and axes
# Everything that a component holds is a function of a module, or a partial of one: so families and
# what is fitted to them can be pickled and sent to other processes.


def _family(
    label: str,
    params: tuple[Param, ...],
    build: Callable[..., blocks.Block],
    dim: int,
    *,
    affine: bool = False,
    observes: int = 1,
) -> Family:
    return Family((Component(label, params, build, observes, dim, affine),))


def _along_axes(
    label: str,
    params: tuple[Param, ...],
    build: Callable[..., blocks.Block],
    states: int,
    dim: int,
    diagonal: bool,
    *,
    affine: bool = False,
) -> Family:
    """The component once for each of `dim` axes."""
    n = positive_int(dim, "dim", high=LARGEST_DIM)
    if n == 1:
        return _family(label, params, build, states, affine=affine)
    own = tuple(diagonal and param.amplitude for param in params)
    build = partial(_axes, build, own, n)
    params = tuple(
        copy
        for param, several in zip(params, own, strict=True)
        for copy in (_each(param, n) if several else (param,))
    )
    return _family(label, params, build, n * states, affine=affine, observes=n)


def _each(param: Param, n: int) -> tuple[Param, ...]:
    return tuple(
        Param(f"{param.name}[{i}]", param.domain, param.guess, param.amplitude, i) for i in range(n)
    )


def _axes(
    build: Callable[..., blocks.Block], own: tuple[bool, ...], n: int, *values: Any
) -> blocks.Block:
    """`values` hold n numbers for each parameter of which every axis has its own, else one."""
    numbers = iter(values)
    by_parameter = [
        [next(numbers) for _ in range(n)] if several else [next(numbers)] * n for several in own
    ]
    return blocks.axes([build(*along) for along in zip(*by_parameter, strict=True)])


def _damped_cycle(mu: Any, w: Any, q: Any) -> blocks.Block:
    return blocks.pairs(mu, [w], q)


def _lasting_cycle(w: Any, q: Any) -> blocks.Block:
    return blocks.pairs(0.0, [w], q, damped=False)


def _season(frequencies: tuple[float, ...], q: Any) -> blocks.Block:
    return blocks.pairs(0.0, frequencies, q, damped=False)


def _season_var(s: Scales, _: int, *, period: float) -> float:
    return 0.01 * s.jump / period
