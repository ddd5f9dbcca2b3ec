"""Measurements as the command's options name them, and the unit of time that all agree on."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.containers import shifted
from afafilter._base.stamps import SECONDS, Stamps
from afafilter._base.time_scales import warn_if_apart
from afafilter.io.dialect import Dialect
from afafilter.io.series import Panel, Series, read_panel, unit_of
from afafilter.io.sidecar import read_sidecar, sidecar_path
from afafilter.io.source import read_metadata


@dataclass(frozen=True)
class Reading:
    """Where measurements come from: the options --time ... --encoding, resolved."""

    data: Path
    time: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    by: str | None = None
    errors: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    time_unit: str | None = None
    sort: bool = False
    dialect: Dialect = Dialect()  # noqa: RUF009 - frozen

    def config(self) -> dict[str, Any]:
        """For the record beside a result."""
        given = {"time": self.time, "by": self.by, "errors": self.errors, "inputs": self.inputs}
        return {"data": self.data, **given}

    def words(self) -> str:
        """The options again, for a command that goes on with the same data."""
        d = self.dialect
        given = {
            "--time": self.time,
            "--values": self.values,
            "--by": self.by,
            "--errors": self.errors,
            "--input": self.inputs,
            "--time-unit": self.time_unit,
            "--sep": d.sep,
            "--decimal": d.decimal,
            "--time-format": d.time_format,
            "--header": d.header,
            "--encoding": None if d.encoding == "utf-8" else d.encoding,
            "--na": d.missing or None,
        }
        said = []
        for key, value in given.items():
            if value is not None:
                said += [key, ",".join(value) if isinstance(value, tuple) else str(value)]
        return shlex.join([*said, *(["--sort"] if self.sort else [])])


@dataclass(frozen=True)
class Task:
    """What a command is asked for: data (if any) and how to read them, where its result goes."""

    data: Path | None
    reading: Reading
    target: Path
    force: bool
    form: str | None
    options: dict[str, Any]


def taken(data: Path, options: dict[str, Any]) -> Reading:
    """The reading options, taken out of a command's options where it has them."""
    if "sep" not in options:
        return Reading(data)
    own = ("sep", "decimal", "header", "encoding", "time_format")
    said = {name: options.pop(name) for name in own}
    dialect = Dialect(**said, missing=options.pop("na") or ())
    names = ("time", "values", "by", "errors", "inputs", "time_unit", "sort")
    return Reading(data, dialect=dialect, **{name: options.pop(name) for name in names})


def read(reading: Reading, model: Any = None) -> Panel:
    """The measurements as paths, in the model's unit of time; one path where nothing tells them."""
    unit = reading.time_unit
    own = models_unit(model, unit)
    inputs = reading.inputs or named_inputs(model)
    columns = reading.data, reading.by, reading.time, reading.values
    how: dict[str, Any] = {name: getattr(reading, name) for name in ("errors", "sort", "dialect")}
    panel = read_panel(*columns, inputs=inputs, time_unit=unit or own or None, **how)
    said = refuse_other_unit(reading.data, panel.series[0].stamps, own, unit)
    if said and not (unit or own):
        panel = replace(panel, series=tuple(replace(s, time_unit=said) for s in panel.series))
    first = panel.series[0]
    _say_missing(reading, panel)
    if hasattr(model, "A"):
        warn_if_apart(model, first.t, unit_of(first.stamps), "--time-unit")
    if model is not None:
        _refuse_other_width(panel, model.obs_dim)
    return panel


def models_unit(model: Any, asked: str | None) -> str:
    """The unit that a model counts time in, which --time-unit may not contradict; "" for none."""
    own: str = getattr(model, "time_unit", "")
    if asked is not None and own and asked != own:
        raise ValueError(
            f"--time-unit must be {own}, the unit that the model counts time in, got {asked}"
        )
    return own


def refuse_other_unit(data: Path, stamps: Stamps | None, own: str, unit: str | None) -> str:
    """The unit that numbers in a file count time in, as its record or column says; "" for dates.

    Raises
    ------
    ValueError
        It is another one than the model's, `own`, or that of --time-unit.
    """
    if stamps is not None and stamps.dated:
        return ""
    said = _recorded_unit(data) or unit_of(stamps)
    if own and said and said != own:
        raise ValueError(f"{data} counts time in {said}, the model in {own}: convert one of them")
    if unit and said and said != unit:
        raise ValueError(f"{data} counts time in {said}: --time-unit must be {said}, got {unit}")
    return said


def _recorded_unit(data: Path) -> str:
    """The unit of time that the record of a file tells, beside it or in it, if there is one."""
    record: Any = read_sidecar(sidecar_path(data))
    try:
        if not record and data.suffix.lower() in (".parquet", ".pq"):
            record = read_metadata(data)
        config = record["config"]
        unit = config["time_unit"] if config["command"] in ("simulate", "estimate") else None
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return unit if unit in SECONDS else ""


def _say_missing(reading: Reading, panel: Panel) -> None:
    seen = np.any([np.isfinite(s.z).any(axis=0) for s in panel.series], axis=0)
    unseen = [name for name, ok in zip(panel.columns, seen) if not ok]
    if unseen:
        what = "nothing was observed: " if len(unseen) == len(seen) else ""
        warnings.warn(f"{reading.data}: {what}no value in {', '.join(unseen)}", stacklevel=2)


def named_inputs(model: Any) -> tuple[str, ...] | None:
    """Columns that a model names as its inputs, where it has no values of its own."""
    forcing = getattr(model, "forcing", None)
    return forcing.names if forcing is not None and not len(forcing.t) else None


def forced(model: Any, series: Series) -> Any:
    """The model under the inputs that the columns of a series hold."""
    if series.stamps is not None:
        model = shifted(model, series.stamps)
    if series.inputs is None:
        return model
    forcing = getattr(model, "forcing", None)
    if forcing is None:
        raise ValueError(
            "--input: the model has no inputs; fit them (afafilter fit --input) or give the model "
            'forcing = { names = ["..."], direct = [[...]] }'
        )
    if forcing.u.shape[1] != len(series.inputs):
        raise ValueError(
            f"--input must name the model's {forcing.u.shape[1]} inputs, got "
            f"{', '.join(series.inputs)}"
        )
    from afafilter.learning.inputs import regressors

    known = regressors(series.inputs, series.t)
    return replace(model, forcing=replace(forcing.at(known.t, known.u), names=known.names))


def _refuse_other_width(panel: Panel, p: int) -> None:
    """ValueError where there are not as many value columns as the model observes components."""
    n = len(panel.columns)
    if n != p:
        shown = ", ".join(panel.columns[:8]) + (", ..." if n > 8 else "")
        there = f"are {n} value columns" if n > 1 else "is one value column"
        raise ValueError(
            f"the model observes {p} component{'s' * (p > 1)}, but there {there} ({shown}): choose "
            "with --values, or give the model as many"
        )


def one_path(panel: Panel, path: str | None, what: str) -> Series:
    """The path of that label; without one the only path there is."""
    known = [str(label) for label in panel.labels]
    if path is None and len(panel.series) == 1:
        return panel.series[0]
    if path is not None and not known:
        raise ValueError("--path needs --by, the column that tells paths apart")
    if path not in known:
        shown = ", ".join(known[:12]) + (f", ... ({len(known)})" if known[12:] else "")
        got = "" if path is None else f", got {path!r}"
        raise ValueError(f"{what} one path: --path must be one of {shown}{got}")
    return panel.series[known.index(path)]


def together(panel: Panel) -> list[tuple[Series, list[int]]]:
    """Paths with the same times and no errors of their own as one series (n, T, p) each."""
    groups: dict[Any, list[int]] = {}
    for k, series in enumerate(panel.series):
        alone = series.obs_cov is not None or series.inputs is not None
        key: Any = k if alone else series.t.tobytes()
        groups.setdefault(key, []).append(k)
    out = []
    for members in groups.values():
        first = panel.series[members[0]]
        if panel.labels:
            z: Array = np.stack([panel.series[k].z for k in members])
            labels = tuple(panel.labels[k] for k in members)
            first = replace(first, z=z, paths=labels)
        out.append((first, members))
    return out


def shared(panel: Panel) -> tuple[Array, Array, Array | None]:
    """Times, observations and noise for `fit`: paths on one grid, each from its own first time."""
    if not panel.labels:
        (one,) = panel.series
        return one.t, one.z, one.obs_cov
    if any(s.obs_cov is not None for s in panel.series):
        raise ValueError("--errors cannot be combined with --by here: paths must share their noise")
    first = panel.series[0]
    alike = all(np.array_equal(s.t, first.t) for s in panel.series)
    given = {name: [(s.inputs or {})[name] for s in panel.series] for name in first.inputs or {}}
    if given and not (alike and all(np.array_equal(x, u[0]) for u in given.values() for x in u)):
        raise ValueError(
            "--input with --by must have the same times and values in all paths, which share one "
            "effect; where they differ fit one path at a time"
        )
    if alike:
        return first.t, np.stack([s.z for s in panel.series]), None
    return (*panel.aligned(), None)
