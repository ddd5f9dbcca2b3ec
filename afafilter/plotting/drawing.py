"""Elements of pictures: bands, points, curves, ellipses, maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection

from afafilter._base.checks import Array, ObsMask, fraction
from afafilter.plotting.colours import COLOURS, MARKERS, colour_of, series_style, shades
from afafilter.results import Estimate


def band(
    estimate: Estimate,
    component: int = 0,
    *,
    level: float = 0.95,
    path: int = 0,
    scale: float = 1.0,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """One component of an estimate over time with its central interval.

    Parameters
    ----------
    estimate : Estimate
    component, path : int
        Which state, and which path when there are several.
    level, scale : float
        Of the interval; what multiplies the values (units).
    ax : matplotlib Axes, optional
        Where to draw; default the current axes. Further options are passed to `Axes.plot`.
    """
    ax = plt.gca() if ax is None else ax
    d = estimate.mean.shape[-1]
    if not -d <= component < d:
        raise ValueError(f"component must be one of the {d} (0 to {d - 1}), got {component}")
    lower, upper = (one_path(bound, path)[:, component] for bound in estimate.interval(level))
    mean = one_path(estimate.mean, path)[:, component]
    line = {"label": estimate.label or None, **line}
    (drawn,) = ax.plot(estimate.t, scale * mean, **line)
    known = np.isfinite(lower)
    edges = scale * lower[known], scale * upper[known]
    shade: dict[str, Any] = {"color": drawn.get_color(), "alpha": 0.22, "linewidth": 0}
    ax.fill_between(estimate.t[known], *edges, **shade)
    return ax


def observations(
    t: Array, z: Array, component: int = 0, *, path: int = 0, ax: Axes | None = None, **marks: Any
) -> Axes:
    """One observed component as points."""
    ax = plt.gca() if ax is None else ax
    style = {"marker": ".", "markersize": 2.2, "linestyle": "none", "color": COLOURS["data"]}
    ax.plot(t, one_path(z, path)[:, component], **{**style, "label": "observations", **marks})
    return ax


def date_axis(ax: Axes) -> Axes:
    """Few and short dates along the axis of time."""
    from matplotlib import dates

    dated: Any = dates  # which has no types
    locator = dated.AutoDateLocator(minticks=3, maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dated.ConciseDateFormatter(locator))
    return ax


def phase_plane(
    curves: Mapping[str, Array],
    *,
    z: Array | None = None,
    styles: Mapping[str, Mapping[str, Any]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Paths (T, 2) in the plane by name, observations (T, 2) as points, equal scales."""
    ax = plt.gca() if ax is None else ax
    if z is not None:
        ax.plot(
            z[:, 0], z[:, 1], ".", ms=1.8, color=COLOURS["data"], alpha=0.8, label="observations"
        )
    for index, (name, xy) in enumerate(curves.items()):
        if np.ndim(xy) != 2 or np.shape(xy)[1] < 2:
            raise ValueError(f"curves[{name!r}] must be one path (T, 2), got shape {np.shape(xy)}")
        style = series_style(name, index, len(curves))
        ax.plot(xy[:, 0], xy[:, 1], label=name, **{**style, **dict((styles or {}).get(name, {}))})
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def ellipses(
    centres: Array, covs: Array, *, level: float = 0.68, ax: Axes | None = None, **style: Any
) -> Axes:
    """Probability ellipses of 2-D Gaussians: centres (n, 2), covs (n, 2, 2)."""
    ax = plt.gca() if ax is None else ax
    radius = np.sqrt(-2 * np.log1p(-fraction(level, "level")))
    values, vectors = np.linalg.eigh(covs)
    axes = 2 * radius * np.sqrt(np.clip(values, 0, None))
    angle = np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    look: dict[str, Any] = {"facecolor": "none", "edgecolor": shades(1)[0], "linewidth": 0.5}
    look |= {"units": "xy", **style}
    ax.add_collection(
        EllipseCollection(
            axes[:, 1], axes[:, 0], angle, offsets=centres, offset_transform=ax.transData, **look
        )
    )
    ax.autoscale_view()
    return ax


def weight_map(
    weights: Array,
    t: Array | None = None,
    *,
    vmax: float | None = None,
    label: str = "weight",
    ax: Axes | None = None,
    colorbar: bool = True,
) -> Axes:
    """A matrix of weights (queries down, observations across), on a perceptual scale from 0.

    Negative weights, which Kalman filters have, turn the scale into a diverging one.
    """
    ax = plt.gca() if ax is None else ax
    if weights is None or np.ndim(weights) != 2:
        shape = None if weights is None else np.shape(weights)
        raise ValueError(
            f"weights must be one matrix (queries, observations), got shape {shape}; "
            "take one path, and estimate with return_weights=True"
        )
    top = float(np.nanmax(np.abs(weights))) if vmax is None else vmax
    signed = np.nanmin(weights) < -1e-3 * top
    last = len(weights) - 1 if t is None else float(t[-1])
    first = 0 if t is None else float(t[0])
    image = ax.imshow(
        weights,
        cmap="PuOr_r" if signed else "cividis",
        vmin=-top if signed else 0.0,
        vmax=top,
        extent=(first, last, last, first),
        interpolation="nearest",
        aspect="equal",
    )
    if colorbar:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.03)
        bar.set_label(label)
        bar.outline.set_linewidth(0.5)
    return ax


def curves(
    x: Array,
    ys: Mapping[str, Array],
    *,
    bands: Mapping[str, tuple[Array, Array]] | None = None,
    markers: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Named curves over x, distinct in greyscale, with optional (lower, upper) bands."""
    ax = plt.gca() if ax is None else ax
    for index, (name, y) in enumerate(ys.items()):
        style = series_style(name, index, len(ys))
        if markers:
            style["marker"] = MARKERS[index % len(MARKERS)]
        ax.plot(x, y, label=name, **style)
        if bands and name in bands:
            ax.fill_between(x, *bands[name], color=style["color"], alpha=0.2, linewidth=0)
    return ax


def intervals(
    names: Sequence[str],
    centre: Array,
    lower: Array,
    upper: Array,
    *,
    reference: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One dot with an error bar per name, top to bottom."""
    ax = plt.gca() if ax is None else ax
    rows = np.arange(len(names))[::-1]
    spread = np.array([centre - lower, upper - centre]).clip(0)
    for name, row, middle, ends in zip(names, rows, centre, spread.T, strict=True):
        colour = colour_of(name) or shades(1)[0]
        ax.errorbar(
            middle, row, xerr=ends[:, None], fmt="o", color=colour, ms=3, lw=0.8, capsize=1.5
        )
    ax.set_yticks(rows, names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    if reference is not None:
        ax.axvline(reference, color="0.5", lw=0.6, ls=":")
    return ax


def category_map(
    codes: Array,
    names: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    *,
    annotations: Iterable[tuple[int, int, str]] = (),
    hatched: ObsMask | None = None,
    letters: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Cells (len(y), len(x)) in the colours of their categories, with text where it is given.

    hatched : (len(y), len(x)) cells to pale and hatch (what is not decided, say).
    letters : one for each name, for the legend beside the map.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch, Rectangle

    ax = plt.gca() if ax is None else ax
    own = shades(len(names))
    palette = np.array([to_rgb(colour_of(name) or own[i]) for i, name in enumerate(names)])
    undecided = np.zeros(np.shape(codes), bool) if hatched is None else np.asarray(hatched)
    opaque = np.where(undecided, 0.25, 0.6)[..., None]
    ax.imshow(
        1 - opaque * (1 - palette[codes]), origin="lower", aspect="auto", interpolation="nearest"
    )
    for row, column in np.argwhere(undecided):
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="///", ec="0.65", lw=0))
    for row, column, text in annotations:
        ax.text(column, row, text, ha="center", va="center", fontsize=5.5, linespacing=1.0)
    ax.set_xticks(*_places(np.asarray(x, float)))
    every = -(-len(y) // 6)
    ax.set_yticks(range(0, len(y), every), [f"{v:.3g}" for v in y[::every]])
    told = letters or [""] * len(names)
    labels = [f"{letter}: {name}" if letter else name for letter, name in zip(told, names)]
    used = [i for i in range(len(names)) if np.any(codes == i)]
    shown = [Patch(color=1 - 0.6 * (1 - palette[i]), label=labels[i]) for i in used]
    ax.legend(handles=shown, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _places(x: Array) -> tuple[list[float], list[str]]:
    """Ticks of cells: at the decades where x, but for a 0 in front, spans some evenly."""
    first = int(x[0] == 0)
    steps = np.diff(np.log10(x[first:])) if len(x) > first + 1 and x[first] > 0 else np.zeros(0)
    if len(steps) == 0 or not np.allclose(steps, steps[0]) or steps.sum() < 2:
        every = -(-len(x) // 7)
        return list(range(0, len(x), every)), [f"{v:.3g}" for v in x[::every]]
    low, high = np.log10(x[first]), np.log10(x[-1])
    decades = np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1)
    at = first + (decades - low) / steps[0]
    zero = [(0.0, "0")] if first else []
    both = [*zero, *((float(a), f"$10^{{{d:.0f}}}$") for a, d in zip(at, decades, strict=True))]
    return [a for a, _ in both], [name for _, name in both]


def decimal_ticks(ax: Axes, axis: str = "y") -> None:
    """A few values of each decade, written as decimals: for log axes of few decades, drawn on."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    chosen = ax.yaxis if axis == "y" else ax.xaxis
    low, high = chosen.get_view_interval()
    subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high < 10 * low else (1.0, 2.0, 5.0)
    even = high < 3 * low
    chosen.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if even else LogLocator(subs=subs))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_formatter(NullFormatter())


def one_path(values: Array, path: int) -> Array:
    if values.ndim < 2:
        raise ValueError(f"data must have shape (..., T, p), got {values.shape}")
    return values if values.ndim == 2 else values.reshape(-1, *values.shape[-2:])[path]
