"""Tables of results as CSV, TSV, JSON lines or Parquet: by the suffix, whole or not at all."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from afafilter._base.stamps import iso_text
from afafilter.io.files import atomic_path
from afafilter.io.source import (
    CSV_SUFFIXES,
    DATA_SUFFIXES,
    JSON_SUFFIXES,
    PARQUET_SUFFIXES,
    require_arrow,
    suffix_of,
)

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 50_000
"""Rows that are turned into text at a time."""
FAST_ROWS = 20_000
"""Rows from which pyarrow's writer is worth its import."""


def table_path(path: str | Path) -> Path:
    """The path, if its suffix says how to write a table."""
    path = Path(path)
    if str(path) != "-" and path.suffix.lower() not in DATA_SUFFIXES:
        raise ValueError(f"{path}: the file name must end in one of {', '.join(DATA_SUFFIXES)}")
    if path.suffix.lower() in PARQUET_SUFFIXES:
        require_arrow()
    return path


def write_table(
    table: pd.DataFrame | Mapping[str, Any],
    path: str | Path,
    force: bool = False,
    *,
    metadata: Mapping[str, Any] | None = None,
    suffix: str | None = None,
) -> Path:
    """Write a table by the suffix of the path, all or nothing. Returns the path.

    Parameters
    ----------
    table : DataFrame or mapping
        A frame (its index is not written), or name -> column.
    path : str or path
        .csv, .tsv, .txt, .jsonl, .ndjson, .parquet or .pq; "-" is stdout.
    force : bool
        Overwrite a file that exists.
    metadata : mapping, optional
        Kept in a Parquet file, under the key "afafilter", as JSON.
    suffix : str, optional
        Writes "-" in another form than CSV, e.g. ".jsonl".

    Raises
    ------
    FileExistsError
        If the file exists and `force` is False.
    ValueError
        Unknown suffix, or Parquet without pyarrow.
    """
    path = table_path(path)
    columns = _columns(table)
    if str(path) == "-":
        kind = suffix or ".csv"
        if kind in PARQUET_SUFFIXES:
            _write_parquet(columns, sys.stdout.buffer, metadata)
        else:
            _write_text(columns, sys.stdout, kind)
        return path
    kind = suffix_of(path)
    sep = "\t" if kind == ".tsv" else ","
    many = kind in CSV_SUFFIXES and _rows(columns) > FAST_ROWS
    with atomic_path(path, force=force) as temporary:
        if kind in PARQUET_SUFFIXES:
            _write_parquet(columns, temporary, metadata)
        elif not (many and _write_fast(columns, temporary, sep)):
            with temporary.open("w", encoding="utf-8", newline="") as file:
                _write_text(columns, file, kind)
    return path


def _columns(table: Any) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return {str(name): np.asarray(column) for name, column in table.items()}
    out = {}
    for name in table.columns:
        column = table[name]
        missing = column.isna().to_numpy()
        values = column.to_numpy()
        if values.dtype.kind == "O" and missing.any():
            values = np.where(missing, None, values)
        out[str(name)] = values
    return out


def _rows(columns: Mapping[str, Any]) -> int:
    return len(next(iter(columns.values()))) if columns else 0


def _write_text(columns: Mapping[str, Any], file: IO[str], kind: str) -> None:
    columns = {name: _as_text(column) for name, column in columns.items()}
    if kind in JSON_SUFFIXES:
        for row in _cells(columns):
            record = {name: _finite(x) for name, x in zip(columns, row)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        return
    import csv

    writer = csv.writer(file, delimiter="\t" if kind == ".tsv" else ",", lineterminator="\n")
    writer.writerow(columns)
    for row in _cells(columns):
        writer.writerow(["" if x is None or x != x else x for x in row])


def _as_text(column: Any) -> Any:
    """Dates as ISO 8601; other columns as they are."""
    if column.dtype.kind != "M":
        return column
    known = ~np.isnat(column)
    out = np.full(len(column), "", dtype="U29")
    out[known] = iso_text(column[known])
    return out


def _cells(columns: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of Python numbers and words, some at a time."""
    for low in range(0, _rows(columns), CHUNK):
        yield from zip(*(column[low : low + CHUNK].tolist() for column in columns.values()))


def _finite(x: Any) -> Any:
    """JSON knows no NaN and no infinity: null and words stand for them."""
    if isinstance(x, float) and not math.isfinite(x):
        return None if math.isnan(x) else str(x)
    return x


def _write_fast(columns: Mapping[str, Any], path: Path, sep: str) -> bool:
    try:
        import pyarrow as pa
        from pyarrow import csv
    except ImportError:
        return False
    plain = {name: _as_text(column) for name, column in columns.items()}
    special = {sep, '"', "\n", "\r"}
    if any(special & set(name) for name in columns):
        return False
    for column in plain.values():
        if column.dtype.kind == "U" and not _is_clean(column, special):
            return False
        if column.dtype.kind == "O":
            words = set(column.tolist())
            if any(not isinstance(word, str) or special & set(word) for word in words):
                return False
    options = csv.WriteOptions(delimiter=sep, include_header=True, quoting_style="none")
    csv.write_csv(_arrow_table(pa, plain, None), path, options)
    return True


def _is_clean(text: Any, special: Collection[str]) -> bool:
    """Whether none of these characters is in an array of text."""
    codes = np.ascontiguousarray(text).view(np.uint32)
    return not any((codes == ord(letter)).any() for letter in special)


def _arrow_table(pa: Any, columns: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> Any:
    arrays = {name: pa.array(x, from_pandas=x.dtype.kind != "U") for name, x in columns.items()}
    table = pa.table(arrays)
    if metadata is None:
        return table
    kept = {"afafilter": json.dumps(metadata, allow_nan=False)}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **kept})


def _write_parquet(columns: Mapping[str, Any], where: Any, metadata: Any) -> None:
    pa = require_arrow()
    from pyarrow import parquet

    parquet.write_table(_arrow_table(pa, columns, metadata), where)
