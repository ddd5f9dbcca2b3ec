"""AFA of isotropic and of modal models through the attention form: O(T d) memory.

In the coordinates of the model's form (`forms`), where the skew part of the dynamics turns planes:
q = anchors, k = v = observations. Isotropic attention has one precision for all components, tensor
attention one for every mode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask, all_finite
from afafilter._base.threads import thread_count
from afafilter._base.unknown import OpenLaw, functional_laws, mark
from afafilter.adaptive.forms import Isotropic, Modal
from afafilter.adaptive.geometry import DECAY_FLOOR, Index
from afafilter.adaptive.linear_time.bank import isotropic_covariance
from afafilter.adaptive.linear_time.filter import linear_time_estimate
from afafilter.adaptive.options import Options, Spans
from afafilter.adaptive.run import Outcome, anchored, own_observation
from afafilter.attention.heads import AttentionResult, Request, attend
from afafilter.attention.inputs import Inputs, known_keys
from afafilter.attention.law import Law, law_of
from afafilter.attention.pairs import TOO_FAR_APART
from afafilter.linalg.subspaces import ROUNDING
from afafilter.models.sde import LinearSDE

NOTHING = 1e-140
"""Anchors that cannot be told from observations which have decayed below the range of squares."""


class Attended(NamedTuple):
    """In the form's coordinates: mean (P, Tq, c), variance (P or 1, Tq, ...), weights, moves."""

    mean: Array
    variance: Array
    weights: Array | None
    change: list[float]


def attended(
    keys: Array,
    own: Array,
    spans: Spans,
    options: Options,
    dim: int,
    parameters: dict[str, Array],
    far: ObsMask | None = None,
    *,
    apart: bool = False,
) -> Attended:
    """Anchor and rounds of reweighting by attention to the keys (P, T, c), missing rows NaN.

    own (P, Tq, c) : each query's own observation, NaN where there is none; dim : of the state; far
    (Tq,) : queries of which an observation has decayed out of range.
    """
    known = None if all_finite(keys) else known_keys(None, keys)
    first, t, t_query = spans.stamps[0], spans.stamps, spans.times
    if first != 0.0:
        t, t_query = t - first, t_query - first
    numbers = {**parameters, "beta": np.asarray(options.inverse_temperature)}
    law, threads, kept = law_of(options.weight, dim), thread_count(), dict[Any, Any]()

    def around(q: Array | None, past: Index, causal: bool) -> tuple[AttentionResult, Array]:
        """By the anchors q (P, Tq, c), or by plain weights."""
        result = attend(
            Request(
                Inputs(q, keys, keys, known, True, False, t, t_query, past),
                keys.shape[:-2],
                numbers,
                Law() if q is None else law,
                None if causal else "exact",
                spans.window,
                return_weights=options.return_weights,
                threads=threads,
                apart=apart,
                kept=None if q is None else kept,
            )
        )
        return result, result.output

    def plain(early: bool) -> tuple[AttentionResult, Array]:
        return around(None, spans.before if early else spans.split, early or spans.causal)

    def weighted(q: Array) -> tuple[AttentionResult, Array]:
        if options.weight is None:
            return plain(False)
        q = q if all_finite(q) else np.where(np.isnan(q), 0.0, q)
        if far is not None and (np.abs(q).max(axis=-1)[..., far] < NOTHING).any():
            raise ValueError(TOO_FAR_APART)
        return around(q, spans.split, spans.causal)

    result, mean, change = anchored(own, options, plain, weighted)
    precision, weights = result.precision, result.weights
    if options.weight is None and miss_alike(keys):  # all paths have the same weights
        precision, weights = precision[:1], None if weights is None else weights[:1]
    return Attended(mean, _inverse(precision), weights, change)


LEAST = np.finfo(np.float64).tiny
"""The least number that has an inverse for certain."""


def _inverse(precision: Array) -> Array:
    """1 / precision, inf where it is 0 or its inverse exceeds the floating-point range."""
    if np.count_nonzero(precision >= LEAST) == precision.size:
        return 1.0 / precision
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(precision > 0, 1.0 / precision, np.inf)


def run_isotropic(
    model: LinearSDE, form: Isotropic, spans: Spans, z: Array, options: Options
) -> Outcome:
    """AFA of all paths z (P, T, p); rows are complete or wholly missing."""
    at, drift = form.parameters, form.state_model.drift
    origin = spans.stamps[0]
    moves = bool(np.count_nonzero(drift))

    def turned(y: Array, t: Array) -> Array:
        return at.to_planes(y - at.drift_path(drift, t - origin) if moves else y)

    keys = turned((z - model.offset) @ form.to_form.T, spans.stamps)
    if (spans.on_grid and model.delay == 0.0) or options.plain:  # queries are the observations
        own = keys
    else:
        back = np.linalg.inv(form.from_form)
        own = turned(own_observation(model, z, spans.own) @ back.T, spans.times)
    silent = options.weight is not None and at.process_var + form.anchor_var == 0.0
    far = _decayed(at.decay, spans, z) if silent else None
    found = attended(keys, own, spans, options, model.dim, form.numbers, far)
    mean = at.from_planes(found.mean)
    mean = mean + at.drift_path(drift, spans.times - origin) if moves else mean
    if not all_finite(found.variance):
        mean = np.where(np.isinf(found.variance)[..., None], np.nan, mean)
    cov = isotropic_covariance(found.variance, form.unit)
    return Outcome(mean @ form.from_form.T, cov, found.weights, found.change)


def _decayed(decay: float, spans: Spans, z: Array) -> ObsMask | None:
    """Of which queries an observation has decayed, e^{-mu lag}, out of range; None: of none."""
    first = np.zeros(len(spans.times), np.int64)
    if spans.window is not None:
        seen = np.append(np.flatnonzero(~np.isnan(z).any(axis=(0, 2))), len(spans.stamps))
        at = np.searchsorted(seen[:-1], spans.split)
        first = np.minimum(seen[np.maximum(at - spans.window, 0)], len(spans.stamps) - 1)
    far = np.asarray(decay * (spans.times - spans.stamps[first]) > DECAY_FLOOR)
    return far if far.any() else None


def miss_alike(z: Array) -> bool:
    """Whether all paths z (P, T, p) miss the same components."""
    return len(z) == 1 or bool((np.isnan(z) == np.isnan(z[:1])).all())


def run_linear(
    form: Isotropic, spans: Spans, model: LinearSDE, z: Array, method: str
) -> tuple[Outcome, float, str]:
    """Plain AFA in linear time or by FFT: the outcome, its error bound, and which it was."""
    found = linear_time_estimate(
        form.state_model,
        spans.stamps + model.delay,
        (z - model.offset) @ form.to_form.T,
        two_sided=not spans.causal,
        anchor_var=form.anchor_var,
        query_times=None if spans.on_grid else spans.times,
        method=method,
    )
    variance = found.variance
    if miss_alike(z):
        variance = variance[:1]
    outcome = Outcome(
        found.mean @ form.from_form.T, isotropic_covariance(variance, form.unit), None
    )
    return outcome, found.error_bound, found.method


def run_modal(model: LinearSDE, form: Modal, spans: Spans, z: Array, options: Options) -> Outcome:
    """AFA of all paths z (P, T, p); rows are complete or wholly missing."""
    n, d = len(form.decay), model.dim
    place = np.concatenate([2 * i + np.arange(r) for i, r in enumerate(form.real)])
    starts = min(float(spans.times.min()), float(spans.stamps.min()))
    frequency = np.append(form.frequency, np.zeros(n - len(form.frequency)))

    def path(t: Array) -> Array:
        if not model.drift.any():
            return np.zeros((len(t), d))
        return model.transition(t - starts)[1]

    def padded(x: Array, t: Array) -> Array:
        out = np.zeros((*x.shape[:-1], 2 * n))
        out[..., place] = (x - path(t)) @ form.to_modes.T
        return out

    C_inv = np.linalg.inv(model.C)
    keys = padded((z - model.offset) @ C_inv.T, spans.stamps)
    parameters = {
        "decay": form.decay,
        "value_decay": form.decay,
        "process_var": form.process_var,
        "key_var": np.ones(n),
        "query_var": form.query_var,
        "prior_precision": np.zeros(n),
        "omega": frequency,
        "omega_value": frequency,
    }
    own = padded(own_observation(model, z, spans.own), spans.times)
    # of d components: padding is left out
    found = attended(keys, own, spans, options, d, parameters, apart=True)
    back: Array = np.asarray(np.linalg.inv(form.to_modes))
    variance = np.repeat(found.variance, form.real, axis=-1)
    free = path(spans.times)
    mean, cov, open_laws = _from_modes(found.mean[..., place], variance, back, free)
    weights = found.weights
    if weights is not None:
        weights = np.einsum("...mqj,m->...qj", weights, form.real / d)
    return Outcome(mean, cov, weights, found.change, open_laws=open_laws)


def _from_modes(
    mean: Array, variance: Array, back: Array, free: Array
) -> tuple[Array, Array, list[OpenLaw]]:
    """Law of x = free (Tq, d) + back y, y (P, Tq, d) with variances (P or 1, Tq, d).

    A mode that the data do not determine (variance inf, or its pulled values leave the floating
    point range) leaves the components that it reaches undetermined, and only those.
    """
    lost = ~np.isfinite(mean)
    lost = np.isinf(variance) | (lost.any(axis=0, keepdims=True) if len(variance) == 1 else lost)
    if not lost.any():
        return mean @ back.T + free, back * variance[..., None, :] @ back.T, []
    size = np.abs(back)
    rounding = np.broadcast_to(ROUNDING * size.max(axis=1), size.shape)
    reached = (rounding < size.T).astype(np.float64)
    unknown: ObsMask = np.asarray(lost.astype(np.float64) @ reached > 0)
    cov = back * np.where(lost, 0.0, variance)[..., None, :] @ back.T
    mean = np.where(lost, 0.0, mean) @ back.T + free
    directions = (np.where(lost[..., None], part, 0.0) for part in (back.T, rounding))
    laws = functional_laws(np.arange(len(mean)), 0, mean, cov, *directions)
    return *mark(mean, cov, unknown), laws
