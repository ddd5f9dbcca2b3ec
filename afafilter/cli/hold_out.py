"""What `afafilter compare DATA --hold-out` does: hide, estimate, score, write the table."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from afafilter._base.progress import waiting
from afafilter.catalog import estimator_from_spec
from afafilter.cli.reading import Task, forced, one_path, read, with_components
from afafilter.cli.shared import finish, importing, prepare
from afafilter.io.model_toml import read_model
from afafilter.io.output import table_path

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
    first = next(iter(models.values()))
    panel = with_components(read(reading, first), first.obs_dim, reading)
    series = one_path(panel, options["path"], "--hold-out compares on")
    named = {name: forced(system, series) for name, system in models.items()}
    with waiting("comparing"):
        found = hold_out(
            estimators,
            named,
            series.t,
            series.z,
            kinds=options["kinds"] or KINDS,
            pieces=options["pieces"],
            horizon=options["horizon"],
            obs_cov=series.obs_cov,
            rng=options["seed"],
        )
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
