"""AFA of isotropic models through the attention form: O(T d) memory, the cost of attention.

A = -mu I + skew, Q = sigma^2 I, and C invertible with C^-1 R C^-T = eta^2 I (and Gam alike): in
coordinates where the skew part turns planes, q = anchors, k = v = observations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.threads import available_threads
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.linear_time.bank import (
    IsotropicParameters,
    drift_path,
    isotropic_parameters,
)
from afafilter.adaptive.linear_time.filter import linear_time_estimate
from afafilter.adaptive.run import Outcome, Settings, move_anchor, own_observation
from afafilter.attention.heads import AttentionResult, Request, isotropic
from afafilter.attention.inputs import Inputs, known_keys
from afafilter.attention.law import Law, law_of
from afafilter.models.sde import LinearSDE


class Isotropic(NamedTuple):
    """The isotropic form of a model: observed state = C^-1 (z - b) with noise eta^2 I.

    state_model : the model of those observed states; anchor_var : gamma^2.
    """

    parameters: IsotropicParameters
    state_model: LinearSDE
    anchor_var: float
    C_inv: Array


class Spans(NamedTuple):
    """stamps (T,), times (Tq,) of queries; split (Tq,): how many observations are a query's past;
    own (Tq,) its own one or -1; causal; window: how many on each side, or None; on_grid.
    """

    stamps: Array
    times: Array
    split: Index
    own: Index
    causal: bool
    window: int | None
    on_grid: bool


def isotropic_form(model: LinearSDE, anchor_cov: Array | None) -> Isotropic | None:
    """The isotropic form of a model with query noise anchor_cov (p, p), or None if it has none."""
    p, d = model.C.shape
    if p != d or np.linalg.matrix_rank(model.C) < d:
        return None
    C_inv = np.asarray(np.linalg.inv(model.C))
    gamma = np.zeros((d, d)) if anchor_cov is None else C_inv @ anchor_cov @ C_inv.T
    if np.abs(gamma - gamma[0, 0] * np.eye(d)).max() > 1e-14 * d * np.abs(gamma).max():
        return None
    R = C_inv @ model.R @ C_inv.T
    observed = replace(model, R=0.5 * (R + R.T), C=None, offset=None, prior="diffuse")  # type: ignore[arg-type]
    parameters = isotropic_parameters(observed)
    if parameters is None:
        return None
    return Isotropic(parameters, observed, float(gamma[0, 0]), C_inv)


def run_isotropic(
    model: LinearSDE, form: Isotropic, spans: Spans, z: Array, settings: Settings
) -> Outcome:
    """AFA of all paths z (P, T, p); rows are complete or wholly missing."""
    at = form.parameters
    origin = spans.stamps[0]

    def turned(x: Array, t: Array) -> Array:
        x = x - drift_path(model.drift, at.decay, at.frequency, at.basis, t - origin)
        return x if at.basis is None else x @ at.basis

    keys = turned((z - model.offset) @ form.C_inv.T, spans.stamps)

    here = spans.on_grid and model.delay == 0.0  # queries are the observations themselves

    parameters = {
        "decay": np.asarray(at.decay), "value_decay": np.asarray(at.decay),
        "process_var": np.asarray(at.process_var), "key_var": np.asarray(at.obs_var),
        "query_var": np.asarray(form.anchor_var), "beta": np.asarray(settings.beta),
        "omega": at.frequency, "omega_value": at.frequency,
    }  # fmt: skip
    sources = Sources(
        keys, spans, parameters, law_of(settings.weight, model.dim), settings.return_weights
    )

    def attend(q: Array | None, past: Index, causal: bool) -> AttentionResult:
        return isotropic(sources.request(q, past, causal))

    own = keys if here else turned(own_observation(model, z, spans.own), spans.times)
    result, mean, change = anchored_attention(attend, own, spans, settings)
    mean = mean if at.basis is None else mean @ at.basis.T
    mean = mean + drift_path(model.drift, at.decay, at.frequency, at.basis, spans.times - origin)
    shared = weights_are_shared(z, settings)
    variance = inverse(result.precision[:1] if shared else result.precision)
    weights = result.weights
    if weights is not None and shared:
        weights = weights[:1]
    return Outcome(mean, _spread(variance, model.dim), weights, change)


class Sources(NamedTuple):
    """What stays the same from one round of attention to the next.

    keys (P, T, d) with missing rows NaN; parameters as in `attention.heads.Request`.
    """

    keys: Array
    spans: Spans
    parameters: dict[str, Array]
    law: Law
    return_weights: bool

    def request(self, q: Array | None, past: Index, causal: bool) -> Request:
        """One round with the anchors q (P, Tq, d), or plain weights."""
        spans, origin = self.spans, self.spans.stamps[0]
        inputs = Inputs(
            q, self.keys, self.keys, known_keys(None, self.keys), True, False,
            spans.stamps - origin, spans.times - origin, past,
        )  # fmt: skip
        return Request(
            inputs, self.keys.shape[:-2], self.parameters, Law() if q is None else self.law,
            None if causal else "exact", spans.window, 0.0, self.return_weights,
            available_threads(),
        )  # fmt: skip


def anchored_attention(
    attend: Callable[[Array | None, Index, bool], AttentionResult],
    own: Array,
    spans: Spans,
    settings: Settings,
) -> tuple[AttentionResult, Array, list[float]]:
    """Anchor and rounds of reweighting around attend(q, past, causal), q None = plain weights.

    own (P, Tq, d): each query's own observation, NaN where there is none.
    """

    def plain() -> AttentionResult:
        return attend(None, spans.split, spans.causal)

    if settings.weight is None and settings.step == 1.0 and settings.momentum == 0.0:
        result = plain()
        return result, result.output, []
    a = own if settings.anchor == "observation" else np.full_like(own, np.nan)
    if settings.anchor == "prediction":
        a = attend(None, settings.before, True).output
    missing = np.isnan(a).any(axis=-1, keepdims=True)
    if missing.any():
        a = np.where(missing, plain().output, a)

    def zbar(q: Array) -> tuple[AttentionResult, Array]:
        known = None
        if settings.weight is not None:
            unknown = np.isnan(q)
            known = np.where(unknown, 0.0, q) if unknown.any() else q
        result = attend(known, spans.split, spans.causal)
        return result, result.output

    return move_anchor(a, zbar, settings)


def weights_are_shared(z: Array, settings: Settings) -> bool:
    """Whether all paths z (P, T, p) have the same weights."""
    missing = np.isnan(z)
    return settings.weight is None and bool((missing == missing[:1]).all())


def inverse(precision: Array) -> Array:
    """1 / precision, inf where it is 0."""
    known = precision > 0
    return np.where(known, 1.0 / np.where(known, precision, 1.0), np.inf)


def run_linear(
    form: Isotropic, spans: Spans, model: LinearSDE, z: Array, method: str
) -> tuple[Outcome, float, str]:
    """Plain AFA in linear time or by FFT: the outcome, its error bound, and which it was."""
    found = linear_time_estimate(
        form.state_model, spans.stamps + model.delay, (z - model.offset) @ form.C_inv.T,
        two_sided=not spans.causal, anchor_var=form.anchor_var,
        query_times=None if spans.on_grid else spans.times, method=method,
    )  # fmt: skip
    variance = found.variance
    if (np.isnan(z) == np.isnan(z[:1])).all():
        variance = variance[:1]
    outcome = Outcome(found.mean, _spread(variance, model.dim), None)
    return outcome, found.error_bound, found.method


def _spread(variance: Array, d: int) -> Array:
    cov = np.zeros((*variance.shape, d, d))
    np.einsum("...aa->...a", cov)[...] = variance[..., None]
    return cov
