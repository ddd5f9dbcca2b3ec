"""Probability integral transforms of Gaussian predictions: histograms and reliability.

    u = Phi((x - m) / s)

is uniform when the truth x has the claimed law N(m, s^2) (Dawid, JRSS A 147 (1984) 278; Gneiting,
Balabdaoui & Raftery, JRSS B 69 (2007) 243). Kept are counts in bins for every path, so that
intervals respect that the times of one path are not independent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afafilter._base.checks import Array
from afafilter._base.frames import data_frame
from afafilter.scoring.gaussian import BINS
from afafilter.scoring.tally import Ratio

if TYPE_CHECKING:
    import pandas as pd


def pit_frame(pit: Array) -> pd.DataFrame:
    """Share of every bin, with Student's interval over paths; uniform is 1 / BINS each."""
    rows = []
    for component, counts in _components(pit):
        for k in range(BINS):
            bin_ = {"component": component, "lower": k / BINS, "upper": (k + 1) / BINS}
            rows.append(bin_ | Ratio(counts[:, k], counts.sum(axis=1)).row("share"))
    return data_frame(rows)


def reliability_frame(pit: Array) -> pd.DataFrame:
    """How often central intervals of each nominal level hold the truth."""
    rows = []
    for component, counts in _components(pit):
        for k in range(1, BINS // 2 + 1):
            inside = counts[:, BINS // 2 - k : BINS // 2 + k].sum(axis=1)
            level = {"component": component, "level": 2 * k / BINS}
            rows.append(level | Ratio(inside, counts.sum(axis=1)).row("coverage"))
    return data_frame(rows)


def _components(pit: Array) -> list[tuple[str, Array]]:
    """Counts (n, BINS) of all components together and of each."""
    return [("all", pit.sum(axis=1)), *((f"x{i}", pit[:, i]) for i in range(pit.shape[1]))]
