"""What users hide behind masks, and labels out of order: looked at before numbers are taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPONENTS = ("x0", "prior mean", "drift", "offset", "b", "d")
"""Arguments whose entries are components of the state or of observations, which have no names."""
_COMPONENT = re.compile(r"([xz])(0|[1-9][0-9]*)")


def unmasked(value: Any, name: str, allow_nan: bool = True) -> NDArray[Any]:
    """`value` as a plain array; what a masked array hides becomes NaN, where NaN is allowed.

    The one place that knows of masks: whatever reads users' data without `real_array` comes here.
    """
    if isinstance(value, (list, tuple)):
        value = _stacked(value)
    if isinstance(value, np.ma.MaskedArray):
        plain, hidden = np.asarray(value.data), np.ma.getmaskarray(value)
        if not hidden.any():
            return plain
        if not allow_nan:
            raise ValueError(
                f"{name} must not hold masked entries, got {int(hidden.sum())} of {value.size}: "
                "leave those rows out"
            )
        kept = plain.dtype if plain.dtype.kind in "fc" else object
        plain = plain.astype(np.float64 if plain.dtype.kind in "bui" else kept)
        plain[hidden] = None if plain.dtype == object else np.nan
        return plain
    refuse_disorder(value, name)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None


def _stacked(rows: Any) -> Any:
    """Lists, however deep, that hold masked arrays as one masked array; others as they are."""
    inner = [_stacked(x) if isinstance(x, (list, tuple)) else x for x in rows]
    if not any(isinstance(x, np.ma.MaskedArray) for x in inner):
        return rows
    try:
        return np.ma.stack([np.ma.asarray(x) for x in inner])
    except ValueError:  # of several lengths, which the caller tells
        return rows


def refuse_disorder(value: Any, name: str, words: bool = False) -> None:
    """ValueError where a table or labelled array of another library is labelled in another order.

    Rows and columns named like components, x1 before x0; rows with numbers or dates; `words`, and
    entries of the state: rows with words, too, that nothing can be held against.
    """
    axes, columns = _labels(value)
    known = [refuse_swapped(labels, name) for labels in axes]
    refuse_swapped(columns, name)
    refuse_differing({name: value})
    words = words or name in COMPONENTS
    for index, placed in zip(axes, known, strict=True):
        kind = getattr(index.dtype, "kind", "")
        counted = kind in "iufM" or (words and kind in "Ob" and not placed)
        if counted and not index.is_monotonic_increasing:
            pandas = type(value).__module__.startswith("pandas")
            order = "sort_index()" if pandas else f"sortby({index.name!r})"
            raise ValueError(
                f"{name} has labels that are out of order, and would be taken in the order of its "
                f"rows: sort it ({name}.{order}), or pass {name}.to_numpy() if that is meant"
            )
    if name == "x0" and list(columns) != sorted(columns, key=str):
        raise ValueError(
            f"{name} has columns that are out of order ({', '.join(map(str, columns))}), and would "
            f"be taken in that order: sort them, or pass {name}.to_numpy() if that is meant"
        )


def refuse_differing(given: Mapping[str, Any]) -> None:
    """ValueError where two axes have the same labels in different orders."""
    every = {name: _labels(value) for name, value in given.items() if type(value) is not np.ndarray}
    axes = [(name, axis) for name, (rows, columns) in every.items() for axis in (*rows, columns)]
    for (name, labels), (other, more) in combinations(axes, 2):
        if len(labels) == len(more) and {*labels} == {*more} and list(labels) != list(more):
            one, two = (", ".join(map(str, axis[:4])) for axis in (labels, more))
            raise ValueError(f"{name} is labelled {one}, but {other} {two}: give both in one order")


def _labels(value: Any) -> tuple[list[Any], Any]:
    """Indexes of the rows (of every labelled axis of an array), and names of the columns."""
    library = type(value).__module__.partition(".")[0]
    if library == "pandas" and hasattr(value, "index"):
        return [value.index], getattr(value, "columns", ())
    if library == "xarray":
        return list(getattr(value, "indexes", {}).values()), ()
    if library in ("polars", "pyarrow"):
        return [], getattr(value, "column_names", None) or getattr(value, "columns", ())
    return [], ()


def refuse_swapped(labels: Any, name: str) -> bool:
    """Whether labels name components of a model, x0 .. or z0 ..; ValueError in another order."""
    found = [_COMPONENT.fullmatch(x) if isinstance(x, str) else None for x in labels]
    places = [(match[1], int(match[2])) for match in found if match]
    named = len(places) == len(found) > 1 and len({x for x, _ in places}) == 1
    wanted = sorted(places, key=lambda place: place[1])
    if named and places != wanted:
        order = ", ".join(f"{word}{number}" for word, number in wanted)
        raise ValueError(
            f"{name} is labelled {', '.join(labels)}, and would be taken in that order, not by "
            f"its labels: give it in the order {order}"
        )
    return named


def refuse_same_name(levels: Any, columns: Any, what: str) -> None:
    """ValueError where an index is called as a column is: one of them would be the other."""
    both = [name for name in levels if name is not None and name in columns]
    if both:
        raise ValueError(
            f"{what}: the index and a column are both called {both[0]!r}: rename one of them "
            "(frame.rename_axis), or leave the index out (frame.reset_index(drop=True))"
        )
