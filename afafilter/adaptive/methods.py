"""Checks of the adaptive estimators' arguments, and the choice of a method."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, covariance, is_definite, scalar
from afafilter.adaptive.dense import make_plan
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.isotropic import Isotropic, Spans, isotropic_form, run_isotropic, run_linear
from afafilter.adaptive.linear_time.filter import OutOfReachError
from afafilter.adaptive.modal import modal_form, run_modal, tempers_exactly
from afafilter.adaptive.run import Outcome, Settings, run_dense
from afafilter.models.sde import LinearSDE

LINEAR_FROM = 4096
"""Number of observations from which "auto" takes linear time for plain isotropic AFA."""

MODAL_PATHS = 8
"""Number of paths on a regular grid up to which plain weights go mode by mode (measured)."""

LINEAR_TOLERANCE = 1e-9
"""Relative error that "auto" accepts of the sum of exponentials."""


def run_method(
    method: str, model: LinearSDE, spans: Spans, settings: Settings, z: Array, R: Array,
    gamma: Array | None, *, uniform_noise: bool,
) -> tuple[Outcome, dict[str, Any]]:  # fmt: skip
    """AFA of the paths z (P, T, p) by the method asked for, and what to tell about it."""
    if settings.exact and method not in ("auto", "dense"):
        raise ValueError(f"correlation='exact' has no method {method!r}; use 'auto'")
    missing = np.isnan(z)
    whole = bool((missing.all(axis=-1) == missing.any(axis=-1)).all())
    plain = settings.weight is None and settings.beta == 1.0 and settings.step == 1.0
    plain = plain and settings.momentum == 0.0
    if method not in ("auto", "dense") and not (uniform_noise and whole):
        raise ValueError(
            f"method {method!r} needs rows of z that are complete or wholly missing, and no "
            "obs_cov; use method='dense' or 'auto'"
        )
    general = settings.exact or not uniform_noise or not whole
    if method != "dense" and method != "modal" and not general:
        form = isotropic_form(model, gamma)
        if form is not None:
            bare = plain and spans.window is None and not settings.return_weights
            return _run_isotropic(method, model, form, spans, settings, z, bare)
        if method != "auto":
            raise ValueError(
                f"method {method!r} needs an isotropic model: A = -mu I + skew with mu >= 0; Q, "
                "C^-1 R C^-T and C^-1 anchor_cov C^-T multiples of the identity"
            )
    if method == "modal" or (method == "auto" and not general and _modes_pay(spans, len(z), plain)):
        modes = modal_form(model, gamma)
        if modes is not None and settings.beta != 1.0 and not tempers_exactly(modes):
            modes = None
        if modes is not None:
            return run_modal(model, modes, spans, z, settings), {"method": "modal"}
        if method == "modal":
            raise ValueError(
                "method 'modal' needs A, Q, C^-1 R C^-T and C^-1 anchor_cov C^-T that share their "
                "eigenvectors, no growing modes, and for inverse_temperature != 1 only planes or "
                "only real modes; use method='dense' or 'auto'"
            )
    last = spans.split if spans.causal else np.full_like(spans.split, len(spans.stamps))
    plan = make_plan(
        model, spans.stamps, spans.times, np.zeros_like(spans.split), last, spans.own, R, gamma,
        uniform_noise,
    )  # fmt: skip
    window = None if spans.window is None else (spans.split, spans.window)
    return run_dense(plan, z, settings, window), {"method": "dense"}


def _modes_pay(spans: Spans, n_paths: int, plain: bool) -> bool:
    """Whether modes beat full matrices, which serve all paths at once when weights are plain."""
    return not plain or n_paths <= MODAL_PATHS


def _run_isotropic(
    method: str, model: LinearSDE, form: Isotropic, spans: Spans, settings: Settings, z: Array,
    bare: bool,
) -> tuple[Outcome, dict[str, Any]]:  # fmt: skip
    if method in ("linear", "fft") and not bare:
        raise ValueError(
            f"method {method!r} needs plain weights: weight=None, inverse_temperature=1, step=1, "
            "no window, return_weights=False"
        )
    if method in ("linear", "fft") or (
        method == "auto" and bare and len(spans.stamps) >= LINEAR_FROM
    ):
        try:
            outcome, bound, used = run_linear(form, spans, model, z, method)
        except OutOfReachError:
            if method != "auto":
                raise
        else:
            if method != "auto" or bound <= LINEAR_TOLERANCE:
                return outcome, {"method": used, "error_bound": bound}
    return run_isotropic(model, form, spans, z, settings), {"method": "isotropic"}


def past(
    grid: Array, queries: Array, delay: float, on_grid: bool, causal: bool
) -> tuple[Index, Index]:
    """How many observations each query may use as its past, and how many before its own."""
    if on_grid:
        present, before = np.arange(1, len(grid) + 1), np.arange(len(grid))
    else:
        present = np.searchsorted(grid, queries, side="right")
        before = np.searchsorted(grid, queries, side="left")
    if not causal and delay > 0:
        present = np.searchsorted(grid - delay, queries, side="right")
    return present, before


def require_definite(R: Array) -> None:
    if not is_definite(R):
        smallest = np.linalg.eigvalsh(R)[0]
        raise ValueError(
            "R must be positive definite for adaptive estimators, got a singular matrix "
            f"(smallest eigenvalue {smallest:.3g}); give R a small positive variance"
        )


def between(value: Any, name: str, *, low_open: bool, high: float, high_open: bool) -> float:
    x = scalar(value, name, low=0.0, strict=low_open)
    if x > high or (high_open and x == high):
        raise ValueError(f"{name} must be {'<' if high_open else '<='} {high:g}, got {x:g}")
    return x


def query_noise(model: LinearSDE, anchor_cov: ArrayLike | None) -> Array | None:
    if anchor_cov is None:
        return None
    p, d = model.C.shape
    gamma = covariance(anchor_cov, "anchor_cov", (p, p))
    if p != d or np.linalg.matrix_rank(model.C) < d:
        raise ValueError(
            f"anchor_cov needs an invertible C, got C of shape {(p, d)} and rank "
            f"{np.linalg.matrix_rank(model.C)}"
        )
    return gamma if gamma.any() else None


def check_exact(settings: Settings, gamma: Array | None) -> None:
    if settings.beta != 1.0:
        raise ValueError(
            "inverse_temperature must be 1 with correlation='exact', "
            f"got {settings.beta:g}; joint errors have one likelihood"
        )
    if gamma is not None and settings.weight is None:
        raise ValueError(
            "anchor_cov enters correlation='exact' through the distances of a robust weight; "
            "give a weight, or use correlation='independent'"
        )
