"""Estimators by name, for the command line and configuration files."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from afafilter.io.model_toml import known_keys, near, place, required
from afafilter.results import Estimate
from afafilter.weights import Weight, weight_from_name

WEIGHT_PARAMETERS = ("nu", "kappa", "alpha", "c")


@dataclass(frozen=True)
class Entry:
    """An estimator with options of its own. `weight` is a name and its parameters."""

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)


_STUDENT: dict[str, Any] = {"weight": ("student_t", {"nu": 4.0})}
_TOLD = {"outlier_rate": 0.05, "outlier_scale": 100.0}
CATALOG: dict[str, Entry] = {
    "kalman": Entry("kalman_filter"),
    "rts": Entry("rts_smoother"),
    "wolf": Entry("kalman_filter", {"weight": ("imq", {"c": 2.0}), "anchor": "prediction"}),
    "irkf": Entry("kalman_filter", _STUDENT | {"anchor": "estimate"}),
    "irks": Entry("rts_smoother", _STUDENT | {"anchor": "estimate"}),
    "huber": Entry("kalman_filter", {"weight": ("huber", {"c": 2.0}), "anchor": "estimate"}),
    "variational": Entry("kalman_filter", _STUDENT | {"anchor": "variational"}),
    "imm": Entry("imm_filter", _TOLD),
    "particles": Entry("particle_filter", _TOLD),
    "mixture": Entry("mixture_filter", _TOLD),
    "afa": Entry("adaptive_filter"),
    "afa-smoother": Entry("adaptive_smoother"),
    "afa-exact": Entry("adaptive_filter", {"correlation": "exact"}),
    "afa-exact-smoother": Entry("adaptive_smoother", {"correlation": "exact"}),
    "filterpy": Entry("filterpy_filter"),
    "filterpy-rts": Entry("filterpy_smoother"),
    "raw": Entry("raw_observation"),
}
"""Name -> estimator. wolf: robust by the innovation (arXiv:2405.05646); irkf, irks: iterated
reweighting inside the Kalman filter and smoother; huber, variational: the filter's, by Huber's
weight and by variational Student-t noise; mixture, imm, particles: 5 % of observations with ten
times the noise, unless options say otherwise or (mixture) `estimate` learns it."""


def estimator_from_spec(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    allow_import: bool = False,
    what: str = "estimator",
) -> partial[Estimate]:
    """The estimator f(model, t, z) -> Estimate of that name with these options.

    Parameters
    ----------
    name : str
        One of `CATALOG`; one of `functions`, such as "kalman_filter"; or, with `allow_import`,
        the import path of an estimator of your own, "mypackage.module:my_filter".
    options : mapping, optional
        Keyword arguments of the function behind the name; they replace the entry's own.
        `weight` may be a weight, or a table such as {"name": "student_t", "nu": 4.0}.
    allow_import : bool
        Whether an import path may be followed, which runs that module's code.
    what : str
        How messages call the name.

    Returns
    -------
    partial
        A `functools.partial`, so that it can be sent to other processes.

    Raises
    ------
    ValueError, TypeError
        Unknown name (the message lists the known ones), option or weight; an import path that
        may not be followed, or that leads to no function.
    """
    function, own = _named(name, what, allow_import)
    merged = {**own, **(options or {})}
    with place(f"estimator {name!r}"):
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            known_keys(merged, options_of(function))
        required(merged, function, ("model", "t", "z"))
    weight = merged.get("weight")
    if isinstance(weight, Mapping):
        merged["weight"] = weight_from_table(weight)
    elif isinstance(weight, tuple):
        merged["weight"] = weight_from_name(weight[0], **weight[1])
    return partial(function, **merged)


def _named(
    name: Any, what: str, allow_import: bool
) -> tuple[Callable[..., Estimate], Mapping[str, Any]]:
    """The function behind a name, and the options that the name stands for."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a name, got {name!r}")
    if ":" in name:
        return _imported(name, what, allow_import), {}
    known = functions()
    if name in CATALOG:
        return known[CATALOG[name].function], CATALOG[name].options
    if name not in known:
        every = (*CATALOG, *known)
        raise ValueError(
            f"{what} must be one of {', '.join(CATALOG)}, the name of a function, or the import "
            f"path package:function of your own, got {name!r}{near(name, every)}"
        )
    return known[name], {}


def _imported(path: str, what: str, allow_import: bool) -> Callable[..., Estimate]:
    module, _, attribute = path.partition(":")
    if not allow_import:
        raise ValueError(
            f"{what} {path!r} is an import path, which runs code of yours: "
            "allow it (--allow-import, allow_import=True)"
        )
    try:
        function = importlib.import_module(module)
        for part in attribute.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{what} {path!r} cannot be imported: {error}; wanted is package.module:function, "
            "importable from here"
        ) from None
    if not callable(function):
        raise TypeError(f"{what} {path!r} must be a function f(model, t, z), got {function!r}")
    return function


def functions() -> dict[str, Callable[..., Estimate]]:
    """The estimators that can be named: public name -> function."""
    from afafilter.adaptive.estimators import adaptive_filter, adaptive_smoother
    from afafilter.baselines import filterpy_filter, filterpy_smoother, raw_observation
    from afafilter.kalman.estimators import kalman_filter, rts_smoother
    from afafilter.kalman.mixture import mixture_filter
    from afafilter.kalman.switching import imm_filter, particle_filter

    every: tuple[Callable[..., Estimate], ...] = (
        *(adaptive_filter, adaptive_smoother, kalman_filter, rts_smoother, mixture_filter),
        *(imm_filter, particle_filter, filterpy_filter, filterpy_smoother, raw_observation),
    )
    return {function.__name__: function for function in every}


def weight_from_table(table: Any) -> Weight:
    """The weight that a table such as {"name": "student_t", "nu": 4.0} describes."""
    if not isinstance(table, Mapping):
        raise TypeError(f'weight must be a table {{ name = "student_t", nu = 4.0 }}, got {table!r}')
    parameters = dict(table)
    try:
        known_keys(parameters, ("name", *WEIGHT_PARAMETERS))
    except ValueError as error:
        raise ValueError(f"weight: {error}") from None
    if "name" not in parameters:
        raise ValueError("weight: key 'name' is missing")
    return weight_from_name(parameters.pop("name"), **parameters)


def options_of(function: Callable[..., Any]) -> list[str]:
    """Names of an estimator's options: its parameters after model, t and z."""
    names = inspect.signature(function).parameters
    return [key for key in names if key not in ("model", "t", "z")]
