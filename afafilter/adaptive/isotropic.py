"""AFA of isotropic models through the attention form: O(T d) memory, the cost of attention.

Where whitening by the measurement noise makes A = -mu I + skew and Q = sigma^2 I (`forms`): in
coordinates where the skew part turns planes, q = anchors, k = v = observations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask, all_finite
from afafilter._base.threads import available_threads
from afafilter.adaptive.forms import Isotropic
from afafilter.adaptive.geometry import DECAY_FLOOR, Index
from afafilter.adaptive.linear_time.bank import isotropic_covariance
from afafilter.adaptive.linear_time.filter import linear_time_estimate
from afafilter.adaptive.options import Options, Spans
from afafilter.adaptive.run import Outcome, anchored, own_observation
from afafilter.attention.heads import AttentionResult, Request, isotropic
from afafilter.attention.inputs import Inputs, known_keys
from afafilter.attention.law import Law, law_of
from afafilter.attention.pairs import TOO_FAR_APART
from afafilter.models.sde import LinearSDE


def run_isotropic(
    model: LinearSDE, form: Isotropic, spans: Spans, z: Array, options: Options
) -> Outcome:
    """AFA of all paths z (P, T, p); rows are complete or wholly missing."""
    at, drift = form.parameters, form.state_model.drift
    origin = spans.stamps[0]
    moves = bool(np.count_nonzero(drift))

    def turned(y: Array, t: Array) -> Array:
        return at.to_planes(y - at.drift_path(drift, t - origin) if moves else y)

    silent = options.weight is not None and at.process_var + form.anchor_var == 0.0
    far = _decayed(at.decay, spans, z) if silent else None
    some = far is not None and bool(far.any())
    keys = turned((z - model.offset) @ form.to_form.T, spans.stamps)
    here = spans.on_grid and model.delay == 0.0  # queries are the observations themselves
    numbers = (
        ("decay", at.decay),
        ("value_decay", at.decay),
        ("process_var", at.process_var),
        ("key_var", at.obs_var),
        ("query_var", form.anchor_var),
        ("beta", options.inverse_temperature),
        ("omega", at.frequency),
        ("omega_value", at.frequency),
    )
    parameters = {name: np.asarray(value, float) for name, value in numbers}
    law = law_of(options.weight, model.dim)
    sources = Sources.of(keys, spans, parameters, law, options.return_weights)
    made: list[Request] = []  # of the first round: the others differ in q alone

    def attend(q: Array | None, past: Index, causal: bool) -> AttentionResult:
        if some and q is not None and (np.abs(q).max(axis=-1)[..., far] < NOTHING).any():
            raise ValueError(TOO_FAR_APART)
        if q is not None and made:
            return isotropic(made[0], q)
        request = sources.request(q, past, causal)
        if q is not None:
            made.append(request)
        return isotropic(request)

    if here or options.plain:
        own = keys
    else:
        back = np.linalg.inv(form.from_form)
        own = turned(own_observation(model, z, spans.own) @ back.T, spans.times)
    result, mean, change = anchored_attention(attend, own, spans, options)
    mean = at.from_planes(mean)
    mean = mean + at.drift_path(drift, spans.times - origin) if moves else mean
    shared = weights_are_shared(z, options)
    variance = inverse(result.precision[:1] if shared else result.precision)
    if not all_finite(variance):
        mean = np.where(np.isinf(variance)[..., None], np.nan, mean)
    weights = result.weights
    if weights is not None and shared:
        weights = weights[:1]
    return Outcome(
        mean @ form.from_form.T, isotropic_covariance(variance, form.from_form), weights, change
    )


LEAST = np.finfo(np.float64).tiny
"""The least number that has an inverse for certain."""
NOTHING = 1e-140
"""Anchors that cannot be told from observations which have decayed below the range of squares."""


def _decayed(decay: float, spans: Spans, z: Array) -> ObsMask:
    """Of which queries an observation has decayed, e^{-mu lag}, out of range."""
    first = np.zeros(len(spans.times), np.int64)
    if spans.window is not None:
        seen = np.append(np.flatnonzero(~np.isnan(z).any(axis=(0, 2))), len(spans.stamps))
        at = np.searchsorted(seen[:-1], spans.split)
        first = np.minimum(seen[np.maximum(at - spans.window, 0)], len(spans.stamps) - 1)
    return np.asarray(decay * (spans.times - spans.stamps[first]) > DECAY_FLOOR)


class Sources(NamedTuple):
    """What stays the same from one round of attention to the next.

    keys (P, T, d) with missing rows NaN; t, t_query since the first key; known, parameters, kept as
    in `attention.heads.Request`.
    """

    keys: Array
    known: ObsMask | None
    t: Array
    t_query: Array
    spans: Spans
    parameters: dict[str, Array]
    law: Law
    return_weights: bool
    threads: int
    kept: dict[Any, Any]

    @staticmethod
    def of(
        keys: Array, spans: Spans, parameters: dict[str, Array], law: Law, return_weights: bool
    ) -> Sources:
        """What is looked for in the keys is looked for once."""
        known = None if all_finite(keys) else known_keys(None, keys)
        first = spans.stamps[0]
        t = spans.stamps, spans.times
        if first != 0.0:
            t = spans.stamps - first, spans.times - first
        threads = available_threads()
        return Sources(keys, known, *t, spans, parameters, law, return_weights, threads, {})

    def request(self, q: Array | None, past: Index, causal: bool) -> Request:
        """One round with the anchors q (P, Tq, d), or plain weights."""
        x = self.keys
        return Request(
            Inputs(q, x, x, self.known, True, False, self.t, self.t_query, past),
            x.shape[:-2],
            self.parameters,
            Law() if q is None else self.law,
            None if causal else "exact",
            self.spans.window,
            0.0,
            self.return_weights,
            self.threads,
            kept=None if q is None else self.kept,
        )


def anchored_attention(
    attend: Callable[[Array | None, Index, bool], AttentionResult],
    own: Array,
    spans: Spans,
    options: Options,
) -> tuple[AttentionResult, Array, list[float]]:
    """Anchor and rounds of reweighting around attend(q, past, causal), q None = plain weights.

    own (P, Tq, d): each query's own observation, NaN where there is none.
    """

    def solved(q: Array | None, past: Index, causal: bool) -> tuple[AttentionResult, Array]:
        result = attend(q, past, causal)
        return result, result.output

    def weighted(q: Array) -> tuple[AttentionResult, Array]:
        if not all_finite(q):
            q = np.where(np.isnan(q), 0.0, q)
        return solved(None if options.weight is None else q, spans.split, spans.causal)

    return anchored(
        own,
        options,
        plain=lambda: solved(None, spans.split, spans.causal),
        earlier=lambda: solved(None, spans.before, True),
        weighted=weighted,
    )


def weights_are_shared(z: Array, options: Options) -> bool:
    """Whether all paths z (P, T, p) have the same weights."""
    return options.weight is None and miss_alike(z)


def miss_alike(z: Array) -> bool:
    """Whether all paths z (P, T, p) miss the same components."""
    return len(z) == 1 or bool((np.isnan(z) == np.isnan(z[:1])).all())


def inverse(precision: Array) -> Array:
    """1 / precision, inf where it is 0 or its inverse exceeds the floating-point range."""
    if np.count_nonzero(precision >= LEAST) == precision.size:
        return 1.0 / precision
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(precision > 0, 1.0 / precision, np.inf)


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
        found.mean @ form.from_form.T, isotropic_covariance(variance, form.from_form), None
    )
    return outcome, found.error_bound, found.method
