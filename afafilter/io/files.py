"""Files written whole or not at all, and tables of results."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from afafilter.io.series import CSV_SUFFIXES, PARQUET_SUFFIXES

if TYPE_CHECKING:
    import pandas as pd


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
