"""A film of attention: what every past observation says of the present, and its weight."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from afafilter._base.checks import Array, observations, positive_int, real_array, times
from afafilter._base.containers import chosen_unit, take
from afafilter._base.normal import half_width
from afafilter.adaptive.estimators import adaptive_filter
from afafilter.adaptive.forms import is_invertible
from afafilter.adaptive.pulling import pull_forward
from afafilter.io.files import atomic_path
from afafilter.models.sde import LinearSDE
from afafilter.plotting.colours import COLOURS, shades
from afafilter.plotting.drawing import one_path
from afafilter.plotting.film import Stage, film_path, pictures, write_gif, write_mp4
from afafilter.plotting.styles import figure, paper_style

DOTS_PER_INCH = 110
LEVEL = 0.95
"""Of the estimate's region."""
LARGEST = 60.0
"""Area in points^2 of the mark of the heaviest observation."""


class Scene(NamedTuple):
    """What is shown: observations, at each frame estimate and weights, and all estimates (T, d)."""

    model: LinearSDE
    t: Array
    z: Array
    truth: Array | None
    frames: NDArray[np.intp]
    mean: Array
    cov: Array
    share: Array
    track: Array


def animate(
    file: str | Path,
    model: LinearSDE,
    t: Any,
    z: Any,
    *,
    truth: Any = None,
    path: int = 0,
    components: tuple[int, int] = (0, 1),
    frames: int = 120,
    fps: int = 12,
    force: bool = False,
    **options: Any,
) -> Path:
    """Film adaptive filter attention at work and write a GIF or an MP4.

    Each frame is a query. Left: the path so far, the observations, what each of them says of the
    present once it is pulled forward (the larger and darker, the more weight), and the estimate
    with its 95 % region. Right: the weights over the times of the observations.

    With at least two states of which one observation tells all (C invertible) the left picture is
    a plane. Otherwise it is over time; where C is not invertible a single observation cannot be
    pulled forward to a state, and the observations themselves are drawn by their weight.

    Parameters
    ----------
    file : str or Path
        Ends in .gif (written by Pillow, which comes with matplotlib) or .mp4 (needs ffmpeg).
    model : LinearSDE
    t, z : array_like, shapes (T,) and (..., T, p)
        Times and observations; missing ones are NaN.
    truth : array_like, shape (..., T, d), optional
        The states, where they are known.
    path : int
        Which one when there are several.
    components : tuple of int
        The two states of the plane; over time, the first is the observed value that is drawn.
    frames : int
        At most, evenly chosen of the T times.
    fps : int
        Frames per second.
    force : bool
        Whether a file that exists may be replaced.
    **options
        Of `adaptive_filter`: weight, anchor, iterations, inverse_temperature, window, ...

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError, TypeError
        Another suffix, fewer than two observations, components that are not there, options that
        give no attention (`correlation="exact"`), and what `adaptive_filter` refuses.
    FileExistsError
        If the file exists and `force` is False.
    FileNotFoundError
        MP4 without ffmpeg.

    Examples
    --------
    >>> from afafilter import plotting, simulate, spiral
    >>> model = spiral(process_var=0.1)
    >>> data = simulate(model, 0.1 * np.arange(60), 1, rng=0, x0=[20.0, 0.0])
    >>> film = plotting.animate("attention.gif", model, data.t, data.z,
    ...                         truth=data.x)  # doctest: +SKIP
    """
    target = film_path(file)
    count = positive_int(frames, "frames", low=2)
    positive_int(fps, "fps")
    if options.get("correlation") == "exact":
        raise ValueError("correlation='exact' has no attention to show: leave it out")
    scene = _scene(model, t, z, truth, path, count, options)
    pulled = is_invertible(model)
    plane = pulled and model.dim >= 2
    _check_components(components, model.dim if plane else model.obs_dim, 2 if plane else 1)
    with atomic_path(target, force=force) as temporary, paper_style():
        fig, (left, right) = figure(1, 2, width=7.0, height=3.2, dpi=DOTS_PER_INCH)
        try:
            shown = (
                _plane(left, scene, components)
                if plane
                else _over_time(left, scene, components[0], pulled)
            )
            moving = pictures(fig, len(scene.frames), (shown, _weights(right, scene)))
            write = write_gif if target.suffix.lower() == ".gif" else write_mp4
            write(temporary, moving, fps)
        finally:
            plt.close(fig)
    return target


def _scene(
    model: LinearSDE, t: Any, z: Any, truth: Any, path: int, count: int, options: dict[str, Any]
) -> Scene:
    """The estimates and normalised weights of the frames."""
    if not isinstance(model, LinearSDE):
        raise TypeError(f"model must be a LinearSDE, got {type(model).__name__}")
    t, z, _ = take(t, z, chosen_unit(model, None), obs_dim=model.obs_dim)
    grid = times(t)
    if len(grid) < 2:
        raise ValueError(f"t must hold at least two times, got {len(grid)}")
    seen = one_path(observations(z, len(grid), model.obs_dim), path)
    if np.isnan(seen).all():
        raise ValueError("z holds no observation: every value is missing")
    known = None if truth is None else one_path(real_array(truth, "truth", allow_nan=True), path)
    if known is not None and known.shape != (len(grid), model.dim):
        raise ValueError(
            f"truth must have shape {(len(grid), model.dim)}, one row a time, got {known.shape}"
        )
    chosen = np.unique(np.linspace(0, len(grid) - 1, count).round().astype(int))
    found = adaptive_filter(
        model, grid, seen, query_times=grid[chosen], return_weights=True, **options
    )
    assert found.weights is not None
    weights = np.where(np.isfinite(found.weights), found.weights, 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said above
        track = adaptive_filter(model, grid, seen, **options).mean
    return Scene(model, grid, seen, known, chosen, found.mean, found.cov, share, track)


def _check_components(components: Any, d: int, needed: int) -> None:
    given = tuple(components)[:needed]
    if len(given) < needed or len(set(given)) < needed or not all(0 <= k < d for k in given):
        what = "two different states" if needed == 2 else "an observed value"
        raise ValueError(f"components must be {what} of {d} (0 to {d - 1}), got {components}")


def _plane(ax: Any, scene: Scene, components: Any) -> Stage:
    """The plane of two states."""
    a = list(components)[:2]
    model = scene.model
    direct = np.linalg.solve(model.C, (scene.z - model.offset).T).T[:, a]
    known = None if scene.truth is None else scene.truth[:, a]
    settled: Array = scene.track[len(scene.track) // 8 :, a]
    _limits(ax, direct, settled if known is None else np.concatenate([settled, known]))
    (line,) = ax.plot([], [], color=COLOURS["truth"], lw=0.8, label="truth")
    (track,) = ax.plot([], [], color=COLOURS["AFA"], lw=0.8, label="estimate so far")
    (dots,) = ax.plot([], [], ".", ms=3, color=COLOURS["data"], label="observations")
    cloud = ax.scatter([], [], color=shades(1), lw=0, label="pulled to the present")
    (region,) = ax.plot([], [], color=COLOURS["AFA"], lw=1.0, label=f"{100 * LEVEL:g} % region")
    (now,) = ax.plot([], [], "o", ms=4, color=COLOURS["AFA"], mec="white", mew=0.6)
    if known is None:
        line.set_label("_")
    ax.set(xlabel=f"state {a[0]}", ylabel=f"state {a[1]}")
    _legend(ax)
    turn = np.linspace(0, 2 * np.pi, 60)
    circle = np.sqrt(-2 * np.log1p(-LEVEL)) * np.stack([np.cos(turn), np.sin(turn)])

    def update(k: int) -> None:
        i = int(scene.frames[k])
        if known is not None:
            line.set_data(*known[: i + 1].T)
        track.set_data(*scene.track[: i + 1, a].T)
        dots.set_data(*direct[: i + 1].T)
        _draw_cloud(cloud, _pulled(scene, i)[:, a], scene.share[k, : i + 1])
        mean, cov = scene.mean[k, a], scene.cov[k][np.ix_(a, a)]
        now.set_data(*mean[:, None])
        ring = np.full((2, 1), np.nan)
        if np.isfinite(cov).all():
            values, vectors = np.linalg.eigh(cov)
            ring = mean[:, None] + vectors @ (np.sqrt(values.clip(0))[:, None] * circle)
        region.set_data(*ring)

    return Stage((line, track, dots, cloud, region, now), update)


def _over_time(ax: Any, scene: Scene, a: int, pulled: bool) -> Stage:
    """One observed value over time."""
    t, h, offset = scene.t, scene.model.C[a], scene.model.offset[a]
    signal, whole = (states @ h + offset for states in (scene.mean, scene.track))
    spread = np.sqrt(np.einsum("i,kij,j->k", h, scene.cov, h))
    half = half_width(LEVEL) * np.where(np.isfinite(spread), spread, np.nan)
    known = None if scene.truth is None else scene.truth @ h + offset
    settled = whole[len(whole) // 8 :, None]
    _limits(ax, scene.z[:, [a]], settled if known is None else np.vstack([settled, known[:, None]]))
    ax.set_xlim(t[0], t[-1] + 0.02 * (t[-1] - t[0]))
    (line,) = ax.plot([], [], color=COLOURS["truth"], lw=0.8, label="truth")
    (dots,) = ax.plot([], [], ".", ms=3, color=COLOURS["data"], label="observations")
    told = "pulled to the present" if pulled else "observations by weight"
    cloud = ax.scatter([], [], color=shades(1), lw=0, label=told)
    (track,) = ax.plot([], [], color=COLOURS["AFA"], lw=1.0, label="estimate so far")
    look = {"fmt": "o", "ms": 4, "color": COLOURS["AFA"], "mec": "white", "mew": 0.6}
    told = f"now, {100 * LEVEL:g} %"
    bar = ax.errorbar([t[0]], [np.nan], yerr=[0.0], label=told, **look)
    if known is None:
        line.set_label("_")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel="time", ylabel=f"observed value {a}")
    _legend(ax)

    def update(k: int) -> None:
        i = int(scene.frames[k])
        if known is not None:
            line.set_data(t[: i + 1], known[: i + 1])
        dots.set_data(t[: i + 1], scene.z[: i + 1, a])
        track.set_data(t[: i + 1], whole[: i + 1])
        at = np.full(i + 1, t[i]) if pulled else t[: i + 1]
        y = _pulled(scene, i) @ h + offset if pulled else scene.z[: i + 1, a]
        _draw_cloud(cloud, np.column_stack([at, y]), scene.share[k, : i + 1])
        bar[0].set_data([t[i]], [signal[k]])
        ends = np.array([[t[i], signal[k] - half[k]], [t[i], signal[k] + half[k]]])
        bar[2][0].set_segments([ends] if np.isfinite(ends).all() else [])

    return Stage((line, dots, cloud, track, bar[2][0], bar[0]), update)


def _weights(ax: Any, scene: Scene) -> Stage:
    """The weights of a query over the times of the observations."""
    t = scene.t
    late = scene.share[len(scene.share) // 2 :].max(axis=1)
    ax.set(
        xlim=(t[0] - 0.01 * (t[-1] - t[0]), t[-1] + 0.02 * (t[-1] - t[0])),
        ylim=(0, 1.1 * float(late.max()) or 1.0),
        xlabel="time of the observation",
        ylabel="share of the estimate",
    )
    ax.xaxis.set_major_locator(MaxNLocator(5))
    bars = ax.vlines([], [], [], color=shades(1)[0], lw=max(0.4, min(2.0, 200 / len(t))))
    present = ax.axvline(t[0], color=COLOURS["AFA"], lw=0.8, ls=":")
    heading = ax.set_title(" ", loc="left")

    def update(k: int) -> None:
        i = int(scene.frames[k])
        share = scene.share[k, : i + 1]
        ends = np.stack([np.zeros(i + 1), share], axis=1)
        bars.set_segments(np.stack([np.repeat(t[: i + 1, None], 2, axis=1), ends], axis=-1))
        present.set_xdata([t[i], t[i]])
        squares = float((share**2).sum())
        worth = f", worth {1 / squares:.0f} equal ones" if squares > 0 else ""
        heading.set_text(f"t = {t[i]:.4g}: {int((share > 0).sum())} observations{worth}")

    return Stage((bars, present, heading), update)


def _pulled(scene: Scene, i: int) -> Array:
    """The states that the observations up to i say at the time of i (i + 1, d)."""
    whole = np.where(np.isnan(scene.z).any(axis=1, keepdims=True), np.nan, scene.z)
    return pull_forward(scene.model, scene.t[: i + 1], whole[: i + 1], float(scene.t[i])).mean


def _draw_cloud(cloud: Any, places: Array, share: Array) -> None:
    """Marks whose area and opacity are the share over the largest one."""
    top = float(share.max()) if len(share) else 0.0
    relative = share / top if top > 0 else np.zeros_like(share)
    cloud.set_offsets(places)
    cloud.set_sizes(4.0 + (LARGEST - 4.0) * relative)
    colours = np.tile(to_rgba(shades(1)[0]), (len(places), 1))
    colours[:, 3] = 0.06 + 0.6 * relative
    cloud.set_facecolors(colours)


def _limits(ax: Any, seen: Any, certain: Any) -> None:
    """Around nearly all observations, all estimates and the truth; a plane has equal scales."""
    rows = certain[np.isfinite(certain).all(axis=1)]
    low, high = (np.nanquantile(seen, q, axis=0) for q in (0.02, 0.98))
    if len(rows):
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    half = 0.62 * np.maximum(high - low, 1e-9)
    middle = (low + high) / 2
    if len(middle) == 2:
        half[:] = half.max()
        ax.set(xlim=(middle[0] - half[0], middle[0] + half[0]), aspect="equal")
    ax.set_ylim(middle[-1] - half[-1], middle[-1] + half[-1])


def _legend(ax: Any) -> None:
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=6)
