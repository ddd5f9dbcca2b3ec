"""AFA of simultaneously diagonalisable models: every mode its own precision, tensor attention.

With C^-1 R C^-T = L L^T, the matrices L^-1 A L and L^-1 Q L^-T (and Gam alike) are normal and
commute: one orthogonal change of basis turns them into planes and axes with a decay, a rotation and
a process noise each, R into the identity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.isotropic import (
    Sources,
    Spans,
    anchored_attention,
    inverse,
    weights_are_shared,
)
from afafilter.adaptive.run import Outcome, Settings, own_observation
from afafilter.attention.heads import AttentionResult, tensor
from afafilter.attention.law import law_of
from afafilter.models.sde import LinearSDE

COMMUTE_TOL = 1e-12
"""Largest entry of a commutator, relative to its factors, that counts as rounding."""


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
    from scipy.linalg import schur

    p, d = model.C.shape
    if p != d or np.linalg.matrix_rank(model.C) < d:
        return None
    whiten = np.linalg.solve(np.linalg.cholesky(model.R), model.C)
    A = whiten @ np.linalg.solve(whiten.T, model.A.T).T
    parts = [A, A.T, whiten @ model.Q @ whiten.T]
    if anchor_cov is not None:
        lower = np.linalg.inv(np.linalg.cholesky(model.R))
        parts.append(lower @ anchor_cov @ lower.T)
    sizes = [max(float(np.abs(part).max()), 1e-300) for part in parts]
    for i, (X, a) in enumerate(zip(parts, sizes, strict=True)):
        for Y, b in zip(parts[:i], sizes, strict=False):
            if np.abs(X @ Y - Y @ X).max() > COMMUTE_TOL * d * a * b:
                return None
    mixed = sum(
        c / size * part
        for c, size, part in zip((1.0, 0.0, 0.7312, 0.3917), sizes, parts, strict=False)
    )
    triangle, basis = schur(mixed, output="real")
    planes: list[int] = []
    axes: list[int] = []
    k = 0
    while k < d:
        width = 2 if k + 1 < d and abs(triangle[k + 1, k]) > COMMUTE_TOL * d else 1
        (planes if width == 2 else axes).append(k)
        k += width
    order = [i for k in planes for i in (k, k + 1)] + axes
    turn = basis[:, order].T
    turned = [turn @ part @ turn.T for part in parts]
    blocks = [slice(2 * i, 2 * i + 2) for i in range(len(planes))]
    blocks += [slice(2 * len(planes) + i, 2 * len(planes) + i + 1) for i in range(len(axes))]
    mask = np.ones((d, d), bool)
    for block in blocks:
        mask[block, block] = False
    if any(
        np.abs(M[mask]).max(initial=0.0) > 10 * COMMUTE_TOL * d * size
        for M, size in zip(turned, sizes, strict=True)
    ):
        return None

    def per_mode(M: Array) -> Array:
        return np.array([np.trace(M[block, block]) / len(M[block]) for block in blocks])

    decay = -per_mode(turned[0])
    decay[np.abs(decay) <= COMMUTE_TOL * sizes[0]] = 0.0
    if (decay < 0).any():
        return None
    frequency = np.array([0.5 * (turned[0][b][1, b.start] - turned[0][b][0, b.stop - 1])
                          for b in blocks[: len(planes)]])  # fmt: skip
    noise = np.maximum(per_mode(turned[2]), 0.0)
    query = np.maximum(per_mode(turned[3]), 0.0) if len(turned) > 3 else np.zeros(len(blocks))
    real = np.array([b.stop - b.start for b in blocks], dtype=np.intp)
    return Modal(turn @ whiten, decay, frequency, noise, query, real)


def tempers_exactly(form: Modal) -> bool:
    """Whether padding leaves det(P)^{1/d} right: all modes are planes, or all are axes."""
    return len(set(form.real.tolist())) == 1


def run_modal(model: LinearSDE, form: Modal, spans: Spans, z: Array, settings: Settings) -> Outcome:
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
        "decay": form.decay, "process_var": form.process_var, "key_var": np.ones(n),
        "query_var": form.query_var, "prior_precision": np.zeros(n), "omega": frequency,
        "beta": np.asarray(settings.beta),
    }  # fmt: skip
    law = law_of(settings.weight, d)  # true components, padding left out
    sources = Sources(keys, spans, parameters, law, settings.return_weights)

    def attend(q: Array | None, past: Index, causal: bool) -> AttentionResult:
        return tensor(sources.request(q, past, causal))

    own = padded(own_observation(model, z, spans.own), spans.times)
    result, mean, change = anchored_attention(attend, own, spans, settings)
    back = np.linalg.inv(form.to_modes)
    shared = weights_are_shared(z, settings)
    variance = np.repeat(inverse(result.precision[:1] if shared else result.precision),
                         form.real, axis=-1)  # fmt: skip
    unknown: ObsMask = np.asarray(np.isinf(variance).all(axis=-1))
    cov = back * np.where(np.isinf(variance), 1.0, variance)[..., None, :] @ back.T
    cov[unknown] = np.diag(np.full(d, np.inf))
    weights = result.weights
    if weights is not None:
        weights = np.einsum("...mqj,m->...qj", weights[:1] if shared else weights, form.real / d)
    return Outcome(mean[..., place] @ back.T + path(spans.times), cov, weights, change)
