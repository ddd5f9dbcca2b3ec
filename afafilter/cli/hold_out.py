"""What `afafilter compare DATA --hold-out` does: hide, estimate, score, write the table."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from afafilter._base.progress import waiting
from afafilter.catalog import estimator_from_spec
from afafilter.cli.reading import Reading, Task, forced, named_inputs, one_path, read
from afafilter.cli.shared import finish, importing, prepare
from afafilter.io.model_toml import read_model
from afafilter.io.output import table_path
from afafilter.models.sde import LinearSDE

USUAL = ("kalman", "rts", "irks", "afa", "afa-smoother")


def hold_out_command(task: Task) -> Generator[str, None, bool]:
    """Behind `afafilter compare --hold-out`. Returns whether an estimator failed."""
    from afafilter.studies.hold_out import KINDS, hold_out

    reading, options, allow_import = task.reading, task.options, task.options["allow_import"]
    paths: tuple[Path, ...] = options["models"]
    prepare(table_path(task.target), task.force, inputs=(reading.data, *paths))
    if not paths:
        raise ValueError("--hold-out needs at least one --model (afafilter fit writes one)")
    models = {path.stem: read_model(path) for path in paths}
    if len(models) < len(paths):
        raise ValueError("models are told apart by their names: give files of different names")
    names = options["estimators"] or USUAL
    with importing(allow_import):
        estimators = {name: estimator_from_spec(name, allow_import=allow_import) for name in names}
    first = _agreed(models, reading)
    series = one_path(read(reading, first), options["path"], "--hold-out compares on")
    named = {}
    for name, system in models.items():
        others = series.inputs is not None and not (reading.inputs or named_inputs(system))
        named[name] = system if others else forced(system, series)
    how: dict[str, Any] = {name: options[name] for name in ("pieces", "horizon")}
    how |= {"kinds": options["kinds"] or KINDS, "obs_cov": series.obs_cov, "rng": options["seed"]}
    with waiting("comparing"):
        found = hold_out(estimators, named, series.t, series.z, **how)
    for (model, name), error in found.errors.items():
        yield f"FAILED: {name} with {model}: {error}"
    if not len(found.frame):
        raise ValueError("every estimator failed: " + next(iter(found.errors.values())))
    yield found.frame.to_string(index=False, float_format=lambda x: f"{x:.4g}")
    config = {
        "command": "compare --hold-out",
        **reading.config(),
        "values": series.columns,
        "models": models,
        "estimators": names,
        "time_unit": series.time_unit or None,
        **{key: options[key] for key in ("path", "kinds", "pieces", "horizon", "seed")},
    }
    table = {str(name): found.frame[name].to_numpy() for name in found.frame.columns}
    yield finish(table, task, config)
    return bool(found.errors)


def _agreed(models: Mapping[str, Any], reading: Reading) -> Any:
    """The model that says most of how data are read, which the others must not contradict."""
    units = {getattr(system, "time_unit", "") for system in models.values()} - {""}
    if len(units) > 1:
        raise ValueError(
            f"models must count time in one unit, got {', '.join(sorted(units))}: convert one"
        )
    inputs = {named_inputs(system) for system in models.values()} - {None}
    if len(inputs) > 1 and not reading.inputs:
        given = "; ".join(sorted(", ".join(names or ()) for names in inputs))
        raise ValueError(f"models must name the same inputs, got {given}: --input names others")
    systems = list(models.values())
    leading = next((s for s in systems if named_inputs(s)), systems[0])
    counted = units and isinstance(leading, LinearSDE)
    return replace(leading, time_unit=next(iter(units))) if counted else leading
