"""Columns as numbers, with errors that name the line."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.io.dialect import MISSING, number
from afafilter.io.source import Table


def numbers_of(table: Table, names: Sequence[str]) -> Array:
    """Columns (T, p) as floats, missing values as NaN."""
    if not names:
        return np.empty((table.rows, 0))
    columns = [table.columns[name] for name in names]
    if all(isinstance(column, (list, tuple)) for column in columns):  # text, in one go
        values = _values(table, chain.from_iterable(columns))
        if None not in values:  # what is no number is told below, by its line
            block = _without(table, np.array(values).reshape(len(names), -1).T)
            if not np.isinf(block).any():
                return np.ascontiguousarray(block)
    return np.stack([column_of(table, name).astype(np.float64) for name in names], axis=-1)


def column_of(table: Table, name: str) -> Any:
    """A column as numbers: int64 where they are whole and beyond 2^53, else floats."""
    column = table.columns[name]
    if getattr(getattr(column, "dtype", None), "kind", "") == "M":
        raise ValueError(f"{table.path}: column {name!r} holds dates, not numbers")
    out = _without(table, column if isinstance(column, np.ndarray) else _parsed(table, name))
    if out.dtype.kind == "f" and np.isinf(out).any():
        row = int(np.argmax(np.isinf(out)))
        raise ValueError(f"{table.where(row)}: {name} must be finite; leave a missing value blank")
    return out


def _values(table: Table, cells: Iterable[str]) -> list[float | None]:
    """Cells of text as numbers, NaN where they are missing, None for what is no number."""

    def value(cell: str) -> float | None:
        found = number(cell, table.decimal)
        odd = found is None or math.isinf(found)
        return math.nan if odd and cell.strip().lower() in table.missing else found

    return list(map(value, cells))


def _without(table: Table, values: Any) -> Any:
    """Values with NaN for numbers that mean missing, however written: -999 is -999.0 too."""
    for word in table.missing - MISSING:
        absent = number(word)
        if absent is not None and np.isfinite(absent) and (values == absent).any():
            values = np.where(values == absent, np.nan, values)
    return values


CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")
"""A time of day."""
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?")
"""A number with a separator of thousands."""


def _parsed(table: Table, name: str) -> Any:
    """A column of text as numbers; ValueError with the line of what is none."""
    column = table.columns[name]
    values = _values(table, column)
    if None in values:
        row = values.index(None)
        raise ValueError(
            f"{table.where(row)}: {name} must be a number, got {column[row]!r}"
            f"{_hint(column[row].strip())}"
        )
    out = np.array(values, dtype=np.float64)
    if (np.abs(out) >= 1e15).any():
        with contextlib.suppress(ValueError, OverflowError):
            return np.array([int(cell) for cell in column], dtype=np.int64)
    return out


def _hint(cell: str) -> str:
    """Which option reads what looks like a number of another habit."""
    if number(cell, ",") is not None:
        return "; --decimal , reads decimal commas"
    if CLOCK.fullmatch(cell):
        return "; --time DATE,CLOCK reads a date and a time of day from two columns"
    if THOUSANDS.fullmatch(cell):
        return "; a separator of thousands is not read: take it out"
    return "; --values names the columns to read, --na a word that means missing"
