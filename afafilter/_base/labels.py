"""Rows that are labelled: put in the order of the times they stand beside, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.masks import refuse_disorder
from afafilter._base.tables import library, time_column


def aligned(z: Any, t: Any, labels: Any) -> Any:
    """z with its rows in the order of the times t, by labels where they are needed."""
    import pandas as pd

    if not isinstance(z, (pd.Series, pd.DataFrame)):  # an index, or an array of pandas'
        return pd.Series(z).reset_index(drop=True)
    index = z.index
    if isinstance(t, (pd.Series, pd.DataFrame)):
        if index.equals(t.index):
            return z
        if t.index.is_unique and index.is_unique and set(index) == set(t.index):
            return z.reindex(t.index)
        raise ValueError("z and t must have the same index; pass arrays to join rows as they are")
    stamps = pd.Index(labels)
    alone = index.nlevels == 1 and index.is_unique and len(index) == len(stamps)
    if alone and index.isin(stamps).all():
        return z.reindex(stamps)
    if index.is_monotonic_increasing:
        refuse_other_labels(index, stamps, "z")
        return z
    raise ValueError(
        "the index of z is neither in order nor that of the times t: sort it (z.sort_index()), or "
        "pass z.to_numpy() if its rows are meant in their order"
    )


def refuse_other_labels(index: Any, times: Any, name: str) -> None:
    """ValueError where rows are labelled by other times than they stand beside.

    Dates are compared with dates, numbers with numbers. 0, 1, ... only numbers rows; other whole
    numbers without a name may number those that a selection left: of them a warning.
    """
    import pandas as pd

    index, beside = _time_level(index), pd.Index(times)
    own, wanted = _instants(index), _instants(beside)
    kinds = own.dtype.kind + wanted.dtype.kind
    alike = kinds in ("MM", "mm") or kinds.strip("iuf") == ""
    if not alike or own.shape != wanted.shape or same_times(own, wanted):
        return
    said = (
        f"the index of {name}: {name} is labelled by other times than the data ({index[0]} .. "
        f"{index[-1]} beside {beside[0]} .. {beside[-1]})"
    )
    if kinds[0] not in "iu" or index.name is not None:
        raise ValueError(f"{said}; pass {name}.to_numpy() to take it row by row")
    if (own != np.arange(len(own))).any():
        warnings.warn(f"{said}, and is taken row by row, as {name}.to_numpy() is", stacklevel=5)


def _time_level(index: Any) -> Any:
    """Of labels of several levels, that which is the time by its kind or name, else the last."""
    if index.nlevels == 1:
        return index
    levels = {str(name or k): index.get_level_values(k) for k, name in enumerate(index.names)}
    place = time_column({name: _instants(level[:1]).dtype.kind for name, level in levels.items()})
    return index.get_level_values(-1).rename(None) if place is None else [*levels.values()][place]


def same_times(own: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Whether times are the same; numbers up to a thousandth of the least step between them."""
    if own.dtype.kind not in "iuf":
        return bool((own == wanted).all())
    steps = np.diff(np.unique(wanted))
    least = 1e-3 * float(steps.min()) if steps.size else 0.0
    return bool((np.abs(own.astype(np.float64) - wanted) <= least).all())


def _instants(index: Any) -> NDArray[Any]:
    """Labels as numbers, or dates of UTC."""
    import pandas as pd

    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if index.dtype == object and len(index) and isinstance(index[0], date):
        index = pd.to_datetime(index)
    if isinstance(index.dtype, pd.DatetimeTZDtype):
        index = index.tz_convert("UTC").tz_localize(None)
    return np.asarray(index.infer_objects())


def inputs_beside(inputs: Any, t: Any, z: Any) -> Any:
    """Known inputs with their rows in the order of the data's, by labels where both have them."""
    if isinstance(inputs, Mapping):
        return {name: inputs_beside(column, t, z) for name, column in inputs.items()}
    data = t if library(t) == "pandas" and hasattr(t, "index") else z
    if library(inputs) != "pandas" or library(data) != "pandas":
        refuse_disorder(inputs, "inputs", words=True)
        refuse_other_times(inputs, t, z, "inputs")
        return inputs
    own, wanted = inputs.index, data.index
    if own.equals(wanted) or type(own).__name__ == "RangeIndex":
        return inputs
    if wanted.nlevels > 1:  # paths with common times
        wanted = _time_level(wanted).unique()
    if own.is_unique and wanted.is_unique and set(own) == set(wanted):
        return inputs.reindex(wanted)
    raise ValueError(
        "inputs must have the index of the data, or none: inputs.reindex(data.index) fits one to "
        "the other, .to_numpy() takes rows as they are"
    )


def refuse_other_times(value: Any, t: Any, z: Any, name: str) -> None:
    """ValueError where a table or labelled array beside the times t is labelled by others.

    Of xarray, labels are an index of dates where t holds dates, of numbers where t holds numbers:
    that of the dimension which is the time by its kind or name, else of the first, if it can only
    be rows (an array of one dimension, covariances (T, p, p)). An index of z in disorder is refused
    elsewhere.
    """
    if library(value) == "pandas" and hasattr(value, "index") and name != "z" and np.ndim(t) == 1:
        refuse_other_labels(value.index, t, name)
    dims = tuple(getattr(value, "dims", ())) if library(value) == "xarray" else ()
    if not dims:
        return
    kinds = {str(d): value.indexes[d].dtype.kind if d in value.indexes else "" for d in dims}
    place = time_column(kinds)
    if place is None and (len(kinds) == 1 or name == "obs_cov"):
        place = 0
    own = None if place is None else value.indexes.get(dims[place])
    if own is None or (name == "z" and not own.is_monotonic_increasing):
        return
    labels = next(iter(t.indexes.values()), own) if hasattr(t, "indexes") else t
    labels = np.asarray(t.index if z is None and library(t) == "pandas" else labels)
    both = own.dtype.kind, labels.dtype.kind
    alike = both == ("M", "M") or all(kind in "iuf" for kind in both)
    if alike and labels.shape == own.shape and not same_times(own.to_numpy(), labels):
        raise ValueError(
            f"{name} is labelled by other times than the data: give it in the order of the "
            f"data, or pass {name}.to_numpy() to take it row by row"
        )
