"""Measurements, tables and configurations: CSV, Parquet and TOML in and out.

Nothing is ever half written. Models and studies are described in TOML: see `read_model` and
`Study.from_toml`.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._model_toml import model_table, read_model, write_model
from afafilter._series import CSV_SUFFIXES, PARQUET_SUFFIXES, Series, read_series
from afafilter._version import __version__

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Series",
    "atomic_path",
    "read_model",
    "read_series",
    "write_model",
    "write_sidecar",
    "write_table",
]


@contextmanager
def atomic_path(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    Readers see the old file or the new one, never a part; a failure inside leaves no trace.

    Raises
    ------
    FileExistsError
        If the file exists and `force` is False.
    """
    path = Path(path)
    refuse_existing([path], force=force)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Raise FileExistsError for the first of `paths` that exists, unless `force`."""
    for path in paths:
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists already; force overwrites it")


def write_table(frame: pd.DataFrame, path: str | Path, force: bool = False) -> Path:
    """Write a frame as CSV or Parquet, by the suffix, all or nothing. Returns the path.

    Raises
    ------
    FileExistsError
        If the file exists and `force` is False.
    ValueError
        Unknown suffix, or Parquet without pyarrow.
    """
    path = table_path(path)
    with atomic_path(path, force=force) as temporary:
        if path.suffix.lower() in PARQUET_SUFFIXES:
            try:
                frame.to_parquet(temporary, index=False)
            except ImportError:
                raise ValueError(
                    "Parquet needs pyarrow: pip install 'afafilter[parquet]'"
                ) from None
        else:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            frame.to_csv(temporary, index=False, sep=separator)
    return path


def table_path(path: str | Path) -> Path:
    """The path, if its suffix says how to write a table."""
    path = Path(path)
    known = CSV_SUFFIXES + PARQUET_SUFFIXES
    if path.suffix.lower() not in known:
        raise ValueError(f"{path}: the file name must end in one of {', '.join(known)}")
    return path


def sidecar_path(path: str | Path) -> Path:
    """Where the configuration of a result is kept: out.csv -> out.config.json."""
    return Path(path).with_suffix(".config.json")


def write_sidecar(path: str | Path, config: Mapping[str, Any], *, force: bool = True) -> Path:
    """Write a configuration with the versions that ran it as JSON. Returns the path.

    Arrays become lists, models the table that `read_model` understands, numbers that are not
    finite the words "nan", "inf", "-inf".
    """
    path = Path(path)
    content = {"config": plain(config), "versions": versions()}
    with atomic_path(path, force=force) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    return path


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that numbers depend on."""
    import platform
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("numpy", "scipy", "pandas", "numba")}
    return {"afafilter": __version__, "python": platform.python_version(), **libraries}


def plain(value: Any) -> Any:
    """`value` in terms of dict, list, str, int, float, bool and None."""
    from afafilter.models import LinearSDE

    rules: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (type(None), lambda v: v),
        ((bool, np.bool_), bool),
        (str, str),
        ((int, np.integer), int),
        ((float, np.floating), lambda v: float(v) if math.isfinite(v) else str(float(v))),
        (np.ndarray, lambda v: plain(v.tolist())),
        (Mapping, lambda v: {str(key): plain(item) for key, item in v.items()}),
        ((list, tuple, set, frozenset), lambda v: [plain(item) for item in v]),
        (LinearSDE, lambda v: plain(model_table(v))),
    )
    for kinds, rule in rules:
        if isinstance(value, kinds):
            return rule(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **named}
    return getattr(value, "__name__", None) or str(value)
