"""Raw tables from files: CSV and TSV (also compressed, also from stdin), JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.masks import refuse_same_name
from afafilter._base.tables import numbers_rows
from afafilter.io.dialect import HEAD_LINES, MISSING, Dialect, Found, find, number
from afafilter.io.files import parse_json, read_file
from afafilter.io.text import read_text, refuse_bomb

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
JSON_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
DATA_SUFFIXES = CSV_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES
PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
MANY_BYTES, MANY_ROWS = 500_000, 5_000
"""Size from which a fast reader is worth its import."""
PLAIN_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?)?$")
BLANK = 10_000_000, 50
"""Cells that JSON lines may leave blank: so many, or so many times those that they fill."""
SHOWN = 12
"""Names of columns that a message lists."""


@dataclass(frozen=True, eq=False)
class Table:
    """Raw columns: lists of strings (text) or arrays; `line` numbers the rows.

    `index` names the columns that were the index of a frame; `decimal` is that of text.
    """

    path: Path | str
    columns: Mapping[str, Any]
    rows: int
    lines: Sequence[int] = ()
    line_word: str = "line"
    decimal: str = "."
    units: Mapping[str, str] = field(default_factory=dict)
    index: tuple[str, ...] = ()
    missing: frozenset[str] = MISSING

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def where(self, row: int) -> str:
        return f"{self.path}, {self.line_word} {self.lines[row]}"

    def shown(self, name: str, row: int) -> str:
        return str(self.columns[name][row])

    def taken(self, rows: NDArray[np.intp]) -> Table:
        """These rows in this order."""

        def some(column: Any) -> Any:
            if isinstance(column, np.ndarray):
                return column[rows]
            return column.iloc[rows] if hasattr(column, "iloc") else [column[k] for k in rows]

        columns = {name: some(column) for name, column in self.columns.items()}
        return replace(self, columns=columns, rows=len(rows), lines=some(self.lines))

    def require(self, name: str) -> None:
        if name not in self.columns:
            names = self.names
            known = ", ".join(names[:SHOWN]) + (f", ... ({len(names)})" if names[SHOWN:] else "")
            raise ValueError(f"{self.path}: no column {name!r}; the columns are {known}")


def suffix_of(path: Path | str) -> str:
    """The suffix that says what a file is, without that of its compression; .csv for stdin."""
    if str(path) == "-":
        return ".csv"
    path = Path(path)
    return Path(path.stem).suffix.lower() if path.suffix.lower() in PACKED else path.suffix.lower()


def read_table(path: Path | str, given: Dialect, wanted: Sequence[str] | None = None) -> Table:
    """The table in a file ("-": CSV on stdin); `wanted` columns alone may be read."""
    suffix = suffix_of(path)
    name = "stdin" if str(path) == "-" else path
    if suffix in PARQUET_SUFFIXES:
        table = _read_parquet(Path(path))
    elif suffix in JSON_SUFFIXES:
        table = _read_json_lines(name, read_text(path, name, given.encoding))
    elif suffix in CSV_SUFFIXES:
        table = _read_csv(name, read_text(path, name, given.encoding), given, wanted)
    else:
        known = ", ".join(DATA_SUFFIXES)
        raise ValueError(
            f"{path}: the file name must end in one of {known} (text also packed: "
            f"{', '.join(PACKED)})"
        )
    table = replace(table, missing=given.all_missing)
    if not table.rows:
        raise ValueError(f"{name}: no rows of data")
    return table


# --------------------------------------------------------------------------------------------- CSV


def _read_csv(path: Path | str, text: str, given: Dialect, wanted: Sequence[str] | None) -> Table:
    head = _first_lines(text, max(HEAD_LINES, given.header or 0))
    try:
        found = find(path, head, given)
    except csv.Error as error:
        raise ValueError(f"{path}: not readable as CSV: {error}") from None
    table = None
    if len(text) > MANY_BYTES and text.count("\n") > MANY_ROWS:
        table = _read_fast(path, text, found, wanted)
    return _read_slowly(path, text, found) if table is None else table


def _first_lines(text: str, count: int) -> list[str]:
    end = 0
    for _ in range(count):
        end = text.find("\n", end) + 1
        if not end:
            return text.removesuffix("\n").split("\n") if text else []
    return text[: end - 1].split("\n")


def _table(
    path: Path | str, columns: Mapping[str, Any], lines: Sequence[int], found: Found
) -> Table:
    units = {name: unit for name, unit in zip(found.names, found.units) if unit}
    return Table(path, columns, len(lines), lines, decimal=found.decimal, units=units)


def _read_slowly(path: Path | str, text: str, found: Found) -> Table:
    """Line by line, so that what is wrong can be told by its line."""
    rows, lines = [], []
    width = found.width
    source = io.StringIO(text)
    for _ in range(found.first):
        source.readline()
    reader = csv.reader(source, delimiter=found.sep)
    try:
        for row in reader:
            line = found.first + reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != width and row[0].lstrip().startswith("#"):
                continue
            if not any(cell.strip() for cell in row[width:]):
                row = row[:width]
            if len(row) != width:
                raise ValueError(
                    f"{path}, line {line}: {len(row)} fields, but the header has {width}"
                )
            rows.append(row)
            lines.append(line)
    except csv.Error as error:
        raise ValueError(f"{path}: not readable as CSV: {error}") from None
    columns = list(zip(*rows)) if rows else [() for _ in found.names]
    return _table(path, {found.names[k]: columns[k] for k in found.kept}, lines, found)


def _read_fast(
    path: Path | str, text: str, found: Found, wanted: Sequence[str] | None
) -> Table | None:
    """By pyarrow, or else pandas; None where something is unusual, to be looked at line by line."""
    start = 0
    for _ in range(found.first):
        start = text.index("\n", start) + 1
    body = text[start:]
    count = body.count("\n") + (not body.endswith("\n"))
    regular = body.count(found.sep) == count * (found.width - 1) and '"' not in body
    if not regular or ("\r" in body and "\r" in body.replace("\r\n", "")):
        return None
    names = [found.names[k] for k in found.kept]
    if wanted is not None and all(name in names for name in wanted):
        names = list(dict.fromkeys(wanted))
    first = dict(zip(found.names, body[: body.index("\n")].split(found.sep)))
    try:
        columns = _columns(body, found, names, first)
    except (ValueError, ArithmeticError):
        return None
    rows = len(next(iter(columns.values()))) if columns else 0
    if rows != count:
        return None
    return _table(path, columns, range(found.first + 1, found.first + 1 + rows), found)


def _columns(
    body: str, found: Found, names: Sequence[str], first: Mapping[str, str]
) -> dict[str, Any]:
    """Columns as arrays: whole numbers beyond 2^53 as int64, text as lists, else floats."""
    kinds = {name: _kind(first[name], found.decimal) for name in names}
    written = {w for m in found.missing for w in (m, m.upper(), m.capitalize())}
    spelled = sorted(written | {"NaN", "NaT"})
    try:
        from pyarrow import csv as arrow
    except ImportError:
        return _columns_by_pandas(body, found, names, kinds, spelled)
    import pyarrow as pa

    types = {"f": pa.float64(), "i": pa.int64(), "s": pa.string(), "d": pa.timestamp("us")}
    table = arrow.read_csv(
        io.BytesIO(body.encode()),
        arrow.ReadOptions(column_names=list(found.names), block_size=1 << 24),
        arrow.ParseOptions(delimiter=found.sep, quote_char=False, ignore_empty_lines=False),
        arrow.ConvertOptions(
            column_types={name: types[kind] for name, kind in kinds.items()},
            include_columns=list(names),
            null_values=spelled,
            strings_can_be_null=False,
            decimal_point=found.decimal,
        ),
    )
    return {
        name: table[name].to_pylist() if kinds[name] == "s" else table[name].to_numpy()
        for name in names
    }


def _columns_by_pandas(
    body: str, found: Found, names: Sequence[str], kinds: Mapping[str, str], missing: Sequence[str]
) -> dict[str, Any]:
    import pandas as pd

    types: Any = {"f": np.float64, "i": np.int64, "s": object, "d": object}
    release = tuple(map(int, pd.__version__.split(".")[:2]))
    exact: Any = {} if release >= (3, 1) else {"float_precision": "round_trip"}
    frame = pd.read_csv(
        io.StringIO(body),
        sep=found.sep,
        decimal=found.decimal,
        header=None,
        names=list(found.names),
        usecols=list(names),
        index_col=False,
        dtype={name: types[kind] for name, kind in kinds.items()},
        na_values={name: list(missing) for name in names if kinds[name] not in "sd"},
        keep_default_na=False,
        **exact,
        skip_blank_lines=False,
        quoting=3,
        skipinitialspace=True,
    )
    return {
        name: frame[name].tolist() if kinds[name] in "sd" else frame[name].to_numpy()
        for name in names
    }


def _kind(cell: str, decimal: str) -> str:
    if number(cell, decimal) is None:
        return "d" if PLAIN_DATE.match(cell.strip()) else "s"
    digits = cell.strip().lstrip("+-")
    whole, point, _ = digits.partition(decimal)
    if whole.isdigit() and (len(whole) == 10 or (point and len(whole) > 10)):
        return "s"  # may be a Unix time with more digits than a float keeps
    return "i" if digits.isdigit() and len(digits) > 15 else "f"


# ------------------------------------------------------------------------------ JSON lines, Parquet


class SparseColumns(Mapping[str, list[str]]):
    """Columns of which many cells are blank: name -> row -> cell, lists where asked for."""

    def __init__(self, cells: dict[str, dict[int, str]], rows: int) -> None:
        self.cells, self.rows = cells, rows

    def __getitem__(self, name: str) -> list[str]:
        column = [""] * self.rows
        for row, cell in self.cells[name].items():
            column[row] = cell
        return column

    def refuse_blank(self, names: Sequence[str], path: Path | str) -> None:
        """ValueError where these columns are many cells, nearly all of them blank."""
        filled = sum(len(self.cells.get(name, ())) for name in names)
        if len(names) * self.rows > max(BLANK[0], BLANK[1] * filled):
            raise ValueError(
                f"{path}: {len(names)} columns of {self.rows} rows hold {filled} values only: "
                "--values (values) names those that are wanted"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def _read_json_lines(path: Path | str, text: str) -> Table:
    columns: dict[str, dict[int, str]] = {}
    lines: list[int] = []
    for k, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, parse_float=str)
        except json.JSONDecodeError:
            record = None
        except ValueError as error:
            raise ValueError(f"{path}, line {k}: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {k}: an object {{...}} is wanted, got {line[:40]!r}")
        for name, value in record.items():
            cells = columns.setdefault(name, {})
            if value is not None:
                cells[len(lines)] = value if isinstance(value, str) else repr(value)
        lines.append(k)
    return Table(path, SparseColumns(columns, len(lines)), len(lines), lines)


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    raw = read_file(path)
    try:
        from pyarrow import parquet

        about = parquet.ParquetFile(io.BytesIO(raw)).metadata
        refuse_bomb(path, 8 * about.num_rows * about.num_columns, len(raw))
        frame = pd.read_parquet(io.BytesIO(raw))
    except ImportError:
        raise ValueError(
            f"{path}: Parquet needs pyarrow: pip install 'afafilter[parquet]'"
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not readable as Parquet: {error}") from None
    index: tuple[str, ...] = ()
    kinds = {str(name): str(frame[name].dtype.kind) for name in frame.columns}
    rows_only = numbers_rows(frame.index, kinds)
    text_only = frame.index.nlevels == 1 and frame.index.dtype == object
    if not rows_only and not (text_only and frame.index.name is None):
        levels = [
            name if name is not None else ("index" if frame.index.nlevels == 1 else f"level_{k}")
            for k, name in enumerate(frame.index.names)
        ]
        refuse_same_name(levels, frame.columns, str(path))
        index = tuple(map(str, levels))
        frame = frame.reset_index(names=levels)
    columns: dict[str, Any] = {str(name): _plain_column(frame[name]) for name in frame.columns}
    lines = range(1, len(frame) + 1)
    return Table(path, columns, len(frame), lines, "row", units=_own_units(path), index=index)


def _own_units(path: Path) -> dict[str, str]:
    """Units of values that `afafilter estimate` noted in a file."""
    try:
        return dict(read_metadata(path)["config"]["units"])
    except (ValueError, KeyError, TypeError):
        return {}


def read_metadata(path: str | Path) -> Any:
    """What `write_table` kept in a Parquet file beside the table; None where nothing is."""
    require_arrow()
    from pyarrow import parquet

    text = (parquet.read_schema(Path(path)).metadata or {}).get(b"afafilter")
    return None if text is None else parse_json(text)


def require_arrow() -> Any:
    """The library that Parquet needs; ValueError where it is not there."""
    try:
        import pyarrow
    except ImportError:
        raise ValueError("Parquet needs pyarrow: pip install 'afafilter[parquet]'") from None
    return pyarrow


def _plain_column(column: Any) -> Any:
    """A column as dates (with their zone, as a Series), numbers, or text."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return column.to_numpy() if column.dt.tz is None else column
    if column.dtype == bool:
        return column.to_numpy()
    whole = pd.api.types.is_integer_dtype(column) and not column.isna().any()
    if whole and not column.max() > np.iinfo(np.int64).max:
        return column.to_numpy(dtype=np.int64)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    blank = column.isna()
    return ["" if none else str(cell) for none, cell in zip(blank, column)]
