"""Which column is which: times, values, errors of values, and what tells paths apart."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from afafilter._base.masks import refuse_swapped
from afafilter._base.stamps import unit_in_name
from afafilter._base.tables import TIME_NAMES
from afafilter.io.dialect import DATE, Dialect
from afafilter.io.source import SparseColumns, Table, read_table

ELAPSED = ("t", "elapsed")
"""Names of the elapsed time that `afafilter estimate` writes beside dates."""


@dataclass(frozen=True)
class Chosen:
    """Names of the columns: times (one, or date and time of day), values, errors, paths, inputs."""

    time: tuple[str, ...]
    values: tuple[str, ...]
    errors: tuple[str, ...]
    by: str | None
    inputs: tuple[str, ...] = ()


def opened(
    path: str | Path,
    time: str | Sequence[str] | None,
    values: Sequence[str] | str | None,
    by: str | None,
    errors: Sequence[str] | str | None,
    dialect: Dialect | None,
    inputs: Sequence[str] | str | None = None,
) -> tuple[Table, Chosen]:
    """The table of a file and which of its columns are asked for; what is not said is found."""
    known, sd = listed(inputs), listed(errors)
    wanted = None
    if time is not None and values is not None:
        wanted = [*listed(time), *listed(values), *sd, *known, *listed(by)]
    table = read_table(path, dialect or Dialect(), wanted)
    own = own_layout(table)
    if by is None and values is None and own is not None:
        by = own.by
    if by is None and time is None and len(table.index) == 2:
        by = table.index[0]
    times = time_names(table, time, by, own)
    if errors is not None and values is None:
        raise ValueError("errors (--errors) need values (--values), in the same order")
    chosen = listed(values)
    if values is None:
        candidates = own.values if own and by == own.by else table.names
        aside = {*times, by, *known, *(_row_numbers(table) if time is None else ())}
        chosen = [name for name in candidates if name not in aside]
        refuse_swapped(chosen, f"{table.path} (--values, values, chooses)")
    if not chosen:
        raise ValueError(
            f"{table.path}: no value column beside the time column {times[0]!r}: --time (time) "
            "names another one; --sep (Dialect) says what separates the columns"
        )
    if errors is not None and len(sd) != len(chosen):
        raise ValueError(
            f"errors (--errors) must name one column per value, got {len(sd)} for {len(chosen)}"
        )
    asked = [*times, *listed(by), *chosen, *sd, *known]
    if isinstance(table.columns, SparseColumns):
        table.columns.refuse_blank(asked, table.path)
    if time is None and own is None and not table.index:
        _warn_of_times(table, times[0], {*asked, by} if values is not None else {by})
    for name, count in Counter(asked).items():
        table.require(name)
        if count > 1:
            raise ValueError(f"{table.path}: column {name!r} is asked for twice")
    return table, Chosen(times, tuple(chosen), tuple(sd), by, tuple(known))


def own_layout(table: Table) -> Chosen | None:
    """The columns of a table that afafilter wrote (simulate, estimate); None for any other."""
    names = table.names
    if re.fullmatch(r"(?:path )?t(?: x\d+)+(?: z\d+)+(?: outlier)?", " ".join(names)):
        values = tuple(name for name in names if name.startswith("z"))
        return Chosen(("t",), values, (), "path" if names[0] == "path" else None)
    ends, there = ("_fit", "_fit_sd", "_obs_sd"), set(names)
    estimated = tuple(name for name in names if all(name + end in there for end in ends))
    if not estimated or not {"x0", "x0_sd"} <= there:
        return None
    before = names[: names.index("x0")]
    if len(before) == 2 and not (before[1] in ELAPSED and _are_dates(table, *before)):
        return Chosen((before[1],), estimated, (), before[0])
    return Chosen((before[-2:][0],), estimated, (), before[0] if before[2:] else None)


def _are_dates(table: Table, name: str, elapsed: str) -> bool:
    """Whether a column has dates, one for each of the elapsed times beside it."""
    column, beside = table.columns[name], table.columns[elapsed]
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    dated = kind == "M" or (not kind and bool(DATE.match(str(column[0]).strip())))
    return dated and len({*map(str, column)}) >= len({*map(str, beside)})


def time_names(
    table: Table, time: str | Sequence[str] | None, by: str | None, own: Chosen | None
) -> tuple[str, ...]:
    """Names of the columns of times: asked for, known by the layout, or the first one."""
    if time is not None:
        names = tuple(listed(time))
        if len(names) > 2:
            raise ValueError(f"time must name one column, or date and time of day, got {names}")
        for name in names:
            table.require(name)
        return names
    if own is not None:
        return own.time
    if table.index:
        return (table.index[-1],)
    numbered = _row_numbers(table)
    first = next((name for name in table.names if name not in (by, *numbered)), None)
    if first is None:
        raise ValueError(f"{table.path}: no time column beside {by!r}")
    return (first,)


def _warn_of_times(table: Table, first: str, aside: set[str | None]) -> None:
    """Warn where the first column is taken for the time though another one is called so."""
    named = [name for name in table.names if name.strip().lower() in TIME_NAMES]
    others = [name for name in named if name not in aside]
    if others and first not in named and unit_in_name(first) is None:
        warnings.warn(
            f"{table.path}: the first column, {first!r}, is taken for the time, and {others[0]!r} "
            f"is not: --time {others[0]} (time) takes that one, --time {first} means it",
            stacklevel=3,
        )


def _row_numbers(table: Table) -> list[str]:
    """The first column, where it has no name of its own, counts rows, and one is called the time.

    Such a column is what pandas writes of an index that nobody set.
    """
    names = table.names
    if table.index or names[:1] != ["index"] or not table.rows:
        return []
    timed = [name for name in names[1:] if name.strip().lower() in TIME_NAMES]
    cells = [str(cell).strip() for cell in table.columns["index"]]
    whole = all(cell.isdecimal() for cell in cells)
    counts = whole and all(int(a) < int(b) for a, b in pairwise(cells))
    return ["index"] if len(timed) == 1 and counts else []


def listed(names: Sequence[str] | str | None) -> list[str]:
    """Names as a list, of one or of none too."""
    return [] if names is None else [names] if isinstance(names, str) else list(names)
