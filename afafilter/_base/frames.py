"""Tidy frames: pandas is imported here, when the first one is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array

if TYPE_CHECKING:
    import pandas as pd


def data_frame(data: Any, **options: Any) -> pd.DataFrame:
    """A DataFrame."""
    import pandas as pd

    return pd.DataFrame(data, **options)


def tidy(t: Array, columns: Mapping[str, Array], index: pd.Index | None = None) -> pd.DataFrame:
    """One row per (path, time) of columns (..., T): path (where axes lead), t, the columns.

    index : of the rows, instead of path and t (T,).
    """
    first = next(iter(columns.values()))
    places: dict[str, Array] = {}
    if index is None:
        n = first.size // max(len(t), 1)
        if first.ndim > 1:
            places["path"] = np.repeat(np.arange(n), len(t))
        places["t"] = np.tile(t, n)
    return data_frame({**places, **{k: v.ravel() for k, v in columns.items()}}, index=index)
