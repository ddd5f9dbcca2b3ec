"""Blocks of queries: running sums over tiles of keys."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import read_only
from afafilter.attention import tiles
from afafilter.attention.pair_weights import linear_weights, log_weights
from afafilter.attention.tiles import (
    F64,
    LOST,
    Decay,
    Floats,
    Head,
    Keys,
    Operand,
    Side,
    Workspace,
    direct_squares,
    explicit_squares,
    key_chunks,
    operand,
)  # fmt: skip
from afafilter.linalg.rotation import half_tangents, rotate

Index = NDArray[np.intp]


class _Totals:
    """Running sums of one block of queries, with running maxima when exponents are large."""

    def __init__(self, rows: int, values: int, groups: int) -> None:
        self.num = np.zeros((rows, values))
        self.den = np.zeros((rows, groups))
        self.num_shift = np.full(rows, -np.inf)
        self.den_shift = np.full(rows, -np.inf)
        self.pieces: list[tuple[slice, Any, NDArray[np.bool_] | None, F64]] = []

    def part(self, rows: slice) -> _Totals:
        """The sums of some rows; adding to them adds to these."""
        part = copy(self)
        part.num, part.den = self.num[rows], self.den[rows]
        part.num_shift, part.den_shift = self.num_shift[rows], self.den_shift[rows]
        return part

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


@dataclass(frozen=True, eq=False)
class View:
    """A block's queries on one side, from a reference time and around a centre."""

    side: Side
    queries: Operand
    columns: Floats
    """All columns of the queries in one array."""
    centre: Floats | None
    sums: F64
    """(B, m + g) sums of values and of weights, before the queries' own decay."""

    @cached_property
    def longest(self) -> float:
        """Greatest distance of a query."""
        return float(max(self.queries.distance[0], self.queries.distance[-1]))

    def part(self, rows: slice) -> View:
        """Some of its rows."""
        return View(
            self.side, self.queries.part(rows), self.columns[rows], self.centre, self.sums[rows]
        )


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
        self.turn_out: F64 | None = None
        self.q: Floats | None = None
        self.q2: Floats = np.zeros(1)
        if head.law.kind != "plain":
            assert head.q is not None
            self.q = np.ascontiguousarray(head.q[self.rows])
            if head.omega is not None and head.omega.any():
                turn = half_tangents(self.t_rows, head.omega)
                self.q = rotate(self.q, turn, np.empty_like(self.q), backward=True)
                if head.omega_out is not None and np.array_equal(head.omega, head.omega_out):
                    self.turn_out = turn
            self.q2 = head.query_norms[self.rows]
        # Queries before the first key: the common factor E^{2 beta} of all their weights may
        # underflow, so it is left out here and put back at the end.
        exact = head.backward == "exact" and not self.online
        first = head.t[0] if len(head.t) else self.t_rows[0]
        self.lead = np.maximum(first - self.t_rows, 0.0) if exact else np.zeros(stop - start)

    def part(self, rows: slice) -> Block:
        """Some of its rows, with the same sums."""
        part = copy(self)
        part.rows = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        part.t_rows, part.lead = self.t_rows[rows], self.lead[rows]
        part.totals = self.totals.part(rows)
        if self.q is not None:
            part.q, part.q2 = self.q[rows], self.q2[rows]
        return part

    def parts(self, size: int) -> Iterator[slice]:
        """Its rows, `size` at a time."""
        for first in range(0, len(self.t_rows), size):
            yield slice(first, min(first + size, len(self.t_rows)))

    def run(self, side: Side) -> None:
        """Add all keys of one direction.

        Compiled tiles leave out pairs that do not count: all rows go together. Otherwise at most
        ROWS do, up to an edge beyond which are the keys that all rows see.
        """
        head, n = self.head, len(self.head.t)
        seen = head.n_visible[self.rows]
        count = len(self.t_rows)
        together = count <= tiles.ROWS or self.is_fused(side)
        if together:
            edge = 0 if side.causal else n
        else:
            edge = int(seen[0] if side.causal else seen[-1])
        width = n if head.window is None else head.window
        for rows in self.parts(count if together else tiles.ROWS):
            if side.causal:
                low, high = np.maximum(seen[rows] - width, edge), seen[rows]
            else:
                low, high = seen[rows], np.minimum(seen[rows] + width, edge)
            if low[0] < high[-1]:
                self.part(rows).add_range(side, low, high)
        low, high = (np.array([0]), np.array([edge])) if side.causal else (
            np.array([edge]), np.array([n])
        )  # fmt: skip
        if low[0] < high[0]:
            self.add_range(side, low, high)

    def view(self, side: Side, reference: float, centre: Floats | None) -> View:
        """The queries as seen from a reference time."""
        distance = self.t_rows - reference if side.causal else reference - self.t_rows
        lead = 0.0 if side.query_late else self.lead
        queries = operand(
            self.head, side, self.space, True, self.q, self.q2, distance, centre, lead
        )
        shape = (len(distance), queries.outer.shape[1] + queries.x.shape[1])
        columns = queries.columns(self.space.get("queriescolumns", shape, self.dtype))
        m, groups = self.totals.num.shape[1], self.totals.den.shape[1]
        return View(side, queries, columns, centre, np.zeros((len(distance), m + groups)))

    def add_range(self, side: Side, low: Index, high: Index) -> None:
        """Add the keys [low, high) of each row, or of all rows, nearest first."""
        head = self.head
        reference = self.t_rows[0] if side.causal else max(self.t_rows[-1], head.t[0])
        centre = self.centre(side)
        view = self.view(side, reference, centre)
        most, most_edge = tiles.KEYS, tiles.EDGE_KEYS
        if self.is_fused(side):
            most = most_edge = tiles.KEYS if head.tolerance > 0 else tiles.COMPILED_KEYS
        for j0, j1, crossed in key_chunks(low, high, side.causal, most, most_edge):
            keys = Keys(head, side, self.space, (j0, j1), reference, centre)
            if crossed:
                rows = slice(np.searchsorted(high, j0, "right"), np.searchsorted(low, j1))
                limits = np.clip([low[rows] - j0, high[rows] - j0], 0, j1 - j0)
                self.part(rows).tile(view.part(rows), keys, limits)
            else:
                self.tile(view, keys, None)
            left = (j0 - low[0]) if side.causal else (high[-1] - j1)
            if head.tolerance > 0 and left > 0:
                self.take(view)
                if self.negligible(side, j0, j1, int(left)):
                    return
        self.take(view)

    def centre(self, side: Side) -> Floats | None:
        """A point near the block's queries when uncentred products would lose digits."""
        head = self.head
        if self.q is None or head.k is None:
            return None
        if not head.loses_digits(side, min(float(self.q2.max()), head.largest_key)):
            return None
        return np.asarray(np.median(self.q, axis=0), dtype=self.dtype)

    def is_fused(self, side: Side) -> bool:
        """Whether all tiles can be compiled ones, however far behind the first row keys are."""
        head, span = self.head, float(self.t_rows[-1] - self.t_rows[0])
        least = head.least_variance(side, 0.0, head.longest)
        return (
            not self.online
            and head.weights is None
            and not head.may_need_centre
            and self.is_in_range(span, least)
        )

    def is_in_range(self, behind: float, least: float) -> bool:
        """Whether factors of keys so far behind the reference are exact enough for S >= least."""
        head = self.head
        fastest = max(2.0, 2.0 * head.beta) * max(head.mu, head.mu_value) * behind
        return fastest <= self.reach and bool(
            self.eps * (8 + fastest) * head.growth(behind) <= self.lost * least
        )

    def is_separable(self, view: View, keys: Keys) -> bool:
        """Whether factors of queries and keys apart are in range and lose no digits."""
        head, behind = self.head, max(-keys.nearest, 0.0)
        if behind == 0.0:
            return True
        if view.centre is not None and not view.side.query_late and head.mu * behind > 0.5:
            return False  # e_late c would be longer than the points it centres
        return self.is_in_range(behind, self.least_variance(view, keys))

    def least_variance(self, view: View, keys: Keys) -> float:
        """Least S of a tile."""
        longest = max(keys.farthest + view.longest, 0.0)
        return self.head.least_variance(view.side, max(keys.nearest, 0.0), longest)

    def is_exact(self, far: float, view: View, keys: Keys) -> bool:
        """Whether products of points up to |x|^2 = far give |R|^2 with enough digits."""
        allowed = self.lost * self.head.law.scale * self.least_variance(view, keys)
        return 5 * self.eps * far <= allowed

    def tile(self, view: View, keys: Keys, limits: Index | None) -> None:
        """Add some keys, of which a row i sees limits[0, i] to limits[1, i]; None: all."""
        head = self.head
        separable = self.is_separable(view, keys)
        if (
            separable
            and not self.online
            and head.weights is None
            and self.has_exact_product(view, keys)
        ):
            self.fused_tile(view, keys, limits)
            return
        row = len(keys.gap) * self.dtype.itemsize
        for rows in self.parts(max(tiles.SCRATCH // row, 1)):
            outside = None
            if limits is not None:
                index = np.arange(len(keys.gap))
                outside = index < limits[0, rows, None]
                outside |= index >= limits[1, rows, None]
            self.part(rows).general_tile(view.part(rows), keys, outside, separable)

    def fused_tile(self, view: View, keys: Keys, limits: Index | None) -> None:
        """Add keys whose weights are powers of products."""
        from afafilter._core.attention_kernels import add_tile, summed_columns

        queries, x, decay = view.queries, keys.operand, keys.operand.decay
        exponent = 1.0 if keys.x is None else self.head.law.exponent
        ones = np.ones(len(keys.gap), self.dtype)
        if self.head.known is None:
            values, fade = keys.values, ones if decay.num is None else decay.num
        else:
            values, fade = keys.sums, ones
        part = self.space.get(
            "part", (len(view.sums), summed_columns(values.shape[1], self.dtype.itemsize)),
            self.dtype,
        )  # fmt: skip
        add_tile(
            view.columns, x.outer, x.x, x.scale, queries.lag_columns, x.lag_columns,
            read_only(values), fade, ones if decay.den is None else decay.den,
            np.empty((2, 0), np.intp) if limits is None else limits,
            self.dtype.type(exponent), self.dtype.type(self.head.beta), part, view.sums,
        )  # fmt: skip

    def general_tile(
        self, view: View, keys: Keys, outside: NDArray[np.bool_] | None, separable: bool
    ) -> None:
        """Add some keys by way of arrays of variances and distances."""
        head, law, side = self.head, self.head.law, view.side
        shape = (len(self.t_rows), len(keys.gap))
        X = tau = None
        if separable:
            pair = None
            S = np.matmul(
                view.queries.lag_columns, keys.operand.lag_columns.T,
                out=self.space.get("S", shape, self.dtype),
            )  # fmt: skip
            if keys.x is not None:
                X = self.squares(view, keys, S)
            if self.online and (not side.query_late or side.degenerate(head)):
                tau = view.queries.distance[:, None] + keys.gap
        else:
            tau = np.abs(self.t_rows[:, None] - head.t[keys.rows])
            E = np.exp(-head.mu * tau).astype(self.dtype)
            S = np.asarray(head.variance(tau, side.var_late, side.var_early), dtype=self.dtype)
            if keys.x is not None:
                X = self.pairwise_squares(view, keys, E)
                if law.kind == "power":
                    X /= law.scale
                    X += S
            lead = 0.0 if side.query_late else self.lead[:, None]
            pair = Decay.over(head.rates(side), tau - lead, self.dtype)
        if self.online:
            self.add_online(view, keys, S, X, tau, outside, pair)
            return
        W = linear_weights(law, head.beta, S, X)
        if outside is not None:
            np.copyto(W, 0.0, where=outside)
        self.add(W, W, view, keys, pair)
        if head.weights is not None:
            self.keep(scaled(W, view, keys, pair), outside, keys, np.zeros(shape[0]))

    def has_exact_product(self, view: View, keys: Keys) -> bool:
        """Whether |R|^2 by the fused product has enough digits."""
        far = min(view.queries.largest, keys.operand.largest)
        return view.centre is None or self.is_exact(far, view, keys)

    def squares(self, view: View, keys: Keys, S: Floats) -> Floats:
        """|R|^2 or, for the power law, S + |R|^2/nu."""
        queries, law = view.queries, self.head.law
        X = self.space.get("X", S.shape, self.dtype)
        if self.has_exact_product(view, keys):
            return np.matmul(view.columns, keys.columns.T, out=X)
        step = self.space.get("step", X.shape, self.dtype)
        direct_squares(X, step, view.side.query_late, queries, keys.operand)
        if law.kind == "power":
            X /= law.scale
            X += S
        return X

    def pairwise_squares(self, view: View, keys: Keys, E: Floats) -> Floats:
        """|x_late - E x_early|^2 with E formed pair by pair."""
        assert self.q is not None
        assert keys.x is not None
        q2, k2 = self.q2[:, None], keys.norms
        if not self.is_exact(min(q2.max(), k2.max()), view, keys):
            return explicit_squares(self.q, keys.x, E, view.side.query_late)
        late, early = (q2, k2) if view.side.query_late else (k2, q2)
        return np.asarray(late + E * (E * early - 2.0 * (self.q @ keys.x.T)))

    def add_online(
        self,
        view: View,
        keys: Keys,
        S: Floats | None,
        X: Floats | None,
        tau: F64 | None,
        outside: NDArray[np.bool_] | None,
        pair: Decay | None,
    ) -> None:
        """Add one tile with the running maximum."""
        head, totals, side = self.head, self.totals, view.side
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
        self.add(num_weights, den_weights, view, keys, pair)
        if head.weights is not None:
            self.keep(den_weights, outside, keys, shift)

    def add(
        self,
        num_weights: Floats,
        den_weights: Floats,
        view: View,
        keys: Keys,
        pair: Decay | None,
    ) -> None:
        """Both sums; one matrix product where the weights are the same.

        pair: decays (B, T) of each pair; None: those of the queries and the keys.
        """
        totals, values = self.totals, self.head.v[keys.rows]
        m = values.shape[1]
        if pair is not None:
            num, den = (
                w if decay is None else w * decay
                for w, decay in zip((num_weights, den_weights), pair)
            )
            totals.num += num @ values
            totals.den += den @ keys.ones
            return
        if num_weights is den_weights:
            sums = self.space.get("sums", view.sums.shape, self.dtype)
            np.matmul(num_weights, keys.sums, out=sums)
            np.add(view.sums, sums, out=view.sums)
        else:
            view.sums[:, :m] += num_weights @ keys.sums[:, :m]
            view.sums[:, m:] += den_weights @ keys.sums[:, m:]
        if self.online:
            self.take(view)

    def take(self, view: View) -> None:
        """Add what a view has summed."""
        totals, m = self.totals, self.totals.num.shape[1]
        sums = (view.sums[:, :m], view.sums[:, m:])
        for total, part, decay in zip((totals.num, totals.den), sums, view.queries.decay):
            if decay is not None:
                part *= decay[:, None]
            total += part
        view.sums[...] = 0.0

    def keep(
        self,
        weights: Floats,
        outside: NDArray[np.bool_] | None,
        keys: Keys,
        shift: F64,
    ) -> None:
        """Store weights; `finish` normalises them."""
        head = self.head
        assert head.weights is not None
        columns = keys.rows if head.columns is None else head.columns[keys.rows]
        if outside is not None:
            weights = np.where(outside, head.weights[self.rows, columns], weights)
        head.weights[self.rows, columns] = weights
        self.totals.pieces.append((self.rows, columns, outside, shift))

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
        lift += head.mu_value * self.lead
        den = np.where(empty, np.nan, totals.den)
        out = head.out[self.rows]
        mean = totals.num.reshape(out.shape)
        mean /= den[:, :, None]
        if lift.any():
            mean *= np.exp(lift)[:, None, None]
        if head.omega_out is not None and head.omega_out.any():
            if self.turn_out is None:
                self.turn_out = half_tangents(self.t_rows, head.omega_out)
            rotate(mean.swapaxes(0, 1), self.turn_out, out.swapaxes(0, 1))
        else:
            out[...] = mean
        scale = head.beta * np.log(head.law.peak) + shift - 2 * head.beta * head.mu * self.lead
        head.precision[self.rows] = totals.den * np.exp(scale)[:, None]
        if head.weights is not None:
            for rows, columns, outside, seen in totals.pieces:
                own = slice(rows.start - self.rows.start, rows.stop - self.rows.start)
                scale = np.exp(seen - shift[own]) / den[own, 0]
                scale = np.where(empty[own, 0], 0.0, scale)[:, None]
                if outside is not None:
                    scale = np.where(outside, 1.0, scale)
                head.weights[rows, columns] *= scale


def scaled(weights: Floats, view: View, keys: Keys, pair: Decay | None) -> Floats:
    """The weights times their decay, as an array of their own."""
    if pair is not None:
        return weights.copy() if pair.den is None else np.asarray(weights * pair.den)
    row, key = view.queries.decay.den, keys.operand.decay.den
    if row is None or key is None:
        return weights.copy()
    return np.asarray(weights * row[:, None] * key, dtype=weights.dtype)
