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

from collections.abc import Iterator
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter.attention.inputs import Index
from afafilter.attention.recursions import F64, Dynamics, Floats, pair_up, rotated
from afafilter.attention.sums import Head, Model
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

Piece = tuple[slice, NDArray[np.bool_], Floats, F64]


class Rows(NamedTuple):
    """Some rows of a head by modes: t_query (B,), q (n, B, w), k and v (n, N, w), model (n,)."""

    head: Head
    at: slice
    t_query: F64
    q: Floats
    k: Floats
    v: Floats
    model: Model


def tasks(head: Head) -> Iterator[Task]:
    """Blocks of rows."""
    n = (head.v.shape[1] + 1) // 2 if head.apart else 1
    k, v = _by_mode(head.k, n), _by_mode(head.v, n)
    model = Model(*map(np.atleast_1d, head.model))

    def do(block: slice) -> None:
        t_query = head.t_query[block]
        q = _by_mode(rotated(head.q[block], t_query, head.omega, -1.0), n)
        sweep(Rows(head, block, t_query, q, k, v, model))

    rows = int(np.clip(TILE // (n * KEYS), 1, 256))
    return head.blocks(rows, n * 4 * (v.shape[2] + 8), do, uses_blas=True)


def _by_mode(x: Floats, n: int) -> Floats:
    """Channels (N, d) as (n, N, w), an odd last one of pairs beside zeros."""
    if x.shape[1] % n:
        x = np.pad(x, ((0, 0), (0, 1)))
    return np.ascontiguousarray(x.reshape(len(x), n, x.shape[1] // n).swapaxes(0, 1))


class _Sums:
    """Sums (n, B, c) of exponentials, relative to running maxima (n, B)."""

    def __init__(self, n: int, rows: int, columns: int) -> None:
        self.total = np.zeros((n, rows, columns))
        self.top = np.full((n, rows), -np.inf)

    def add(self, exponents: Floats, values: Floats) -> tuple[Floats, F64]:
        """Add sum_j e^{exponents} values_j; returns the scaled weights and their shift."""
        top = np.maximum(self.top, exponents.max(axis=2))
        shift = _finite(top)
        self.total *= np.exp(np.where(np.isneginf(self.top), 0.0, self.top - shift))[..., None]
        self.top = top
        exponents -= shift[..., None].astype(exponents.dtype)
        weights = np.exp(exponents, out=exponents)
        self.total += weights @ values
        return weights, shift


def _finite(top: F64) -> F64:
    """0 for -inf: where nothing has been added."""
    return np.where(np.isneginf(top), 0.0, top)


@np.errstate(all="ignore")
def sweep(rows: Rows) -> None:
    """Output rows of one head. Values that nothing pulls share the sums of the weights."""
    head, v, seen = rows.head, rows.v, rows.head.n_visible[rows.at]
    (n, size, width), ones = v.shape, np.ones((*v.shape[:2], 1), v.dtype)
    pulled = rows.model.value_decay.any()
    values = v if pulled else np.concatenate([v, ones], axis=2)
    num = _Sums(n, len(seen), values.shape[2])
    den = _Sums(n, len(seen), 1) if pulled else num
    pieces: list[Piece] = []
    for causal in (True, False) if head.backward else (True,):
        reach = size if head.window is None else head.window
        low, high = np.maximum(seen - reach, 0), seen
        if not causal:
            low, high = seen, np.minimum(seen + reach, size)
        exact = not causal and head.backward == "exact"
        for keys, left in _tiles(low, high, causal):
            index = np.arange(keys.start, keys.stop)
            inside = (index >= low[:, None]) & (index < high[:, None])
            exponents = _exponents(rows, keys, exact, inside)
            exponents[:, ~inside] = -np.inf
            if pulled:
                num.add(exponents + _pull(rows, keys, exact), v[:, keys])
            weights, shift = den.add(exponents, (ones if pulled else values)[:, keys])
            if head.weights is not None:
                pieces.append((keys, inside, weights, shift))
            if head.tolerance > 0 and len(left) and _negligible(rows, den, left, exact):
                break
    _write(rows, num.total[..., :width], num.top, den.total[..., -1], den.top, pieces)


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


def _exponents(rows: Rows, keys: Any, exact: bool, inside: NDArray[np.bool_] | None) -> Floats:
    """log (W P) of every pair (n, B, K); `exact`: keys pulled backward, which are late.

    inside (B, K) : pairs that count; None: all, as if no key had any distance from its query.
    """
    head, model, t_query, t = rows.head, rows.model, rows.t_query, rows.head.t[keys]
    law, n, d, dtype = head.law, len(rows.v), head.v.shape[1], rows.v.dtype
    log_p = np.empty((n, len(t_query), len(t)), dtype)
    d2 = np.zeros(log_p.shape[1:], dtype)
    ratio = law.kind == "power" and not head.apart  # log(1 + d2 / scale) takes the place of d2
    own_law = (law.scale, 1.0, 1.0) if ratio else (1.0, 0.0, 1.0)
    late, early = (model.key_var, model.query_var) if exact else (model.query_var, model.key_var)
    for m in range(n):
        channels = slice(None if inside is not None else 0)
        q, k = rows.q[m, :, channels], rows.k[m, keys, channels]
        noise = model.process_var[m], late[m], early[m]
        dynamics = Dynamics(model.decay[m], 0.0, *noise, *own_law, not exact, not exact)
        pair_up(log_p[m], d2, q, k, t_query, t, dynamics)
    if head.log_prior is not None:
        log_p[...] = head.log_prior(np.abs(t_query[:, None] - t), exact)
    share = np.minimum(2.0, d - 2.0 * np.arange(n)) / d if head.apart else np.ones(1)
    common = (model.beta - 1.0) * np.tensordot(share, log_p, 1)
    if ratio:
        common += model.beta * np.asarray(log(law.peak) - law.exponent * d2, dtype)
    elif law.weight is not None:
        if d2.dtype == np.float64 and inside is not None and (d2[inside] >= TOO_FAR).any():
            raise ValueError(TOO_FAR_APART)
        common += model.beta * law.weight.log(d2, law.dim)
    log_p += common.astype(dtype)
    return log_p


def _pull(rows: Rows, keys: Any, exact: bool) -> Floats:
    """Logarithm of what becomes of values on the way (n, B, K)."""
    rate = rows.model.value_decay if exact else -rows.model.value_decay
    tau = np.abs(rows.t_query[:, None] - rows.head.t[keys])
    return np.asarray(rate[:, None, None] * tau, dtype=rows.v.dtype)


def _negligible(rows: Rows, den: _Sums, left: range, exact: bool) -> bool:
    """Whether the keys that are left together weigh less than the tolerance in every row.

    The weight of a key at no distance, and what it is pulled by, are monotone in the lag: largest
    at one of the ends.
    """
    ends = np.array([left[0], left[-1]])
    exponents = _exponents(rows, ends, exact, None)
    if exact:
        exponents += np.maximum(_pull(rows, ends, exact), 0.0)
    share = (0.5 if rows.head.backward else 1.0) * rows.head.tolerance
    bound = np.log(len(left) / share) + exponents.max(axis=2)
    return bool((bound <= np.log(den.total[..., -1]) + den.top).all())


def _write(rows: Rows, num: F64, num_top: F64, den: F64, den_top: F64, pieces: list[Piece]) -> None:
    """Normalise, rotate to the query times, store."""
    head, at = rows.head, rows.at
    prior = np.log(rows.model.prior_precision)[:, None]
    log_total = np.logaddexp(np.log(den) + _finite(den_top), prior)
    empty = np.isneginf(log_total)
    mean = num * np.exp(np.where(empty, np.nan, _finite(num_top) - log_total))[..., None]
    out = mean.swapaxes(0, 1).reshape(mean.shape[1], -1)[:, : head.v.shape[1]]
    head.out[at, 0] = rotated(out, rows.t_query, head.omega_out, 1.0)
    head.precision[at] = np.exp(log_total).T
    for keys, inside, weights, shift in pieces:
        assert head.weights is not None
        scaled = weights * np.exp(np.where(empty, -np.inf, shift - log_total))[..., None]
        columns = keys if head.columns is None else head.columns[keys]
        target = head.weights[:, at, columns]
        head.weights[:, at, columns] = np.where(inside, scaled, target)
