"""Arrays over paths and times as tidy frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from afafilter._base.checks import Array

if TYPE_CHECKING:
    import pandas as pd


def tidy(t: Array, columns: Mapping[str, Array], index: pd.Index | None = None) -> pd.DataFrame:
    """One row per (path, time) of columns (..., T): path (where axes lead), t, the columns.

    index : of the rows, instead of path and t (T,).
    """
    import pandas as pd

    first = next(iter(columns.values()))
    places: dict[str, Array] = {}
    if index is None:
        n = first.size // max(len(t), 1)
        if first.ndim > 1:
            places["path"] = np.repeat(np.arange(n), len(t))
        places["t"] = np.tile(t, n)
    return pd.DataFrame({**places, **{k: v.ravel() for k, v in columns.items()}}, index=index)
