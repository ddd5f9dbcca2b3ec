"""How a text table is written: found from its first lines, unless the caller says it.

Instruments and spreadsheets write a preamble above the header, a row of units below it, decimal
commas, semicolons, empty columns. What cannot be told is refused with the option that tells it.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEPARATORS = ("\t", ";", "|", ",")
_MISSING = """
    na nan n/a n.a. null none nil <na> nat #n/a #na #null! #value! #div/0! ? - --
    -nan 1.#qnan -1.#ind 1.#ind
"""
MISSING = frozenset({"", "#n/a n/a", *_MISSING.split()})
"""Cells that say that a value is missing, in lower case."""
HEAD_LINES = 200
_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?$")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}(?:[-/.]\d{1,4})?(?:$|[T ])|\d{1,2}:\d{2}")


@dataclass(frozen=True)
class Dialect:
    """What the caller says of a text table; None = to be found.

    Attributes
    ----------
    sep : str, optional
        One character between the fields; "\\t" for a tab.
    decimal : str, optional
        "." or ",".
    header : int, optional
        Number of the line with the names, from 1; 0 = there is none, columns are called
        0, 1, 2...
    encoding : str
        Of the text.
    missing : tuple of str
        Further cells that mean "missing", e.g. ("-9999",).
    time_format : str, optional
        How times are written: a pattern as for `datetime.strptime`; "unix" ("unix-ms",
        "unix-us", "unix-ns") for seconds since 1970; "number" for numbers as they are; None =
        ISO 8601 or numbers.
    """

    sep: str | None = None
    decimal: str | None = None
    header: int | None = None
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()
    time_format: str | None = None

    @property
    def all_missing(self) -> frozenset[str]:
        """Cells that mean "missing", in lower case."""
        return MISSING | {cell.strip().lower() for cell in self.missing}

    def __post_init__(self) -> None:
        if self.sep is not None and len(self.sep) != 1:
            raise ValueError(f"sep must be one character (tab for a tab), got {self.sep!r}")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be '.' or ',', got {self.decimal!r}")
        if self.header is not None and (isinstance(self.header, bool) or self.header < 0):
            raise ValueError(f"header must be a line number, or 0 for none, got {self.header}")


@dataclass(frozen=True)
class Found:
    """A dialect with everything found: `first` is the line (from 0) where data begin."""

    sep: str
    decimal: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    first: int
    kept: tuple[int, ...]
    missing: frozenset[str]

    @property
    def width(self) -> int:
        return len(self.names)


def number(cell: str, decimal: str = ".") -> float | None:
    """NaN for a missing value, None for what is no number."""
    text = cell if decimal == "." else cell.replace(".", "_").replace(",", ".")
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    return math.nan if cell.strip().lower() in MISSING else None


def find(path: Path | str, lines: Sequence[str], given: Dialect) -> Found:
    """The dialect of a table that begins with these lines."""
    used = [k for k, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    if not used:
        raise ValueError(f"{path}: the file is empty")
    if given.header:
        if given.header > len(lines):
            raise ValueError(f"{path}: header is line {given.header}, but there are {len(lines)}")
        used = [k for k in used if k >= given.header - 1]
    sep = given.sep or _separator([lines[k] for k in used])
    rows = {k: _cells(lines[k], sep) for k in used}
    head = used[0] if given.header is not None else _header_line(used, rows, given)
    decimal = given.decimal or _decimal(sep, [rows[k] for k in used if k > head])
    if given.header == 0:
        width = len(rows[head])
        numbered = tuple(map(str, range(width)))
        return Found(sep, decimal, numbered, (), head, tuple(range(width)), given.all_missing)
    names = [name.strip() for name in rows[head]]
    below = [k for k in used if k > head]
    if given.header is None and _holds_data(names, decimal):
        raise ValueError(
            f"{path}, line {head + 1}: a header with the names of the columns is wanted, got data "
            f"({lines[head].strip()[:40]}): --header 0 (header=0) reads a file without, "
            f"--header {head + 1} takes this line as names"
        )
    units: tuple[str, ...] = ()
    if len(below) > 1 and _holds_units(rows[below[0]], rows[below[1]], decimal):
        units, below = tuple(cell.strip() for cell in rows[below[0]]), below[1:]
    kept = [k for k, name in enumerate(names) if name or _is_used(k, [rows[b] for b in below])]
    names = _named(names, kept)
    _refuse_twice(path, [names[k] for k in kept])
    first = below[0] if below else head + 1
    return Found(sep, decimal, tuple(names), units, first, tuple(kept), given.all_missing)


def _cells(line: str, sep: str) -> list[str]:
    return next(csv.reader([line], delimiter=sep), [])


def _separator(lines: Sequence[str]) -> str:
    """The separator that most lines hold equally often."""

    def rank(sep: str) -> tuple[float, int]:
        counts = Counter(line.count(sep) for line in lines)
        counts.pop(0, None)
        if not counts:
            return 0.0, 0
        count, times = counts.most_common(1)[0]
        return times / len(lines), count

    best = max(SEPARATORS, key=lambda sep: (rank(sep)[0] > 0.5, sep != ",", rank(sep)))
    return best if rank(best)[0] > 0 else ","


def _header_line(used: Sequence[int], rows: dict[int, list[str]], given: Dialect) -> int:
    """The first line as wide as most are; the one before it, if that has the names."""
    widths = Counter(len(rows[k]) for k in used)
    usual = max(widths, key=lambda w: (widths[w], w == len(rows[used[0]])))
    if widths[usual] == 1 or usual == 1:
        return used[0]
    place = next(i for i, k in enumerate(used) if len(rows[k]) == usual)
    decimal = given.decimal or "."
    while _is_preamble(*(rows[k] for k in used[place : place + 2])) or _is_padded(
        [rows[k] for k in used[place:]], usual
    ):
        place += 1
    names = rows[used[place]]
    if place and _holds_data(names, decimal) and not _holds_data(rows[used[place - 1]], decimal):
        return used[place - 1]
    return used[place]


def _is_preamble(row: Sequence[str], after: Sequence[str] = ()) -> bool:
    """Whether a line of words and numbers stands above a line of words: "Serial,123"."""
    return _is_words(after, len(row)) and _numbers(row) > 0 and number(row[0]) is None


def _is_padded(rows: Sequence[Sequence[str]], usual: int) -> bool:
    """Whether a line filled up with separators, or a short one, is above one with more names."""
    filled = [cell for cell in rows[0] if cell.strip()]
    if len(rows[0]) == usual and rows[0][: len(filled)] != filled:
        return False
    for row in rows[1:]:
        if not _is_words(row, usual) and _numbers(row) > 1:
            return False
        if _is_words(row, usual) and sum(bool(cell.strip()) for cell in row) > len(filled):
            return True
    return False


def _numbers(row: Sequence[str]) -> int:
    return sum(number(cell) is not None for cell in row if cell.strip())


def _is_words(row: Sequence[str], usual: int) -> bool:
    """Whether a line could be the header: as wide as most, without numbers and dates."""
    return len(row) == usual and not _numbers(row) and not any(DATE.match(c.strip()) for c in row)


def _decimal(sep: str, rows: Sequence[Sequence[str]]) -> str:
    if sep == ",":
        return "."
    cells = [cell.strip() for row in rows for cell in row]
    comma = any(_COMMA_NUMBER.match(cell) for cell in cells)
    return "," if comma and not any(_plain_decimal(cell) for cell in cells) else "."


def _plain_decimal(cell: str) -> bool:
    words = cell.lower() in MISSING
    return "." in cell and not words and not DATE.match(cell) and number(cell) is not None


def _holds_data(names: Sequence[str], decimal: str) -> bool:
    """Whether a first line is data: a number or a date, and then only numbers and blanks."""
    first = names[0].strip() if names else ""
    value = number(first, decimal)
    if value is None:
        if not DATE.match(first):
            return False
    elif math.isnan(value):
        return False
    return all(number(name, decimal) is not None for name in names[1:])


def _holds_units(row: Sequence[str], after: Sequence[str], decimal: str) -> bool:
    """Whether a row under the header has units: no number and no date, but data below."""

    def is_data(cell: str) -> bool:
        value = number(cell, decimal)
        return (value is not None and not math.isnan(value)) or bool(DATE.match(cell.strip()))

    filled = [cell for cell in row if cell.strip()]
    if not filled or any(is_data(cell) for cell in row) or len(row) != len(after):
        return False
    return sum(map(is_data, after)) > sum(bool(cell.strip()) for cell in after) / 2


def _is_used(column: int, rows: Sequence[Sequence[str]]) -> bool:
    return any(column < len(row) and row[column].strip() for row in rows)


def _named(names: list[str], kept: Sequence[int]) -> list[str]:
    """Names, where a column of data without one (an index that pandas wrote) is called index."""
    blank = [k for k in kept if not names[k]]
    return ["index" if [k] == blank else name for k, name in enumerate(names)]


def _refuse_twice(path: Path | str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"{path}: two columns are called {name!r}: --header N (header=N) takes the names "
                "of another line, 0 numbers the columns"
            )
