"""What `afafilter simulate` does: read a model, draw from it, write the paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._base.checks import scalar
from afafilter.cli.shared import finish, prepare
from afafilter.io.files import table_path
from afafilter.io.model_toml import read_model
from afafilter.io.series import read_times


def simulate_command(
    model: Path, target: Path, force: bool, *, count: int | None, dt: float, start: float,
    times: Path | None, time: str | None, time_unit: str, paths: int, seed: int | None,
    x0: str | None, missing: float, outlier_rate: float | None, outlier_scale: float | None,
    outlier_law: str, outlier_df: float | None,
) -> Iterator[str]:  # fmt: skip
    """Behind `afafilter simulate`."""
    import pandas as pd

    from afafilter.simulation.simulate import Outliers, simulate

    prepare(table_path(target), force, inputs=(model, times))
    system = read_model(model)
    if (count is None) == (times is None):
        raise ValueError("give either --n (and --dt) or --times")
    if times is not None:
        t = read_times(times, time, time_unit=time_unit)
    else:
        assert count is not None
        first, step = scalar(start, "--start"), scalar(dt, "--dt", low=0.0)
        t = np.asarray(first + step * np.arange(count), dtype=np.float64)
    outliers = None
    if outlier_rate is not None:
        outliers = Outliers(outlier_rate, outlier_scale, outlier_law, outlier_df)  # type: ignore[arg-type]
    elif outlier_scale is not None or outlier_df is not None:
        raise ValueError("outliers need --outlier-rate")
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    drawn = simulate(
        system, t, paths, rng=np.random.default_rng(seed), x0=_start(x0), outliers=outliers,
        missing=missing,
    )  # fmt: skip
    columns: dict[str, Any] = {}
    if paths > 1:
        columns["path"] = np.repeat(np.arange(paths), len(t))
    columns["t"] = np.tile(t, paths)
    columns |= {f"x{i}": drawn.x[..., i].ravel() for i in range(system.dim)}
    columns |= {f"z{i}": drawn.z[..., i].ravel() for i in range(system.obs_dim)}
    if drawn.outliers is not None:
        columns["outlier"] = drawn.outliers.ravel().astype(int)
    config = {
        "command": "simulate", "model": system, "n": len(t), "paths": paths, "seed": seed,
        "x0": x0, "missing": missing, "outliers": outliers,
        "times": {"start": start, "dt": dt} if times is None else times,
    }  # fmt: skip
    yield finish(pd.DataFrame(columns), target, force, config) + f", seed {seed}"


def _start(text: str | None) -> Any:
    if text is None or text == "stationary":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--x0 must be numbers or 'stationary', got {text!r}") from None
