"""AFA of simultaneously diagonalisable models: every mode its own precision, tensor attention.

With C^-1 R C^-T = L L^T, the matrices L^-1 A L and L^-1 Q L^-T (and Gam alike) are normal and
commute: one orthogonal change of basis turns them into planes and axes with a decay, a rotation and
a process noise each, R into the identity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.remembered import remembered
from afafilter.adaptive.forms import is_invertible
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.isotropic import Sources, anchored_attention, inverse, weights_are_shared
from afafilter.adaptive.options import Options, Spans
from afafilter.adaptive.run import Outcome, own_observation
from afafilter.attention.heads import AttentionResult, tensor
from afafilter.attention.law import law_of
from afafilter.linalg.rotation import PLANE_TOLERANCE, invariant_planes, plane_rates
from afafilter.linalg.subspaces import ROUNDING
from afafilter.models.sde import LinearSDE


class Modal(NamedTuple):
    """Modes y = to_modes x: planes (two channels each), then axes (padded to two by zeros).

    decay, process_var, query_var : (n,) per mode; frequency : (planes,); real : (n,) how many of
    a mode's channels are real components of y.
    """

    to_modes: Array
    decay: Array
    frequency: Array
    process_var: Array
    query_var: Array
    real: Index


def modal_form(model: LinearSDE, anchor_cov: Array | None) -> Modal | None:
    """The modal form of a model with query noise anchor_cov (p, p), or None if it has none."""
    key = ("modal", None if anchor_cov is None else anchor_cov.tobytes())
    return remembered(model, key, lambda: _modal_form(model, anchor_cov))


def _modal_form(model: LinearSDE, anchor_cov: Array | None) -> Modal | None:
    if not is_invertible(model):
        return None
    d = model.dim
    whiten = np.linalg.solve(np.linalg.cholesky(model.R), model.C)
    A = whiten @ np.linalg.solve(whiten.T, model.A.T).T
    parts = [A, A.T, whiten @ model.Q @ whiten.T]
    if anchor_cov is not None:
        lower = np.linalg.inv(np.linalg.cholesky(model.R))
        parts.append(lower @ anchor_cov @ lower.T)
    sizes = [max(float(np.abs(part).max()), 1e-300) for part in parts]
    for i, (X, a) in enumerate(zip(parts, sizes, strict=True)):
        for Y, b in zip(parts[:i], sizes, strict=False):
            if np.abs(X @ Y - Y @ X).max() > PLANE_TOLERANCE * d * a * b:
                return None
    mixed = sum(
        c / size * part
        for c, size, part in zip((1.0, 0.0, 0.7312, 0.3917), sizes, parts, strict=False)
    )
    basis, planes = invariant_planes(mixed)
    turn = basis.T
    turned = [turn @ part @ turn.T for part in parts]
    blocks = [slice(i, i + 2) for i in range(0, 2 * planes, 2)]
    blocks += [slice(i, i + 1) for i in range(2 * planes, d)]
    mask = np.ones((d, d), bool)
    for block in blocks:
        mask[block, block] = False
    left = [np.abs(M[mask]).max(initial=0.0) / size for M, size in zip(turned, sizes, strict=True)]
    if max(left) > 10 * PLANE_TOLERANCE * d:
        return None

    def per_mode(M: Array) -> Array:
        return np.array([np.trace(M[block, block]) / len(M[block]) for block in blocks])

    decay = -per_mode(turned[0])
    decay[np.abs(decay) <= PLANE_TOLERANCE * sizes[0]] = 0.0
    if (decay < 0).any():
        return None
    frequency = plane_rates(turned[0], planes)
    noise = np.maximum(per_mode(turned[2]), 0.0)
    query = np.maximum(per_mode(turned[3]), 0.0) if len(turned) > 3 else np.zeros(len(blocks))
    real = np.array([b.stop - b.start for b in blocks], dtype=np.intp)
    return Modal(turn @ whiten, decay, frequency, noise, query, real)


def tempers_exactly(form: Modal) -> bool:
    """Whether padding leaves det(P)^{1/d} right: all modes are planes, or all are axes."""
    return len(set(form.real.tolist())) == 1


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
        "process_var": form.process_var,
        "key_var": np.ones(n),
        "query_var": form.query_var,
        "prior_precision": np.zeros(n),
        "omega": frequency,
        "beta": np.asarray(options.inverse_temperature),
    }
    law = law_of(options.weight, d)  # true components, padding left out
    sources = Sources.of(keys, spans, parameters, law, options.return_weights)

    def attend(q: Array | None, past: Index, causal: bool) -> AttentionResult:
        return tensor(sources.request(q, past, causal))

    own = padded(own_observation(model, z, spans.own), spans.times)
    result, mean, change = anchored_attention(attend, own, spans, options)
    back: Array = np.asarray(np.linalg.inv(form.to_modes))
    shared = weights_are_shared(z, options)
    variance = np.repeat(
        inverse(result.precision[:1] if shared else result.precision), form.real, axis=-1
    )
    outcome = _from_modes(mean[..., place], variance, back)
    weights = result.weights
    if weights is not None:
        weights = np.einsum("...mqj,m->...qj", weights[:1] if shared else weights, form.real / d)
    return replace(outcome, mean=outcome.mean + path(spans.times), weights=weights, change=change)


def _from_modes(mean: Array, variance: Array, back: Array) -> Outcome:
    """Mean and covariance of x = back y, y (P, Tq, d) with variances (P or 1, Tq, d).

    A mode that the data do not determine (variance inf, or its pulled values leave the floating
    point range) leaves the components that it reaches undetermined, and only those.
    """
    lost = ~np.isfinite(mean)
    lost = np.isinf(variance) | (lost.any(axis=0, keepdims=True) if len(variance) == 1 else lost)
    if not lost.any():
        return Outcome(mean @ back.T, back * variance[..., None, :] @ back.T, None)
    size = np.abs(back)
    reached = (size > ROUNDING * size.max(axis=1, keepdims=True)).astype(np.float64)
    unknown: ObsMask = np.asarray(lost.astype(np.float64) @ reached.T > 0)
    cov = back * np.where(lost, 0.0, variance)[..., None, :] @ back.T
    cov[unknown[..., :, None] | unknown[..., None, :]] = 0.0
    np.einsum("...aa->...a", cov)[unknown] = np.inf
    return Outcome(np.where(unknown, np.nan, np.where(lost, 0.0, mean) @ back.T), cov, None)
