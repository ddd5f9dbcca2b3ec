"""Laws at the times that were asked for, from the laws at the nodes of a timeline.

Off its nodes a filter's answer is the last law before, predicted; a smoother's queries are nodes
themselves. Before node 0 the state is what can have led there, x(s) = Phi^-1 (x(t0) - psi - w), w
independent of x(t0): the model run backwards, dx = -(A x + u) ds + noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.steps import distinct_steps
from afafilter._base.unknown import OpenLaw, chosen
from afafilter.kalman import recursions
from afafilter.kalman.flat_start import FlatStart, add_delta
from afafilter.kalman.group import Run
from afafilter.kalman.timeline import Index, Timeline
from afafilter.linalg import discretiser
from afafilter.linalg.subspaces import ROUNDING, carry
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

Opened = tuple[Array, Array]

REACH = 300.0
"""|rate * gap| up to which a past that decayed is computed: e^600 for variances."""


class Answer(NamedTuple):
    """Mean (n, k, d), cov (G, k, d, d), undetermined where they are, and the laws behind those."""

    mean: Array
    cov: Array
    open_laws: tuple[OpenLaw, ...]


def at_observations(line: Timeline, run: Run) -> Answer:
    """Laws at the nodes that show observations; those of flat starts are reported, in place."""
    laws: list[OpenLaw] = []
    for g, flat in enumerate(run.flat):
        if flat is not None:
            laws += _report(run, g, flat)
    mean, cov = run.mean, run.cov
    if len(line.times) != len(line.seen_at):
        mean, cov = mean[:, line.seen_at], cov[:, line.seen_at]
        laws = [law for law in chosen(laws, line.seen_at) if law.moved().any()]
    return Answer(mean, cov, tuple(laws))


def filtered(
    model: LinearSDE | DiscreteModel, line: Timeline, run: Run, grid: Array, asked: Array
) -> Answer:
    """Laws at `asked` given what is stamped (grid) up to then; if that is the grid, by index."""
    if asked is grid and not getattr(model, "delay", 0.0):
        return at_observations(line, run)
    assert isinstance(model, LinearSDE)
    used = np.arange(1, len(grid) + 1)
    if asked is not grid:
        used = np.searchsorted(grid, asked, side="right")
    early = int(np.searchsorted(used, 0, side="right"))
    node = line.seen_at[used[early:] - 1]
    dt = asked[early:] - line.times[node]
    stamps = np.maximum(np.abs(asked[early:]), np.abs(line.times[node]))
    steps, index = distinct_steps(dt, stamps)
    Phi, psi, V = (part[index] for part in model.transition(steps))
    mean = np.einsum("kij,nkj->nki", Phi, run.mean[:, node]) + psi
    cov = Phi @ run.cov[:, node] @ np.swapaxes(Phi, -1, -2) + V
    laws = []
    for g, flat, rows, part in _flat_parts(run, node):
        at, where = node[part], np.ix_(rows, part)
        moves = Phi[part], dt[part], stamps[part], line.sizes
        some, some_cov = mean[where], cov[g, part]
        if at[0] < len(flat.M):
            M = flat.M[at] @ np.swapaxes(Phi[part], -1, -2)
            some, some_cov = add_delta(M, flat.T[at], flat.s[:, at], flat.count[at], some, some_cov)
        law = OpenLaw(rows, part, some, some_cov, *carry(*moves, *flat.open_at(at)))
        mean[where], cov[g, part] = law.report()
        laws.append(law)
    if early:
        law = _prior_laws(model, line, asked[:early], np.arange(len(mean)))
        before, spread = law.report()
        shape = (len(cov), *spread.shape)
        mean = np.concatenate([before, mean], axis=1)
        cov = np.concatenate([np.broadcast_to(spread, shape), cov], axis=1)
        laws = [law, *(other._replace(at=other.at + early) for other in laws)]
    return Answer(mean, cov, _kept(laws))


def smoothed(model: LinearSDE | DiscreteModel, line: Timeline, run: Run, asked: Array) -> Answer:
    """Laws at `asked` given all observations."""
    assert isinstance(model, LinearSDE)
    node = np.maximum(line.asked, 0)
    mean, cov = run.mean[:, node], run.cov[:, node]
    early = int(np.count_nonzero(line.asked < 0))
    back = line.times[0] - asked[:early]
    Phi, psi, V, lost = _backward(model, back)
    with np.errstate(over="ignore", invalid="ignore"):
        mean[:, :early] = np.einsum("kij,nkj->nki", Phi, mean[:, :early]) + psi
        cov[:, :early] = Phi @ cov[:, :early] @ np.swapaxes(Phi, -1, -2) + V
    laws = []
    for g in range(len(run.flat) if lost.size else 0):
        if run.flat[g] is None:
            rows, at = _members(run, g), np.arange(early)
            laws.append(
                OpenLaw(rows, at, mean[rows, :early], cov[g, :early].copy(), *_opened(lost))
            )
            mean[rows, :early], cov[g, :early] = laws[-1].report()
    for g, flat, rows, part in _flat_parts(run, node):
        directions, rounding = flat.open_at(node[part])
        move = part < early
        if move.any():
            stamp = np.maximum(np.abs(asked[part[move]]), np.abs(line.times[0]))
            moves = Phi[part[move]], back[part[move]], stamp, line.sizes
            directions[move], rounding[move] = carry(*moves, directions[move], rounding[move])
            more = np.zeros((len(part), lost.shape[1], model.dim))
            more[move] = lost[part[move]]
            directions, rounding = _opened(more, directions, rounding)
        law = OpenLaw(rows, part, mean[np.ix_(rows, part)], cov[g, part], directions, rounding)
        mean[np.ix_(rows, part)], cov[g, part] = law.report()
        laws.append(law)
    return Answer(mean, cov, _kept(laws))


def _flat_parts(run: Run, node: Index) -> Iterator[tuple[int, FlatStart, Index, Index]]:
    """Group, its flat start, its paths, and which answers lie at its nodes with open directions."""
    for g, flat in enumerate(run.flat):
        if flat is None:
            continue
        c = len(flat.M)
        for part in (np.flatnonzero(node < c), np.flatnonzero((node >= c) & (node < flat.last))):
            if len(part):
                yield g, flat, _members(run, g), part


def _report(run: Run, g: int, flat: FlatStart) -> Iterator[OpenLaw]:
    """Report the laws of group g, in place; those that leave anything open."""
    c, rows = len(flat.M), _members(run, g)
    alone = len(rows) == len(run.mean)
    mean = run.mean if alone else run.mean[rows]
    d = mean.shape[-1]
    given, cov = np.empty((len(rows), c, d)), np.empty((c, d, d))
    s = np.ascontiguousarray(flat.s)
    if recursions.report_states(
        flat.M, flat.rounding, flat.T, s, flat.count, flat.smoothed, mean, run.cov[g], given, cov
    ):
        yield OpenLaw(rows, np.arange(c), given, cov, flat.M, flat.rounding)
    if not alone:
        run.mean[rows] = mean
    if flat.last > c:
        part = slice(c, flat.last)
        law = OpenLaw(
            rows,
            np.arange(c, flat.last),
            run.mean[rows, part],
            run.cov[g, part].copy(),
            flat.later,
            flat.later_rounding,
        )
        run.mean[rows, part], run.cov[g, part] = law.report()
        if law.moved().any():
            yield law


def _kept(laws: list[OpenLaw]) -> tuple[OpenLaw, ...]:
    """Those that leave anything open."""
    return tuple(law for law in laws if len(law.at) and law.moved().any())


def _members(run: Run, g: int) -> Index:
    if len(run.flat) == 1:
        return np.arange(len(run.group))
    return np.flatnonzero(run.group == g)


def _prior_laws(model: LinearSDE, line: Timeline, asked: Array, paths: Index) -> OpenLaw:
    """Laws without data."""
    mean0, cov0, D = line.law
    k, at = len(asked), np.arange(len(asked))
    if model.prior == "stationary":
        none = np.zeros((k, 0, model.dim))
        mean = np.broadcast_to(mean0, (len(paths), k, *mean0.shape))
        return OpenLaw(paths, at, mean, np.broadcast_to(cov0, (k, *cov0.shape)), none, none)
    gap = asked - line.times[0]
    back = _backward(model, np.maximum(-gap, 0.0))
    ahead = model.transition(np.maximum(gap, 0.0))
    past = gap < 0
    Phi = np.where(past[:, None, None], back[0], ahead[0])
    psi = np.where(past[:, None], back[1], ahead[1])
    V = np.where(past[:, None, None], back[2], ahead[2])
    with np.errstate(over="ignore", invalid="ignore"):
        cov = Phi @ cov0 @ np.swapaxes(Phi, -1, -2) + V
        mean = np.broadcast_to(Phi @ mean0 + psi, (len(paths), k, model.dim))
        start = np.broadcast_to(D.T, (k, *D.T.shape))
        stamp = np.maximum(np.abs(asked), np.abs(line.times[0]))
        opened = carry(Phi, np.abs(gap), stamp, line.sizes, start, ROUNDING * np.abs(start))
    return OpenLaw(paths, at, mean, cov, *_opened(back[3], *opened))


def _opened(lost: Array, directions: Array | None = None, rounding: Array | None = None) -> Opened:
    """Open directions (k, r, d) and their rounding, with those that are `lost` beside them."""
    size = np.broadcast_to(ROUNDING * np.abs(lost).max(axis=-1, keepdims=True), lost.shape)
    if directions is None or rounding is None:
        return lost, size
    return np.concatenate([directions, lost], axis=1), np.concatenate([rounding, size], axis=1)


def _backward(model: LinearSDE, gap: Array) -> tuple[Array, Array, Array, Array]:
    """The model run backwards over gaps >= 0: Phi^-1, its drift and VB, and what it loses.

    lost (k, r, d): directions along which the past is beyond the floating-point range, as open
    as a flat one; r = 0 where there are none. Functionals across them are right.
    """
    Phi, psi, V = discretiser.Discretiser(-model.A, model.Q, -model.drift).or_nan(gap)
    d, far = model.dim, np.flatnonzero(~np.isfinite(V).all(axis=(-2, -1)))
    lost = np.zeros((len(gap), d if len(far) else 0, d))
    if len(far):
        rates = -np.linalg.eigvals(model.A).real
        fast = np.count_nonzero(rates * gap[far, None] > REACH, axis=1)
        for some in (far[fast == n] for n in np.unique(fast)):
            Phi[some], psi[some], V[some], lost[some] = _slow_part(model, gap[some])
    return Phi, psi, V, lost


def _slow_part(model: LinearSDE, gap: Array) -> tuple[Array, Array, Array, Array]:
    """What of the model run backwards stays within the floating-point range; the rest as rows.

    A = Z T Z^T (real Schur form) with the fast modes first: U^T x, U the other columns of Z, is a
    system of its own, dy = (U^T A U y + U^T u) ds + noise U^T Q U. gap (k,) : too long for the same
    modes.
    """
    from scipy.linalg import schur

    limit = REACH / gap.max()
    _, Z, fast = schur(model.A, sort=lambda re, im: -re > limit)
    k, U = len(gap), Z[:, fast:]
    Phi, psi, V = np.zeros((k, 0, 0)), np.zeros((k, 0)), np.zeros((k, 0, 0))
    if U.size:
        slow = discretiser.Discretiser(-U.T @ model.A @ U, U.T @ model.Q @ U, -U.T @ model.drift)
        Phi, psi, V = slow.or_nan(gap)
    finite = [np.isfinite(part).reshape(k, -1).all(axis=1) for part in (Phi, psi, V)]
    kept = np.logical_and.reduce(finite)[:, None, None]
    Phi, psi, V = np.where(kept, Phi, 0.0), np.where(kept[..., 0], psi, 0.0), np.where(kept, V, 0.0)
    lost = np.where((np.arange(len(Z)) < fast)[:, None] | ~kept, Z.T, 0.0)
    return U @ Phi @ U.T, psi @ U.T, U @ V @ U.T, lost
