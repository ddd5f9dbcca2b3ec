"""Tiles of tensor attention: every mode with its own variances, one robust weight for all.

Arrays are (n, B, T): modes, queries, keys. Exponents of weights are kept, and each mode has its own
running maximum, so that precisions growing like e^{2 mu tau} cannot overflow. See
`_attention_tiles` for the two sides "late" and "early" of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.attention.heads import AttentionResult
from afafilter.attention.inputs import Index, Inputs, Numbers
from afafilter.attention.threads import run
from afafilter.attention.tiles import EDGE_KEYS, F64, Floats, Workspace, key_chunks
from afafilter.linalg.rotation import half_tangents, rotate, to_rotating_frame
from afafilter.weights import Weight

TILE = 2**18
"""Entries of one (modes, queries, keys) array."""
KEYS = 256


@dataclass(frozen=True, eq=False)
class ModeHead:
    """One head: data (n, N, 2) per mode in the co-rotating frame (None: not needed)."""

    t_query: F64
    t: F64
    n_visible: Index
    q: Floats | None
    k: Floats | None
    v: Floats
    mu: F64
    sigma2: F64
    key_var: F64
    query_var: F64
    prior: F64
    components: F64
    """(n,) real components of each mode: 2, or 1."""
    omega: F64
    beta: float
    weight: Weight | None
    backward: str | None
    window: int | None
    out: Floats
    """(Nq, d)"""
    precision: Floats
    """(Nq, n)"""
    weights: Floats | None
    """(n, Nq, N)"""
    columns: Index


def run_modes(
    inputs: Inputs,
    lead: tuple[int, ...],
    p: dict[str, Array],
    weight: Weight | None,
    backward: str | None,
    window: int | None,
    return_weights: bool,
    threads: int,
) -> AttentionResult:
    """Tensor attention of all heads."""
    n_query, n_keys, d = len(inputs.t_query), len(inputs.t), inputs.v.shape[-1]
    n, dtype = (d + 1) // 2, inputs.v.dtype
    result = AttentionResult(
        np.empty((*lead, n_query, d), dtype),
        np.zeros((*lead, n, n_query, n_keys), dtype) if return_weights else None,
        np.empty((*lead, n_query, n), dtype),
    )
    rows = int(np.clip(TILE // (n * KEYS), 1, 128))
    for index in np.ndindex(lead):
        head = _head(inputs, lead, p, index, weight, backward, window, result)
        tasks = [
            (
                (min(start + rows, n_query) - start) * len(head.t) * n,
                partial(_sweep, head, start, rows),
            )
            for start in range(0, n_query, rows)
        ]
        run(tasks, threads)
    return result


def _head(
    inputs: Inputs,
    lead: tuple[int, ...],
    p: dict[str, Array],
    index: tuple[int, ...],
    weight: Weight | None,
    backward: str | None,
    window: int | None,
    result: AttentionResult,
) -> ModeHead:
    """Data and parameters of one head, without its missing keys."""

    def data(x: Numbers) -> Numbers:
        return np.asarray(np.broadcast_to(x, (*lead, *x.shape[-2:]))[index])

    def at(name: str) -> F64:
        return np.asarray(np.broadcast_to(p[name], (*lead, p[name].shape[-1]))[index])

    columns, seen = np.arange(len(inputs.t)), inputs.n_visible
    if inputs.known is not None:
        known = np.broadcast_to(inputs.known, (*lead, len(inputs.t)))[index]
        columns, seen = np.flatnonzero(known), np.concatenate([[0], np.cumsum(known)])[seen]
    t, omega = inputs.t[columns], at("omega")
    d = inputs.v.shape[-1]
    components = np.full((d + 1) // 2, 2.0)
    components[-1] = 2 - d % 2
    k = q = None
    if weight is not None:
        assert inputs.k is not None
        assert inputs.q is not None
        k = _modes(to_rotating_frame([data(inputs.k)[columns]], t, omega)[0])
        q = _modes(to_rotating_frame([np.nan_to_num(data(inputs.q))], inputs.t_query, omega)[0])
    v = k if k is not None and inputs.k is inputs.v else _modes(
        to_rotating_frame([data(inputs.v)[columns]], t, omega)[0]
    )  # fmt: skip
    return ModeHead(
        inputs.t_query, t, seen, q, k, v, at("mu"), at("sigma2"), at("key_var"), at("query_var"),
        at("prior"), components, omega, float(np.broadcast_to(p["beta"], lead)[index]), weight,
        backward, window, result.output[index], result.precision[index],
        None if result.weights is None else result.weights[index], columns,
    )  # fmt: skip


def _modes(x: Floats) -> Floats:
    """(N, d) real channels as (n, N, 2), an odd last one padded by zeros."""
    if x.shape[1] % 2:
        x = np.concatenate([x, np.zeros((len(x), 1), x.dtype)], axis=1)
    return np.ascontiguousarray(x.reshape(len(x), -1, 2).swapaxes(0, 1))


class _Sums:
    """Sums (n, B, c) of exponentials, relative to running maxima (n, B)."""

    def __init__(self, n: int, rows: int, columns: int) -> None:
        self.total = np.zeros((n, rows, columns))
        self.top = np.full((n, rows), -np.inf)

    def add(self, exponents: Floats, values: Floats | None) -> tuple[Floats, F64]:
        """Add sum_j e^{exponents} values_j; returns the scaled weights and their shift."""
        top = np.maximum(self.top, exponents.max(axis=2))
        shift = np.where(np.isneginf(top), 0.0, top)
        self.total *= np.exp(np.where(np.isneginf(self.top), 0.0, self.top - shift))[..., None]
        self.top = top
        weights = np.exp(exponents - shift[..., None]).astype(exponents.dtype, copy=False)
        self.total += weights.sum(axis=2)[..., None] if values is None else weights @ values
        return weights, shift


def _sweep(head: ModeHead, start: int, rows: int, _: Workspace) -> None:
    """Output rows start:start + rows of one head."""
    block = slice(start, min(start + rows, len(head.t_query)))
    count, n = block.stop - start, len(head.mu)
    num, den = _Sums(n, count, 2), _Sums(n, count, 1)
    pieces: list[tuple[Index, NDArray[np.bool_], Floats, F64]] = []
    for causal in (True, False) if head.backward else (True,):
        for j0, j1, inside in _tiles(head, block, causal):
            exact = not causal and head.backward == "exact"
            tau = np.abs(head.t_query[block, None] - head.t[j0:j1]).astype(head.v.dtype)
            log_p, d2 = _precisions(head, block, slice(j0, j1), tau, exact)
            common = (head.beta - 1.0) * np.tensordot(
                head.components / head.components.sum(), log_p, 1
            )
            if head.weight is not None:
                assert d2 is not None
                common += head.beta * head.weight.log(d2, int(head.components.sum()))
            common[~inside] = -np.inf
            exponents = log_p + common.astype(tau.dtype)
            weights, shift = den.add(exponents, None)
            if head.weights is not None:
                pieces.append((np.arange(j0, j1), inside, weights, shift))
            pull = (head.mu if exact else -head.mu).astype(tau.dtype)
            exponents += pull[:, None, None] * tau
            num.add(exponents, head.v[:, j0:j1])
    _write(head, block, num, den, pieces)


def _tiles(
    head: ModeHead, block: slice, causal: bool
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Key ranges of one direction and which pairs of them count."""
    seen, n = head.n_visible[block], len(head.t)
    width = n if head.window is None else head.window
    low = np.maximum(seen - width, 0) if causal else seen
    high = seen if causal else np.minimum(seen + width, n)
    if high[-1] <= low[0]:
        return
    for a, b, _ in key_chunks(low, high, causal, KEYS, EDGE_KEYS):
        for j0 in range(a, b, KEYS):
            j1 = min(j0 + KEYS, b)
            index = np.arange(j0, j1)
            yield j0, j1, (index >= low[:, None]) & (index < high[:, None])


def _precisions(
    head: ModeHead, block: slice, keys: slice, tau: Floats, exact: bool
) -> tuple[Floats, Floats | None]:
    """log P (n, B, T), and d2 (B, T) where a weight needs it; `exact`: keys pulled backward."""
    dtype = tau.dtype
    mu, sigma2, eta2, gamma2 = (
        x.astype(dtype)[:, None, None] for x in (head.mu, head.sigma2, head.key_var, head.query_var)
    )
    late, early = (eta2, gamma2) if exact else (gamma2, eta2)
    exponent = mu * tau
    E = np.exp(-exponent)
    rate = np.where(2.0 * mu < 1e-30, 1.0, 2.0 * mu)
    S = np.where(2.0 * mu < 1e-30, tau, -np.expm1(-2.0 * exponent) / rate) * sigma2
    S += late + early * E * E
    degenerate = (sigma2 == 0) & (late == 0)
    log_s = np.where(degenerate, np.log(early) - 2.0 * exponent, np.log(S))
    log_p = -log_s - 2.0 * exponent if exact else -log_s
    if head.weight is None:
        return log_p, None
    assert head.q is not None
    assert head.k is not None
    q, k = head.q[:, block, None, :], head.k[:, None, keys, :]
    info = np.finfo(dtype)
    squares = np.zeros(E.shape, dtype)
    for c in range(2):
        squares += (k[..., c] - E * q[..., c] if exact else q[..., c] - E * k[..., c]) ** 2
    d2 = np.minimum(squares / np.maximum(S, info.tiny), info.max / len(head.mu)).sum(axis=0)
    return log_p, np.asarray(d2)


def _write(
    head: ModeHead,
    block: slice,
    num: _Sums,
    den: _Sums,
    pieces: list[tuple[Index, NDArray[np.bool_], Floats, F64]],
) -> None:
    """Normalise, rotate to the query times, store."""
    scale = np.where(np.isneginf(den.top), 0.0, den.top)
    log_total = np.logaddexp(np.log(den.total[..., 0]) + scale, np.log(head.prior)[:, None])
    top = np.where(np.isneginf(num.top), 0.0, num.top)
    empty = np.isneginf(log_total)
    mean = num.total * np.exp(np.where(empty, np.nan, top - log_total))[..., None]
    rows = mean.swapaxes(0, 1).reshape(mean.shape[1], -1)[:, : head.out.shape[1]]
    if head.omega.any():
        rotate(rows, half_tangents(head.t_query[block], head.omega), head.out[block])
    else:
        head.out[block] = rows
    head.precision[block] = np.exp(log_total).T
    if head.weights is None:
        return
    for keys, inside, weights, shift in pieces:
        scaled = weights * np.exp(np.where(empty, -np.inf, shift - log_total))[..., None]
        target = head.weights[:, block, head.columns[keys]]
        head.weights[:, block, head.columns[keys]] = np.where(inside, scaled, target)
