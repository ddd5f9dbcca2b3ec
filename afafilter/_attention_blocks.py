"""Blocks of queries: running sums over tiles of keys, and the threads that share the blocks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._attention_tiles import (
    F64,
    LOST,
    Factors,
    Floats,
    Head,
    Operand,
    Side,
    Workspace,
    direct_squares,
    explicit_squares,
    key_chunks,
    linear_weights,
    log_weights,
    operand,
    phases,
    squared_norms,
    turn_pairs,
)  # fmt: skip

SERIAL_PAIRS = 2_000_000
"""Below this many pairs, starting threads costs more than it gains."""


class _Totals:
    """Running sums of one block of queries, with running maxima when exponents are large."""

    def __init__(self, rows: int, values: int, groups: int) -> None:
        self.num = np.zeros((rows, values))
        self.den = np.zeros((rows, groups))
        self.num_shift = np.full(rows, -np.inf)
        self.den_shift = np.full(rows, -np.inf)
        self.pieces: list[tuple[Any, NDArray[np.bool_] | None, F64]] = []

    @staticmethod
    def lift(sums: F64, shift: F64, top: F64) -> F64:
        """Rescale sums to a new running maximum; returns it, 0 where nothing was seen yet."""
        new = np.maximum(shift, top)
        scale = np.exp(np.where(np.isneginf(shift), 0.0, shift - new))
        sums *= scale[:, None]
        shift[:] = new
        return np.where(np.isneginf(new), 0.0, new)


def sweep(head: Head, start: int, stop: int, space: Workspace) -> None:
    """Compute the output rows start:stop of one head."""
    block = Block(head, start, stop, space)
    for side in head.sides():
        block.run(side)
    block.finish()


class Block:
    """One block of queries of one head."""

    def __init__(self, head: Head, start: int, stop: int, space: Workspace) -> None:
        self.head, self.rows, self.space = head, slice(start, stop), space
        self.t_rows = head.t_query[self.rows]
        self.dtype = head.v.dtype
        self.eps = float(np.finfo(self.dtype).eps)
        self.lost = LOST[self.dtype]
        self.reach = 0.4 * float(np.log(np.finfo(self.dtype).max))
        groups = 1 if head.known is None else head.known.shape[1]
        self.totals = _Totals(stop - start, head.v.shape[1], groups)
        self.online = head.needs_running_maximum
        if not self.online:
            self.totals.num_shift[:] = self.totals.den_shift[:] = 0.0
        self.turn_out: NDArray[Any] | None = None
        self.q: Floats | None = None
        self.q2: Floats = np.zeros(1)
        if head.law.kind != "plain":
            assert head.q is not None
            self.q = np.ascontiguousarray(head.q[self.rows])
            if head.omega is not None and head.omega.any():
                turn = phases(self.t_rows, head.omega, self.dtype)
                if head.omega_out is not None and np.array_equal(head.omega, head.omega_out):
                    self.turn_out = turn
                turned = space.get("turned", self.q.shape, self.dtype)
                self.q = turn_pairs(self.q, None if turn is None else turn.conj(), turned)
            self.q2 = squared_norms(self.q)
        # Queries before the first key: the common factor E^{2 beta} of all their weights may
        # underflow, so it is left out here and put back at the end.
        exact = head.backward == "exact" and not self.online
        first = head.t[0] if len(head.t) else self.t_rows[0]
        self.lead = np.maximum(first - self.t_rows, 0.0) if exact else np.zeros(stop - start)

    def spans(self, side: Side) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Keys [low, high) of each row."""
        seen, n = self.head.n_visible[self.rows], len(self.head.t)
        width = n if self.head.window is None else self.head.window
        if side.causal:
            return np.maximum(seen - width, 0), seen
        return seen, np.minimum(seen + width, n)

    def run(self, side: Side) -> None:
        """Add all keys of one direction, nearest first."""
        head = self.head
        low, high = self.spans(side)
        if high[-1] <= low[0]:
            return
        if side.causal:
            reference = self.t_rows[0]
            distance = self.t_rows - reference
        else:
            reference = max(self.t_rows[-1], head.t[0])
            distance = reference - self.t_rows
        centre = self.centre(side)
        queries = operand(head, side, self.space, True, self.q, self.q2, distance, centre)
        for j0, j1, edge in key_chunks(low, high, side.causal):
            gap = reference - head.t[j0:j1] if side.causal else head.t[j0:j1] - reference
            outside = None
            if edge:
                index = np.arange(j0, j1, dtype=np.int32)
                outside = index >= high.astype(np.int32)[:, None]
                if j0 < low[-1]:
                    outside |= index < low.astype(np.int32)[:, None]
            self.tile(side, queries, j0, j1, gap, centre, outside)
            left = (j0 - low[0]) if side.causal else (high[-1] - j1)
            if head.tolerance > 0 and left > 0 and self.negligible(side, j0, j1, int(left)):
                return

    def centre(self, side: Side) -> Floats | None:
        """A point near the block's queries when uncentred products would lose digits."""
        head = self.head
        if self.q is None or head.k is None:
            return None
        far = min(float(self.q2.max()), head.largest_key)
        least = head.least_variance(side, 0.0, head.longest)
        if 5 * self.eps * far <= self.lost * head.law.scale * least:
            return None
        return np.asarray(np.median(self.q, axis=0), dtype=self.dtype)

    def tile(
        self,
        side: Side,
        queries: Operand,
        j0: int,
        j1: int,
        gap: F64,
        centre: Floats | None,
        outside: NDArray[np.bool_] | None,
    ) -> None:
        """Add the keys j0:j1."""
        head, law = self.head, self.head.law
        shape = (len(self.t_rows), j1 - j0)
        nearest, longest = float(gap.min()), float(gap.max() + queries.distance.max())
        least = head.least_variance(side, max(nearest, 0.0), max(longest, 0.0))
        behind = max(-nearest, 0.0)
        fastest = max(2.0, 2.0 * head.beta) * max(head.mu, head.mu_value) * behind
        separable = fastest <= self.reach and (
            self.eps * (8 + fastest) * head.growth(behind) <= self.lost * least
        )
        if centre is not None and not side.query_late and head.mu * behind > 0.5:
            separable = False  # e_late c would be longer than the points it centres
        k = None if law.kind == "plain" or head.k is None else head.k[j0:j1]
        k2 = head.key_norms[j0:j1]
        S = X = tau = E = None
        if separable:
            keys = operand(head, side, self.space, False, k, k2, gap, centre)
            if law.kind != "power" or law.exponent != 1.0 or head.beta != 1.0 or self.online:
                S = self.space.get("S", shape, self.dtype)
                np.matmul(queries.lag_columns, keys.lag_columns.T, out=S)
            if k is not None:
                assert queries.columns is not None
                assert keys.columns is not None
                X = self.space.get("X", shape, self.dtype)
                far = min(queries.largest, keys.largest)
                if centre is None or 5 * self.eps * far <= self.lost * law.scale * least:
                    np.matmul(queries.columns, keys.columns.T, out=X)
                else:
                    direct_squares(
                        X, self.space.get("step", shape, self.dtype), side, queries, keys
                    )
                    X = self.with_variance(X, S, queries, keys)
            if self.online and (not side.query_late or side.degenerate(head)):
                tau = queries.distance[:, None] + gap
        else:
            tau = np.abs(self.t_rows[:, None] - head.t[j0:j1])
            E = np.exp(-head.mu * tau).astype(self.dtype)
            S = np.asarray(head.variance(tau, side.var_late, side.var_early), dtype=self.dtype)
            if k is not None:
                X = self.pairwise_squares(k, k2, E, side, least)
                if law.kind == "power":
                    X /= law.scale
                    X += S
        num_factors, den_factors = self.factors(side, queries, gap, tau, E)
        if self.online:
            self.add_online(side, S, X, tau, outside, j0, j1, num_factors)
        else:
            W = linear_weights(law, head.beta, S, X)
            if outside is not None:
                np.copyto(W, 0.0, where=outside)
            self.add(W, W, j0, j1, num_factors, den_factors)
            if head.weights is not None:
                self.keep(self.scaled(W, den_factors), outside, j0, j1, np.zeros(shape[0]))

    def with_variance(
        self, squares: Floats, S: Floats | None, queries: Operand, keys: Operand
    ) -> Floats:
        """|R|^2 or, for the power law, S + |R|^2/nu."""
        if self.head.law.kind == "power":
            squares /= self.head.law.scale
            squares += queries.lag_columns @ keys.lag_columns.T if S is None else S
        return squares

    def pairwise_squares(
        self, k: Floats, k2: Floats, E: Floats, side: Side, least: float
    ) -> Floats:
        """|x_late - E x_early|^2 with E formed pair by pair."""
        assert self.q is not None
        q2 = self.q2[:, None]
        if 5 * self.eps * min(q2.max(), k2.max()) > self.lost * self.head.law.scale * least:
            return explicit_squares(self.q, k, E, side.query_late)
        late, early = (q2, k2) if side.query_late else (k2, q2)
        return np.asarray(late + E * (E * early - 2.0 * (self.q @ k.T)))

    def add_online(
        self,
        side: Side,
        S: Floats | None,
        X: Floats | None,
        tau: F64 | None,
        outside: NDArray[np.bool_] | None,
        j0: int,
        j1: int,
        num_factors: Factors,
    ) -> None:
        """Add one tile with the running maximum."""
        head, totals = self.head, self.totals
        assert S is not None
        logits = log_weights(head, side, S, X, tau)
        growing = None
        if not side.query_late:
            assert tau is not None
            logits -= (2.0 * head.beta * head.mu) * tau
            if head.mu_value > 0:
                growing = logits + head.mu_value * tau
        if outside is not None:
            for array in (logits, growing):
                if array is not None:
                    np.copyto(array, -np.inf, where=outside)
        top = logits.max(axis=1).astype(np.float64)
        shift = totals.lift(totals.den, totals.den_shift, top)
        logits -= shift[:, None]
        den_weights = np.exp(logits, out=logits)
        if growing is None:
            totals.lift(totals.num, totals.num_shift, top)
            num_weights = den_weights
        else:
            top = growing.max(axis=1).astype(np.float64)
            own = totals.lift(totals.num, totals.num_shift, top)
            num_weights = np.exp(growing - own[:, None]).astype(self.dtype)
        self.add(num_weights, den_weights, j0, j1, num_factors, Factors())
        if head.weights is not None:
            self.keep(den_weights, outside, j0, j1, shift)

    def factors(
        self, side: Side, queries: Operand, gap: F64, tau: F64 | None, E: Floats | None
    ) -> tuple[Factors, Factors]:
        """Decays of the values and of the weights: as rows and columns, or pair by pair."""
        head = self.head
        if side.query_late:
            num, den = head.mu_value, 0.0
        else:
            den = 2.0 * head.beta * head.mu
            num = den - head.mu_value
        if self.online and not side.query_late:
            return Factors(), Factors()
        distance = queries.distance if side.query_late else queries.distance - self.lead
        if E is None:
            return (
                Factors.separable(num, distance, gap, self.dtype),
                Factors.separable(den, distance, gap, self.dtype),
            )
        assert tau is not None
        if not side.query_late:
            tau = tau - self.lead[:, None]
        pairs = [
            None if rate == 0 else E if rate == head.mu and side.query_late
            else np.exp(-rate * tau).astype(self.dtype)
            for rate in (num, den)
        ]  # fmt: skip
        return Factors(pair=pairs[0]), Factors(pair=pairs[1])

    def add(
        self,
        num_weights: Floats,
        den_weights: Floats,
        j0: int,
        j1: int,
        num: Factors,
        den: Factors,
    ) -> None:
        """Both sums; one matrix product where the weights are the same."""
        head, totals = self.head, self.totals
        values = head.v[j0:j1]
        known = None if head.known is None else head.known[j0:j1]
        m = values.shape[1]
        if num_weights is not den_weights or num.pair is not None or den.pair is not None:
            totals.num += self.product(num_weights, values, num)
            ones = np.ones((j1 - j0, 1), self.dtype) if known is None else known
            totals.den += self.product(den_weights, ones, den)
            return
        both = self.space.get("both", (j1 - j0, m + totals.den.shape[1]), self.dtype)
        np.multiply(values, 1 if num.key is None else num.key[:, None], out=both[:, :m])
        both[:, m:] = 1.0 if known is None else known
        if den.key is not None:
            both[:, m:] *= den.key[:, None]
        sums = self.space.get("sums", (len(num_weights), both.shape[1]), self.dtype)
        np.matmul(num_weights, both, out=sums)
        totals.num += sums[:, :m] if num.row is None else sums[:, :m] * num.row[:, None]
        totals.den += sums[:, m:] if den.row is None else sums[:, m:] * den.row[:, None]

    def product(self, weights: Floats, columns: Floats, factors: Factors) -> Floats:
        """Weights times columns, with their decay."""
        if factors.pair is not None:
            return np.asarray((weights * factors.pair) @ columns)
        scaled = columns if factors.key is None else columns * factors.key[:, None]
        out = weights @ scaled
        return np.asarray(out if factors.row is None else out * factors.row[:, None])

    @staticmethod
    def scaled(weights: Floats, factors: Factors) -> Floats:
        """The weights times their decay, as an array of their own."""
        if factors.pair is not None:
            return np.asarray(weights * factors.pair)
        if factors.row is None or factors.key is None:
            return weights.copy()
        return np.asarray(weights * factors.row[:, None] * factors.key)

    def keep(
        self,
        weights: Floats,
        outside: NDArray[np.bool_] | None,
        j0: int,
        j1: int,
        shift: F64,
    ) -> None:
        """Store weights; `finish` normalises them."""
        head = self.head
        assert head.weights is not None
        columns = slice(j0, j1) if head.columns is None else head.columns[j0:j1]
        if outside is not None:
            weights = np.where(outside, head.weights[self.rows, columns], weights)
        head.weights[self.rows, columns] = weights
        self.totals.pieces.append((columns, outside, shift))

    def negligible(self, side: Side, j0: int, j1: int, left: int) -> bool:
        """Whether the keys beyond j0:j1 together weigh less than the tolerance in every row."""
        head, totals = self.head, self.totals
        edge = head.t[j0] if side.causal else head.t[j1 - 1]
        end = head.t[0] if side.causal else head.t[-1]
        near, far = np.abs(self.t_rows - edge), np.abs(self.t_rows - end)
        with np.errstate(divide="ignore"):
            log_weight = -head.beta * np.log(
                np.minimum(
                    head.variance(near, side.var_late, side.var_early),
                    head.variance(far, side.var_late, side.var_early),
                )
            )
            if not side.query_late:
                rate = 2.0 * head.beta * head.mu
                slowest = min(rate, rate - head.mu_value)
                log_weight -= slowest * (near if slowest > 0 else far) - rate * self.lead
            total = np.log(totals.den.min(axis=1)) + totals.den_shift
        if head.law.weight is not None:
            log_weight += head.beta * float(head.law.weight.log(0.0, head.law.dim))
        share = 0.5 if head.backward else 1.0
        bound = np.log(left) + log_weight - np.log(share * head.tolerance)
        return bool((bound <= total).all())

    def finish(self) -> None:
        """Normalise, put factors back, rotate to the query times, write."""
        head, totals = self.head, self.totals
        empty = totals.den == 0
        shift = np.where(np.isneginf(totals.den_shift), 0.0, totals.den_shift)
        lift = np.where(np.isneginf(totals.num_shift), 0.0, totals.num_shift) - shift
        den = np.where(empty, np.nan, totals.den)
        mean = totals.num.reshape(len(den), head.out.shape[1], -1) / den[:, :, None]
        mean *= np.exp(lift + head.mu_value * self.lead)[:, None, None]
        paths: Floats = np.ascontiguousarray(mean.swapaxes(0, 1), dtype=self.dtype)
        if head.omega_out is not None:
            if self.turn_out is None:
                self.turn_out = phases(self.t_rows, head.omega_out, self.dtype)
            turn_pairs(paths, self.turn_out, paths)
        head.out[self.rows] = paths.swapaxes(0, 1)
        scale = head.beta * np.log(head.law.peak) + shift - 2 * head.beta * head.mu * self.lead
        head.precision[self.rows] = totals.den * np.exp(scale)[:, None]
        if head.weights is not None:
            for columns, outside, seen in totals.pieces:
                scale = np.where(empty[:, 0], 0.0, np.exp(seen - shift) / den[:, 0])[:, None]
                if outside is not None:
                    scale = np.where(outside, 1.0, scale)
                head.weights[self.rows, columns] *= scale


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(tasks: Sequence[tuple[int, Any]], threads: int) -> None:
    """Do tasks (pairs to visit, function of a Workspace), the long ones first, over threads."""
    queue = deque(sorted(tasks, key=lambda task: -task[0]))
    threads = min(threads, len(queue)) if sum(cost for cost, _ in tasks) > SERIAL_PAIRS else 1

    def work() -> None:
        space = Workspace()
        with np.errstate(all="ignore"):
            while queue:
                try:
                    _, task = queue.popleft()
                except IndexError:
                    return
                task(space)

    if threads <= 1:
        work()
        return
    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
