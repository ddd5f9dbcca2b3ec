"""Options of the adaptive estimators, checked once and held in one record; who sees what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, positive_int, scalar
from afafilter._base.signatures import refuse_idle
from afafilter.adaptive.geometry import Index
from afafilter.weights import Weight

ANCHORS = ("observation", "estimate", "prediction")
CORRELATIONS = ("independent", "exact")
METHODS = ("auto", "dense", "modal", "isotropic", "linear", "fft")


@dataclass(frozen=True, eq=False)
class Options:
    """Options as `adaptive_filter` describes them; those that need data are checked with it.

    Raises
    ------
    ValueError, TypeError
        Unknown words, values out of range.
    """

    causal: bool
    weight: Weight | None = None
    anchor: str = "observation"
    iterations: int = 1
    step: float = 1.0
    momentum: float = 0.0
    inverse_temperature: float = 1.0
    anchor_cov: ArrayLike | None = None
    correlation: str = "independent"
    method: str = "auto"
    obs_cov: ArrayLike | None = None
    query_times: ArrayLike | None = None
    window: int | None = None
    tolerance: float = 1e-10
    return_weights: bool = False
    calibrated: bool = False

    def __post_init__(self) -> None:
        choice(self.anchor, "anchor", ANCHORS)
        choice(self.correlation, "correlation", CORRELATIONS)
        choice(self.method, "method", METHODS)
        checked: dict[str, Any] = {
            "iterations": positive_int(self.iterations, "iterations"),
            "step": between(self.step, "step", low_open=True),
            "momentum": between(self.momentum, "momentum", low_open=False),
            "inverse_temperature": scalar(
                self.inverse_temperature, "inverse_temperature", low=0.0, strict=True
            ),
            "window": None if self.window is None else positive_int(self.window, "window"),
            "tolerance": scalar(self.tolerance, "tolerance", low=0.0),
            "return_weights": bool(self.return_weights),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.exact and self.inverse_temperature != 1.0:
            raise ValueError(
                "inverse_temperature must be 1 with correlation='exact', "
                f"got {self.inverse_temperature:g}; joint errors have one likelihood"
            )
        if self.exact and self.method not in ("auto", "dense"):
            raise ValueError(f"correlation='exact' has no method {self.method!r}; use 'auto'")
        if self.exact and self.plain and self.calibrated:
            raise ValueError(
                "calibrated=True would change nothing with correlation='exact': its covariance is "
                "that of its errors already; leave it out"
            )

    def require_use(self) -> None:
        """ValueError where what is asked for would change nothing: anchors that nothing moves."""
        still = self.anchor == "estimate"  # of plain weights: the plain estimate from the start
        if self.rests or (still and self.weight is None):
            given = {
                "anchor": (self.anchor, "observation" if self.rests else self.anchor),
                "iterations": (self.iterations, 1),
                "step": (self.step, 1.0),
                "momentum": (self.momentum, 0.0),
                "tolerance": (self.tolerance, 1e-10),
            }
            refuse_idle(self.weight, given)
        if self.momentum and self.iterations == 1:
            raise ValueError(
                f"momentum={self.momentum:g} would change nothing with iterations=1: it counts "
                "from the second round on; give iterations=50, for instance"
            )

    @property
    def exact(self) -> bool:
        """Whether the joint law of the errors is used."""
        return self.correlation == "exact"

    @property
    def rests(self) -> bool:
        """Whether the anchor moves all the way in one step: then only a weight needs an anchor."""
        return self.step == 1.0 and self.momentum == 0.0

    @property
    def plain(self) -> bool:
        """Whether all pairs count by their precision alone, in one round."""
        return self.weight is None and self.inverse_temperature == 1.0 and self.rests


class Spans(NamedTuple):
    """Times since the first one, and which observations a query sees.

    stamps : (T,) that the observations show; times : (Tq,) of the queries; split (Tq,) : how many
    observations are a query's past; before (Tq,) : how many lie before its own; own (Tq,) its own
    one or -1; window : how many count on each side, or None; on_grid : whether queries are the
    observations' times.
    """

    stamps: Array
    times: Array
    split: Index
    before: Index
    own: Index
    causal: bool
    window: int | None
    on_grid: bool

    def at(self, some: Any) -> Spans:
        """Some of the queries, as times of their own."""
        picked = {k: getattr(self, k)[some] for k in ("times", "split", "before", "own")}
        return self._replace(**picked, on_grid=False)


def make_spans(grid: Array, queries: Array | None, delay: float, options: Options) -> Spans:
    """Spans of observations at `grid` and of queries, None: the same times.

    Differences are taken first: they are exact where the stamps resolve them.
    """
    n, causal, on_grid = len(grid), options.causal, queries is None
    since = grid - grid[0]
    stamps = since - delay if delay else since
    if queries is None:
        before = own = np.arange(n)
        split, asked = np.arange(1, n + 1), since
    else:
        split = np.searchsorted(grid, queries, side="right")
        before = np.searchsorted(grid, queries, side="left")
        own, asked = np.full(len(queries), -1), queries - grid[0]
    if not causal and delay > 0:
        split = np.searchsorted(stamps, asked, side="right")
    return Spans(stamps, asked, split, before, own, causal, options.window, on_grid)


def between(value: Any, name: str, *, low_open: bool) -> float:
    """A number in (0, 1] or in [0, 1)."""
    x = scalar(value, name, low=0.0, strict=low_open)
    if x > 1.0 or (x == 1.0 and not low_open):
        raise ValueError(f"{name} must be {'<=' if low_open else '<'} 1, got {x:g}")
    return x
