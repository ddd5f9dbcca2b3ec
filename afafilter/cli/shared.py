"""What several commands do: refuse early, read measurements, write a table and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.io.files import refuse_existing, write_table
from afafilter.io.series import PARQUET_SUFFIXES, Series, read_series
from afafilter.io.sidecar import sidecar_path, write_sidecar

if TYPE_CHECKING:
    import pandas as pd


def prepare(
    target: Path, force: bool, *more: Path | None, inputs: Sequence[Path | None] = ()
) -> None:
    """Refuse, before anything is computed, what could not or must not be written afterwards."""
    outputs = [target, sidecar_path(target), *(path for path in more if path is not None)]
    read = {path.resolve() for path in inputs if path is not None}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} is read as input and would be overwritten: choose another -o")
    refuse_existing(outputs, force=force)
    for path in outputs:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no such directory: {path.parent}")
    if target.suffix.lower() in PARQUET_SUFFIXES:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError("Parquet needs pyarrow: pip install 'afafilter[parquet]'") from None


def finish(frame: pd.DataFrame, target: Path, force: bool, config: Mapping[str, Any]) -> str:
    write_table(frame, target, force)
    sidecar = write_sidecar(sidecar_path(target), config, force=force)
    return f"wrote {target} ({len(frame)} rows) and {sidecar}"


def measurements(
    data: Path, p: int, time: str | None, values: Sequence[str] | None, by: str | None,
    errors: Sequence[str] | None, time_unit: str,
) -> tuple[Series, Array | None]:  # fmt: skip
    """A series with p value columns, and the noise (T, p, p) where standard errors are given."""
    wanted = None if values is None else [*values, *(errors or ())]
    if errors is not None and values is None:
        raise ValueError("--errors needs --values, in the same order")
    if errors is not None and len(errors) != len(values or ()):
        raise ValueError(
            f"--errors must name one column per value, got {len(errors)} for {len(values or ())}"
        )
    series, noise = read_series(data, time, wanted, by=by, time_unit=time_unit), None
    if errors is not None:
        series, noise = _error_bars(series, errors)
    if len(series.columns) != p:
        raise ValueError(
            f"the model observes {p} component{'s' * (p > 1)}, but there are "
            f"{len(series.columns)} value columns ({', '.join(series.columns)}): "
            "choose with --values"
        )
    return series, noise


def _error_bars(series: Series, errors: Sequence[str]) -> tuple[Series, Array]:
    """Split off the standard errors; per-observation covariances (T, p, p)."""
    p = len(errors)
    if series.z.ndim > 2:
        raise ValueError("--errors cannot be combined with --by: paths must share their noise")
    z, sd = series.z[:, :p], series.z[:, p:]
    wrong = ~np.isnan(z) & ~(sd >= 0)
    if wrong.any():
        k, i = np.argwhere(wrong)[0]
        raise ValueError(
            f"standard errors must be >= 0 where there is a value, got {sd[k, i]:g} in "
            f"{errors[i]!r} at time {series.t[k]:g}"
        )
    variances = np.where(np.isnan(z), 1.0, sd) ** 2
    return replace(series, z=z, columns=series.columns[:p]), variances[..., None] * np.eye(p)
