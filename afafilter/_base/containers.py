"""Users' tables as arrays: pandas, polars and xarray objects, dates, large whole numbers.

`takes_tables` makes an estimator f(model, t, z, ...) accept them. It looks at the arguments once;
arrays of floats pass untouched.

- A pandas Series or frame, a polars frame or an xarray object alone, in place of t: its index (or
  time column, or time coordinate) gives the times, its columns the values.
- Anything else alone is z where the model has steps (a `DiscreteModel`), and t is None.
- z a pandas object beside t: rows go together by their labels, never by their place alone.
- Dates become elapsed time in the unit of the model (`time_unit`, days unless it says so), whole
  numbers beyond 2^53 the difference to the first. The result keeps the stamps: `Estimate.index`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import EXACT, FLOAT64, choice, real_array
from afafilter._base.dates import parse_dates
from afafilter._base.labels import aligned, inputs_beside, refuse_other_times
from afafilter._base.masks import unmasked
from afafilter._base.stamps import SECONDS, Stamps
from afafilter._base.tables import (
    TABLES,
    checked_dates,
    if_counted,
    index_stamps,
    labels_of,
    library,
    read_table,
    stamps_of,
    values_of,
)
from afafilter._base.time_scales import warn_if_apart

F = TypeVar("F", bound=Callable[..., Any])

ASKED = ("query_times", "horizon_times", "target")


class Taken(NamedTuple):
    """What an estimator gets, and how its times came about."""

    t: Any
    z: Any
    stamps: Stamps | None


def takes_tables(function: F) -> F:
    """The same function f(model, t, z, ...), for tables and dates too; see the top of this module.

    One keyword is added, `time_unit`: the unit that dates are counted in, where neither the model
    (its own `time_unit`) nor the default, days, says it.
    """

    rest = [name for name, p in inspect.signature(function).parameters.items() if p.kind < 2][3:]

    @functools.wraps(function)
    def outer(
        model: Any,
        t: Any = None,
        z: Any = None,
        *more: Any,
        time_unit: str | None = None,
        **options: Any,
    ) -> Any:
        if z is None and library(t) not in TABLES and has_steps(model):
            t, z = None, t
        if options.get("inputs") is not None:
            options["inputs"] = inputs_beside(options["inputs"], t, z)
        if options.get("obs_cov") is not None:
            refuse_other_times(options["obs_cov"], t, z, "obs_cov")
        said = str(time_unit or getattr(model, "time_unit", ""))
        if time_unit is None and _is_plain(t) and (z is None or type(z) is np.ndarray):
            found = function(model, t, z, *more, **options)
            return _united(found, said) if said else found
        refuse_other_times(None if t is None else z, t, z, "z")
        unit = chosen_unit(model, time_unit)
        taken = take(t, z, unit, obs_dim=getattr(model, "obs_dim", None))
        if taken.stamps is None:
            return _united(function(model, taken.t, taken.z, *more, **options), said)
        if taken.stamps.dated:
            warn_if_apart(model, taken.stamps.numbers, unit)
        options |= dict(zip(rest, more))
        for name in ASKED:
            if options.get(name) is not None:
                asked = moments(options[name], taken.stamps, name)
                lone = name == "target" and np.ndim(options[name]) == 0
                options[name] = np.atleast_1d(asked)[0] if lone else asked
        found = function(shifted(model, taken.stamps), taken.t, taken.z, **options)
        return _stamped(found, taken.stamps, said)

    return cast(F, outer)


def has_steps(model: Any) -> bool:
    """Whether a model, or that of a fit or of a switch, moves by steps and needs no t."""
    model = getattr(model, "model", model)
    return hasattr(getattr(model, "models", (model,))[0], "time_varying")


def chosen_unit(model: Any, time_unit: str | None) -> str:
    """The unit that dates are counted in: the model's, the one asked for, or days."""
    own = getattr(model, "time_unit", "")
    if time_unit is None:
        return own or "D"
    choice(time_unit, "time_unit", tuple(SECONDS))
    if own and own != time_unit:
        raise ValueError(
            f"time_unit must be {own!r}, the unit that the model counts time in, got {time_unit!r}"
        )
    return time_unit


def take(t: Any, z: Any, unit: str, *, obs_dim: int | None = None) -> Taken:
    """Times and observations as arrays, and the stamps that the times stand for (or None)."""
    if z is not None or library(t) != "xarray":  # a Dataset is a table with its times
        _refuse_unread(t, "t")
        _refuse_unread(z, "z")
    if z is None:
        if library(t) not in TABLES:
            return Taken(t, None, None)
        values, read = read_table(t, unit, obs_dim)
        return Taken(read.numbers, values, if_counted(read))
    labels = labels_of(t) if library(t) == "pandas" else None
    stamps = stamps_of(t, unit)
    if library(z) == "pandas" and (labels is not None or np.ndim(t) == 1):
        moments = np.asarray(t) if stamps is None else stamps.values
        z = aligned(z, t, moments if labels is None else labels)
    if library(z) in TABLES:
        z = values_of(z)
    if stamps is None:
        return Taken(t if labels is None else index_stamps(labels, unit, "t").values, z, None)
    return Taken(stamps.numbers, z, stamps)


def _refuse_unread(value: Any, name: str) -> None:
    """TypeError for an object of a library of tables that holds no one array, or none yet."""
    held = hasattr(value, "to_numpy") or hasattr(value, "column_names")
    if library(value) in TABLES and not held:
        remedies = {"LazyFrame": ": collect() it", "Dataset": ": take one of its variables"}
        kind = type(value).__name__
        raise TypeError(
            f"{name} must be an array or a table of numbers, got a {library(value)} {kind}"
            + remedies.get(kind, "")
        )


def _is_plain(t: Any) -> bool:
    """Whether t is an array of floats that nothing suspicious begins."""
    if type(t) is not np.ndarray or t.dtype != FLOAT64:
        return False
    return not (t.ndim == 1 and t.size > 1 and 10101 <= t.item(0) <= 29991231)


def moments(value: Any, stamps: Stamps, name: str) -> NDArray[np.float64]:
    """Times asked for, dates or numbers, on the scale of the data's.

    Dates without a time zone are those of the data's clocks.
    """
    if np.ndim(value) == 0:
        value = np.atleast_1d(value)  # a Timestamp of pandas is no table
    if not stamps.dated:
        found = stamps_of(value, stamps.unit or "D", name)
        if found is not None and found.dated:
            raise TypeError(f"{name} must be numbers like the times of the data, got dates")
        raw = np.atleast_1d(unmasked(value, name, allow_nan=False))
        if stamps.shifted and raw.dtype.kind in "iu":
            return stamps.count(raw.astype(np.int64))
        if stamps.shifted and (np.abs(real_array(raw, name)) > EXACT).any():
            raise ValueError(
                f"{name} must be whole numbers like the times of the data, or count from the first"
            )
        return real_array(raw, name)
    if library(value) in TABLES:
        asked = stamps_of(value, stamps.unit, name)
    else:
        raw = np.atleast_1d(unmasked(value, name, allow_nan=False))
        text = raw.dtype.kind in "UT" or (raw.dtype.kind == "O" and isinstance(raw[0], str))
        asked = _spelled(raw, name) if text else stamps_of(raw, stamps.unit, name)
    if asked is None:
        return real_array(value, name)
    values = checked_dates(asked.values, name)
    if asked.zone is None:
        values = stamps.from_wall(values)
    elif stamps.zone is None:
        raise TypeError(f"{name} must be dates without a time zone, like those of the data")
    return stamps.count(values)


def _spelled(raw: NDArray[Any], name: str) -> Stamps:
    values, east = parse_dates([str(x) for x in raw])
    wrong = np.flatnonzero(np.isnat(values))
    if wrong.size:
        raise ValueError(f"{name} must be numbers or ISO dates, got {str(raw[wrong[0]])!r}")
    return Stamps(values, zone=east)


def shifted(model: Any, stamps: Stamps) -> Any:
    """The model, whose prior and inputs count time like the data: from their first stamp on."""
    t0 = getattr(getattr(model, "prior", None), "t0", None)
    if t0 is not None and stamps.shifted and not stamps.dated:
        begin = float(int(t0) - int(stamps.values[0]))
        model = replace(model, prior=replace(model.prior, t0=begin))
    forcing = getattr(getattr(model, "model", model), "forcing", None)
    if forcing is None or forcing.start is None:
        return model
    start: Any = np.array(forcing.start)
    if not stamps.shifted or (start.dtype.kind == "M") != stamps.dated:
        raise ValueError(
            f"the times of the model's inputs count from {start}, those of the data from "
            f"{stamps.values[0]}: give the inputs again, model.forcing.at(t, u)"
        )
    later = float(stamps.count(start))
    if later and hasattr(model, "model"):
        raise ValueError("the data begin at another time than those of the fit: give its .model")
    if not later:
        return model
    moved = replace(forcing, t=forcing.t + later, start=stamps.values[0])
    return replace(model, forcing=moved)


def _stamped(found: Any, stamps: Stamps, said: str) -> Any:
    """A result with the stamps (an `Estimate`) or the unit (a `FitResult`) of its data."""
    names = getattr(type(found), "__dataclass_fields__", {})
    if "index" in names:
        return replace(found, index=stamps)
    found = _united(found, stamps.unit or said)
    if "start" in names and stamps.shifted:
        found = replace(found, start=stamps.values[0])
    return found


def _united(found: Any, unit: str) -> Any:
    """A result that remembers the unit of time, where it has room for it."""
    names = getattr(type(found), "__dataclass_fields__", {})
    if unit and "time_unit" in names:
        return replace(found, time_unit=unit)
    if unit and "model" in names and getattr(found.model, "time_unit", unit) != unit:
        return replace(found, model=replace(found.model, time_unit=unit))
    return found
