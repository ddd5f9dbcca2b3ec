"""Columns as numbers, with errors that name the line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
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
    block = _block(table, [table.columns[name] for name in names])
    if block is not None:
        return block
    return np.stack([column_of(table, name).astype(np.float64) for name in names], axis=-1)


def _block(table: Table, columns: Sequence[Any]) -> Array | None:
    """Columns of text (T, p) in one go; None where one is no text or a cell wants a closer look."""
    if not all(isinstance(column, (list, tuple)) for column in columns):
        return None
    cells = list(chain.from_iterable(columns))
    if table.decimal != "." or "_" in "".join(cells):
        return None
    values = []
    for cell in cells:
        try:
            values.append(float(cell))
        except ValueError:
            if cell.strip().lower() not in table.missing:
                return None
            values.append(np.nan)
    out = np.array(values).reshape(len(columns), -1).T
    for value in _numbers(table.missing):
        out[out == value] = np.nan
    return None if np.isinf(out).any() else np.ascontiguousarray(out)


def column_of(table: Table, name: str) -> Any:
    """A column as numbers: int64 where they are whole and beyond 2^53, else floats."""
    column = table.columns[name]
    if getattr(getattr(column, "dtype", None), "kind", "") == "M":
        raise ValueError(f"{table.path}: column {name!r} holds dates, not numbers")
    if isinstance(column, np.ndarray):
        out = column
    else:
        out = _parsed(table, name, column)
    for value in _numbers(table.missing):
        if (out == value).any():
            out = np.where(out == value, np.nan, out)
    if out.dtype.kind == "f" and np.isinf(out).any():
        row = int(np.argmax(np.isinf(out)))
        raise ValueError(f"{table.where(row)}: {name} must be finite; leave a missing value blank")
    return out


def _numbers(missing: frozenset[str]) -> list[float]:
    """Numbers that mean missing, however they are written: -999 is -999.0 too."""
    found = (number(word) for word in missing - MISSING)
    return [value for value in found if value is not None and np.isfinite(value)]


CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?")
"""A time of day."""
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?")
"""A number with a separator of thousands."""


def _parsed(table: Table, name: str, column: Sequence[str]) -> Any:
    out = np.empty(len(column))
    long = False
    for row, cell in enumerate(column):
        bare = cell.strip()
        long = long or (len(bare) > 15 and bare.lstrip("+-").isdigit())
        value = number(cell, table.decimal)
        if value is None:
            if bare.lower() not in table.missing:
                raise ValueError(
                    f"{table.where(row)}: {name} must be a number, got {cell!r}{_hint(bare)}"
                )
            value = np.nan
        out[row] = np.nan if bare.lower() in table.missing else value
    if long:
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
