"""Pictures of results. The only package that imports matplotlib; it draws and computes nothing.

Every function takes an optional `ax` and returns it, never calls show() and never touches the
global rcParams; `paper_style()` is a context for figures at journal width. Colours are Okabe and
Ito's, and every series differs in line style or marker too, so that greyscale prints stay readable.
"""

from __future__ import annotations

from afafilter.plotting.drawing import (
    COLOURS,
    COLUMN_WIDTH,
    CYCLE,
    DASHES,
    MARKERS,
    band,
    category_map,
    curves,
    ellipses,
    figure,
    intervals,
    line_style,
    observations,
    paper_style,
    phase_plane,
    weight_map,
)
from afafilter.plotting.results import comparison, diagnostics, estimate, fit, trajectories

__all__ = [
    "COLOURS",
    "COLUMN_WIDTH",
    "CYCLE",
    "DASHES",
    "MARKERS",
    "band",
    "category_map",
    "comparison",
    "curves",
    "diagnostics",
    "ellipses",
    "estimate",
    "figure",
    "fit",
    "intervals",
    "line_style",
    "observations",
    "paper_style",
    "phase_plane",
    "trajectories",
    "weight_map",
]
