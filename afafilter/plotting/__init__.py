"""Pictures of results. The only package that imports matplotlib; it draws and computes nothing.

Every function takes an optional `ax` and returns it, never calls show() and never touches the
global rcParams, but for `style("ieee")`, which sets a journal's width and type. An estimator has
the same colour in every picture, Okabe and Ito's for the common ones; other series are shades of
purple. Every series differs in line style or marker too, so that greyscale prints stay readable.
"""

from __future__ import annotations

from afafilter.plotting.animation import animate
from afafilter.plotting.colours import (
    COLOURS,
    CYCLE,
    DASHES,
    MARKERS,
    colour_of,
    line_style,
    series_style,
    shades,
)
from afafilter.plotting.drawing import (
    band,
    category_map,
    curves,
    decimal_ticks,
    ellipses,
    intervals,
    observations,
    phase_plane,
    weight_map,
)
from afafilter.plotting.results import comparison, diagnostics, estimate, fit, study, trajectories
from afafilter.plotting.styles import STYLES, figure, paper_style, style, write_figure

__all__ = [
    "COLOURS",
    "CYCLE",
    "DASHES",
    "MARKERS",
    "STYLES",
    "animate",
    "band",
    "category_map",
    "colour_of",
    "comparison",
    "curves",
    "decimal_ticks",
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
    "series_style",
    "shades",
    "study",
    "style",
    "trajectories",
    "weight_map",
    "write_figure",
]
