"""What `afafilter simulate` does: read a model, draw from it, write the paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import scalar
from afafilter.cli.reading import Task, models_unit, refuse_other_unit
from afafilter.cli.shared import finish, prepare
from afafilter.io.model_toml import read_model
from afafilter.io.output import table_path
from afafilter.io.series import read_stamps

if TYPE_CHECKING:
    from afafilter.simulation.contamination import Outliers


def simulate_command(task: Task) -> Iterator[str]:
    """Behind `afafilter simulate`."""
    from afafilter.simulation.simulate import simulate

    model, options = task.reading.data, task.options
    times = options["times"]
    prepare(table_path(task.target), task.force, inputs=(model, times))
    system = read_model(model)
    own = models_unit(system, options["time_unit"])
    unit = options["time_unit"] or own or None
    if (options["count"] is None) == (times is None):
        raise ValueError("give either --n (and --dt) or --times")
    if times is not None:
        stamps = read_stamps(times, options["time"], time_unit=unit)
        unit = refuse_other_unit(times, stamps, own, options["time_unit"]) or stamps.unit or None
        t = stamps.numbers
    else:
        first, step = scalar(options["start"], "--start"), scalar(options["dt"], "--dt", low=0.0)
        t = np.asarray(first + step * np.arange(options["count"]), dtype=np.float64)
    outliers = _outliers(options)
    paths, seed, x0, missing = (options[name] for name in ("paths", "seed", "x0", "missing"))
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    drawn = simulate(
        system, t, paths, rng=seed, x0=start_of(x0), outliers=outliers, missing=missing
    )
    columns: dict[str, Any] = {}
    if paths > 1:
        columns["path"] = np.repeat(np.arange(paths), len(t))
    columns["t"] = np.tile(t, paths)
    columns |= {f"x{i}": drawn.x[..., i].ravel() for i in range(system.dim)}
    columns |= {f"z{i}": drawn.z[..., i].ravel() for i in range(system.obs_dim)}
    if drawn.outliers is not None:
        columns["outlier"] = drawn.outliers.ravel().astype(int)
    config = {
        "command": "simulate",
        "model": system,
        "n": len(t),
        "paths": paths,
        "seed": seed,
        "x0": x0,
        "missing": missing,
        "outliers": outliers,
        "times": {"start": options["start"], "dt": options["dt"]} if times is None else times,
        "time_unit": unit,
    }
    yield finish(columns, task, config) + f", seed {seed}"


def _outliers(options: Mapping[str, Any]) -> Outliers | None:
    """The contamination that --outlier-rate and its companions describe."""
    from afafilter.simulation.contamination import Outliers

    scale, df = options["outlier_scale"], options["outlier_df"]
    if options["outlier_rate"] is not None:
        return Outliers(options["outlier_rate"], scale, options["outlier_law"], df)
    if scale is not None or df is not None or options["outlier_law"] != "gaussian":
        raise ValueError("outliers need --outlier-rate")
    return None


def start_of(text: str | None) -> Any:
    """What --x0 names: numbers, "stationary", or nothing."""
    if text is None or text == "stationary":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--x0 must be numbers or 'stationary', got {text!r}") from None
