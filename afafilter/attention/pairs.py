"""Attention by pairs: weights of any kind, in logarithms, with running maxima; no N x N array.

Every mode has its own variances, one robust weight serves all, and with n modes of precision P_m

    W_ij = (prod_m P_ijm^{c_m})^{beta - 1} w(d2_ij)^beta,
    out_im = sum_j W_ij P_ijm v_jm / (prior_m + sum_j W_ij P_ijm),

where c_m is mode m's share of the components. One mode of all channels is isotropic attention.
Arrays are (n, B, K): modes, queries, keys. Exponents are kept and each mode has its own running
maximum, so that precisions growing like e^{2 mu tau} cannot overflow. `sums` is the faster way
for power laws whose weights stay in range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter.attention.inputs import Index
from afafilter.attention.law import LogPrior
from afafilter.attention.recursions import F64, Dynamics, Floats, pair_up, rotated
from afafilter.attention.threads import Task

TILE = 2**16
"""Entries of one (modes, queries, keys) array."""
KEYS = 256
"""Keys of a tile."""
TOO_FAR = 1e300
"""Squared distances from which on a weight cannot be told from others."""
TOO_FAR_APART = (
    "observations lie so far from where their weight is decided that squared distances in standard "
    "deviations exceed the floating-point range (a state without process noise that decays over "
    "hundreds of decay times); give a window, or leave out the robust weight"
)


@dataclass(frozen=True, eq=False)
class ModeHead:
    """One head of n modes: data (n, N, width) in the co-rotating frame, parameters (n,)."""

    t_query: F64
    t: F64
    n_visible: Index
    q: Floats | None
    k: Floats | None
    v: Floats
    decay: F64
    value_decay: F64
    process_var: F64
    key_var: F64
    query_var: F64
    prior: F64
    """Precision of a prior of mean 0."""
    share: F64
    """(n,) shares of the real components; they sum to 1."""
    omega: F64
    """Rotation of the output."""
    beta: float
    log_weight: Callable[[Floats], Floats] | None
    """log w of d2 or, with `scale`, of log(1 + d2 / scale); None: 0."""
    scale: float | None
    """Of a power law, which one mode only may have."""
    log_prior: LogPrior | None
    """log P of lags (`law.log_prior`), in place of the model's; None: the model's."""
    backward: str | None
    window: int | None
    tolerance: float
    """Keys that together weigh less than this, relative to the others, may be left out."""
    out: Floats
    """(Nq, d)"""
    precision: Floats
    """(Nq, n)"""
    weights: Floats | None
    """(n, Nq, N)"""
    columns: Index | None
    """Columns of `weights` that the keys have; None: all."""

    def tasks(self) -> Iterator[Task]:
        """Blocks of rows."""
        n, size = len(self.decay), len(self.t_query)
        rows = int(np.clip(TILE // (n * KEYS), 1, 256))
        channels = 4 * (self.v.shape[-1] + 8)
        for start in range(0, size, rows):
            block = slice(start, min(start + rows, size))
            seen = len(self.t) if self.backward else int(self.n_visible[block.stop - 1])
            work = (block.stop - start) * seen * n * channels
            yield Task(work, partial(sweep, self, block), True)


class _Sums:
    """Sums (n, B, c) of exponentials, relative to running maxima (n, B)."""

    def __init__(self, n: int, rows: int, columns: int) -> None:
        self.total = np.zeros((n, rows, columns))
        self.top = np.full((n, rows), -np.inf)

    def add(self, exponents: Floats, values: Floats) -> tuple[Floats, F64]:
        """Add sum_j e^{exponents} values_j; returns the scaled weights and their shift."""
        top = np.maximum(self.top, exponents.max(axis=2))
        shift = np.where(np.isneginf(top), 0.0, top)
        self.total *= np.exp(np.where(np.isneginf(self.top), 0.0, self.top - shift))[..., None]
        self.top = top
        exponents -= shift[..., None].astype(exponents.dtype)
        weights = np.exp(exponents, out=exponents)
        self.total += weights @ values
        return weights, shift


def limits(n_visible: Index, n: int, window: int | None, causal: bool) -> tuple[Index, Index]:
    """Which keys each query sees in one direction of time: the first, and one past the last."""
    seen = n_visible
    if causal:
        low = np.zeros(len(seen), np.int64) if window is None else np.maximum(seen - window, 0)
        return low, seen
    high = np.full(len(seen), n) if window is None else np.minimum(seen + window, n)
    return seen, high


@np.errstate(all="ignore")
def sweep(head: ModeHead, block: slice) -> None:
    """Output rows of one head."""
    count, (n, _, width) = block.stop - block.start, head.v.shape
    dtype = head.v.dtype
    pulled = head.value_decay.any()
    num, den = _Sums(n, count, width), _Sums(n, count, 1)
    ones = np.ones((1, len(head.t), 1), dtype)
    both = None if pulled else np.concatenate([head.v, np.ones((n, len(head.t), 1), dtype)], axis=2)
    joint = _Sums(n, count, width + 1)
    pieces: list[tuple[slice, NDArray[np.bool_], Floats, F64]] = []
    for causal in (True, False) if head.backward else (True,):
        low, high = limits(head.n_visible[block], len(head.t), head.window, causal)
        exact = not causal and head.backward == "exact"
        for keys, left in _tiles(low, high, causal):
            index = np.arange(keys.start, keys.stop)
            inside = (index >= low[:, None]) & (index < high[:, None])
            exponents = _exponents(head, block, keys, exact, inside)
            exponents[:, ~inside] = -np.inf
            if both is None:
                num.add(exponents + _pull(head, block, keys, exact), head.v[:, keys])
                weights, shift = den.add(exponents, ones[:, keys])
            else:
                weights, shift = joint.add(exponents, both[:, keys])
            if head.weights is not None:
                pieces.append((keys, inside, weights, shift))
            if head.tolerance > 0 and len(left):
                total = den if both is None else joint
                if _negligible(head, block, total, left, exact):
                    break
    if both is not None:
        num.total, den.total = joint.total[..., :-1], joint.total[..., -1:]
        num.top = den.top = joint.top
    _write(head, block, num, den, pieces)


def _tiles(low: Index, high: Index, causal: bool) -> Iterator[tuple[slice, range]]:
    """Key ranges of one direction, nearest first, and what is left after each, nearest first."""
    seen = low < high
    if not seen.any():
        return
    start, stop = int(low[seen].min()), int(high[seen].max())
    starts = range(start, stop, KEYS)
    for j in reversed(starts) if causal else starts:
        end = min(j + KEYS, stop)
        yield slice(j, end), range(j - 1, start - 1, -1) if causal else range(end, stop)


def _exponents(
    head: ModeHead, block: slice, keys: Any, exact: bool, inside: NDArray[np.bool_] | None
) -> Floats:
    """log (W P) of every pair (n, B, K); `exact`: keys pulled backward, which are late.

    inside (B, K) : pairs that count; None: all, as if no key had any distance from its query.
    """
    t_query, t, dtype = head.t_query[block], head.t[keys], head.v.dtype
    n = len(head.decay)
    log_p = np.empty((n, len(t_query), len(t)), dtype)
    d2 = np.zeros(log_p.shape[1:], dtype)
    nothing = np.empty((len(t_query), 0), dtype), np.empty((len(t), 0), dtype)
    apart = head.q is not None and head.k is not None and inside is not None
    for m in range(n):
        q, k = (head.q[m, block], head.k[m, keys]) if apart else nothing  # type: ignore[index]
        late, early = (head.key_var, head.query_var) if exact else (head.query_var, head.key_var)
        noise = head.process_var[m], late[m], early[m]
        law = head.scale or 1.0, 0.0 if head.scale is None else 1.0, 1.0
        dynamics = Dynamics(head.decay[m], 0.0, *noise, *law, not exact, not exact)
        pair_up(log_p[m], d2, q, k, t_query, t, dynamics)
    if head.log_prior is not None:
        log_p[...] = head.log_prior(np.abs(t_query[:, None] - t), exact)
    common = (head.beta - 1.0) * np.tensordot(head.share, log_p, 1)
    if head.log_weight is not None:
        far = head.scale is None and d2.dtype == np.float64 and inside is not None
        if far and (d2[inside] >= TOO_FAR).any():
            raise ValueError(TOO_FAR_APART)
        common += head.beta * head.log_weight(d2)
    log_p += common.astype(dtype)
    return log_p


def _pull(head: ModeHead, block: slice, keys: Any, exact: bool) -> Floats:
    """Logarithm of what becomes of values on the way (n, B, K)."""
    rate = head.value_decay if exact else -head.value_decay
    tau = np.abs(head.t_query[block, None] - head.t[keys])
    return np.asarray(rate[:, None, None] * tau, dtype=head.v.dtype)


def _negligible(head: ModeHead, block: slice, total: _Sums, left: range, exact: bool) -> bool:
    """Whether the keys that are left together weigh less than the tolerance in every row.

    The weight of a key at no distance, and what it is pulled by, are monotone in the lag: largest
    at one of the ends.
    """
    ends = np.array([left[0], left[-1]])
    exponents = _exponents(head, block, ends, exact, None)
    if exact:
        exponents += np.maximum(_pull(head, block, ends, exact), 0.0)
    share = (0.5 if head.backward else 1.0) * head.tolerance
    bound = np.log(len(left) / share) + exponents.max(axis=2)
    return bool((bound <= np.log(total.total[..., -1]) + total.top).all())


def _write(
    head: ModeHead,
    block: slice,
    num: _Sums,
    den: _Sums,
    pieces: list[tuple[slice, NDArray[np.bool_], Floats, F64]],
) -> None:
    """Normalise, rotate to the query times, store."""
    scale = np.where(np.isneginf(den.top), 0.0, den.top)
    log_total = np.logaddexp(np.log(den.total[..., 0]) + scale, np.log(head.prior)[:, None])
    top = np.where(np.isneginf(num.top), 0.0, num.top)
    empty = np.isneginf(log_total)
    mean = num.total * np.exp(np.where(empty, np.nan, top - log_total))[..., None]
    rows = mean.swapaxes(0, 1).reshape(mean.shape[1], -1)[:, : head.out.shape[1]]
    head.out[block] = rotated(rows, head.t_query[block], head.omega, 1.0)
    head.precision[block] = np.exp(log_total).T
    if head.weights is None:
        return
    for keys, inside, weights, shift in pieces:
        scaled = weights * np.exp(np.where(empty, -np.inf, shift - log_total))[..., None]
        columns = keys if head.columns is None else head.columns[keys]
        target = head.weights[:, block, columns]
        head.weights[:, block, columns] = np.where(inside, scaled, target)
