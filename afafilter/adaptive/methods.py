"""Checks of options against the model, and the choice of a method."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from afafilter._base.checks import Array, all_finite, covariance, is_definite
from afafilter._base.doubts import LostDigits
from afafilter._base.patterns import whole_rows
from afafilter._base.progress import waiting
from afafilter._base.remembered import remembered
from afafilter.adaptive.attended import run_isotropic, run_linear, run_modal
from afafilter.adaptive.dense import make_plan
from afafilter.adaptive.forms import (
    Isotropic,
    is_invertible,
    isotropic_form,
    modal_form,
)
from afafilter.adaptive.last_digits import warn_of_lost_digits
from afafilter.adaptive.linear_time.filter import OutOfReachError
from afafilter.adaptive.options import Options, Spans
from afafilter.adaptive.record_length import warn_if_long
from afafilter.adaptive.run import Outcome, run_dense
from afafilter.linalg.subspaces import rank_of
from afafilter.models.sde import LinearSDE

LINEAR_FROM = 4096
"""Number of observations from which "auto" takes linear time for plain isotropic AFA."""

MODAL_PATHS = 8
"""Number of paths on a regular grid up to which plain weights go mode by mode (measured)."""

LINEAR_TOLERANCE = 1e-9
"""Relative error that "auto" accepts of the sum of exponentials."""

ROUGH = 1e-6
"""Relative error of a sum of exponentials that was asked for from which it is warned of."""

MANY_PAIRS = 7e7
"""Pairs of times, times paths and rounds, from which full matrices take seconds."""


def run_method(
    model: LinearSDE, spans: Spans, options: Options, z: Array, R: Array, gamma: Array | None
) -> tuple[Outcome, dict[str, Any]]:
    """AFA of the paths z (P, T, p) by the method asked for, and what to tell about it."""
    method, uniform_noise = options.method, options.obs_cov is None
    complete = all_finite(z)
    whole = complete or whole_rows(z)
    if method not in ("auto", "dense") and not (uniform_noise and whole):
        raise ValueError(
            f"method {method!r} needs rows of z that are complete or wholly missing, and no "
            "obs_cov; use method='dense' or 'auto'"
        )
    general = options.exact or not uniform_noise or not whole
    if method not in ("dense", "modal") and not general:
        form = isotropic_form(model, gamma)
        if form is not None:
            if options.window is None:
                n_seen = z.shape[1]
                if not complete:
                    n_seen = int((~np.isnan(z).all(axis=-1)).sum(axis=-1).max(initial=0))
                warn_if_long(model, form, spans.stamps, n_seen, options.inverse_temperature)
            return _run_isotropic(model, form, spans, options, z)
        if method != "auto":
            raise ValueError(
                f"method {method!r} needs an isotropic model, once its noise is whitened: with "
                "C^-1 R C^-T = L L^T, L^-1 A L = -mu I + skew with mu >= 0, and L^-1 Q L^-T and "
                "the whitened anchor_cov multiples of the identity; use method='auto'"
            )
    if method == "modal" or (
        method == "auto" and not general and (not options.plain or len(z) <= MODAL_PATHS)
    ):
        modes = modal_form(model, gamma)
        if modes is not None and options.inverse_temperature != 1.0 and np.ptp(modes.real):
            modes = None  # det(P)^{1/d} of padded modes is not right
        if modes is not None:
            return run_modal(model, modes, spans, z, options), {"method": "modal"}
        if method == "modal":
            raise ValueError(
                "method 'modal' needs A, Q, C^-1 R C^-T and C^-1 anchor_cov C^-T that share their "
                "eigenvectors, no growing modes, and for inverse_temperature != 1 only planes or "
                "only real modes; use method='dense' or 'auto'"
            )
    with waiting("AFA by full matrices", _cheaper(spans, options, z)):
        noise = np.broadcast_to(R, (z.shape[1], *R.shape[-2:]))
        plan = make_plan(model, spans, noise, gamma, uniform_noise)
        outcome = run_dense(plan, z, options)
        warn_of_lost_digits(plan, outcome, z, options, gamma)
        return outcome, {"method": "dense"}


def _cheaper(spans: Spans, options: Options, z: Array) -> str:
    """What to say before work that will take seconds: a window makes it linear in the length."""
    rounds = len(z) * (min(options.iterations, 8) if options.weight is not None else 1)
    pairs = len(spans.times) * len(spans.stamps) * rounds
    if spans.window is not None or pairs < MANY_PAIRS:
        return ""
    return (
        f"AFA weighs {pairs:.2g} pairs of times here; window=100 takes the nearest ones only, in "
        "far less time"
    )


def _run_isotropic(
    model: LinearSDE, form: Isotropic, spans: Spans, options: Options, z: Array
) -> tuple[Outcome, dict[str, Any]]:
    method, long = options.method, len(spans.stamps) >= LINEAR_FROM
    asked = method in ("linear", "fft")
    bare = options.plain and spans.window is None and not options.return_weights
    if asked and not bare:
        raise ValueError(
            f"method {method!r} needs plain weights: weight=None, inverse_temperature=1, step=1, "
            "no window, return_weights=False"
        )
    if asked or (method == "auto" and bare and long):
        try:
            outcome, bound, used = run_linear(form, spans, model, z, method)
        except OutOfReachError:
            if asked:
                raise
        else:
            if asked and bound > ROUGH:
                warnings.warn(
                    f"method {method!r} misses the weights of this model by up to {bound:.0e} of "
                    "themselves over these lags; use method='isotropic'",
                    LostDigits,
                    stacklevel=2,
                )
            if asked or bound <= LINEAR_TOLERANCE:
                return outcome, {"method": used, "error_bound": bound}
    return run_isotropic(model, form, spans, z, options), {"method": "isotropic"}


def query_noise(model: LinearSDE, options: Options) -> Array | None:
    """anchor_cov (p, p), checked against the model; None where there is none.

    Raises
    ------
    ValueError, TypeError
        No covariance, a C that is not invertible, nothing that it could act on.
    """
    if options.anchor_cov is None:
        return None
    p, d = model.C.shape
    gamma = covariance(options.anchor_cov, "anchor_cov", (p, p))
    if not is_invertible(model):
        raise ValueError(
            f"anchor_cov needs an invertible C, got C of shape {(p, d)} and rank {rank_of(model.C)}"
        )
    if not gamma.any():
        return None
    if options.exact and options.weight is None:
        raise ValueError(
            "anchor_cov enters correlation='exact' through the distances of a robust weight; "
            "give a weight, or use correlation='independent'"
        )
    return gamma


def require_definite(model: LinearSDE) -> None:
    """ValueError where R is singular: a pair's precision would not exist."""
    if not remembered(model, "definite", lambda: is_definite(model.R)):
        smallest = np.linalg.eigvalsh(model.R)[0]
        raise ValueError(
            "R must be positive definite for adaptive estimators, got a singular matrix "
            f"(smallest eigenvalue {smallest:.3g}); give R a small positive variance"
        )
