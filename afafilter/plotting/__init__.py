"""Pictures of results. The only package that imports matplotlib; it draws and computes nothing.

Every function takes an optional `ax` and returns it, never calls show() and never touches the
global rcParams, but for `style("ieee")`, which sets a journal's width and type. Colours are Okabe
and Ito's, and every series differs in line style or marker too, so that greyscale prints stay
readable.
"""

from __future__ import annotations

from afafilter.plotting.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    band,
    category_map,
    curves,
    ellipses,
    intervals,
    line_style,
    observations,
    phase_plane,
    weight_map,
)
from afafilter.plotting.results import comparison, diagnostics, estimate, fit, study, trajectories
from afafilter.plotting.styles import CYCLE, STYLES, figure, paper_style, style, write_figure

__all__ = [
    "COLOURS",
    "CYCLE",
    "DASHES",
    "MARKERS",
    "STYLES",
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
    "study",
    "style",
    "trajectories",
    "weight_map",
    "write_figure",
]
