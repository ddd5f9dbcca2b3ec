"""Laws at the times that were asked for, from the laws at the nodes of a timeline.

Off its nodes a filter's answer is the last law before, predicted; a smoother's queries are nodes
themselves. Before node 0 the state is what can have led there, x(s) = Phi^-1 (x(t0) - psi - w), w
independent of x(t0): the model run backwards, dx = -(A x + u) ds + noise.
"""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array
from afafilter.kalman.run import FlatStart, Run, mark_unseen, settle
from afafilter.kalman.timeline import Index, Timeline, unique_steps
from afafilter.linalg import discretiser
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


def at_observations(line: Timeline, run: Run) -> tuple[Array, Array]:
    """Mean (n, T, d) and cov (G, T, d, d) at the nodes that show observations."""
    for g, flat in enumerate(run.flat):
        if flat is None:
            continue
        rows = _members(run, g)
        c = flat.M.shape[0]
        mean, cov = _report(flat, run.mean[rows, :c], run.cov[g, :c], np.arange(c))
        run.mean[rows, :c], run.cov[g, :c] = mean, cov
    if len(line.times) == len(line.seen_at):
        return run.mean, run.cov
    return run.mean[:, line.seen_at], run.cov[:, line.seen_at]


def filtered(
    model: LinearSDE | DiscreteModel, line: Timeline, run: Run, asked: Array, used: Index
) -> tuple[Array, Array]:
    """Laws at `asked` given the first `used` observations."""
    assert isinstance(model, LinearSDE)
    early = int(np.searchsorted(used, 0, side="right"))
    node = line.seen_at[used[early:] - 1]
    dt = asked[early:] - line.times[node]
    steps, index = unique_steps(dt, np.maximum(np.abs(asked[early:]), np.abs(line.times[node])))
    Phi, psi, V = (part[index] for part in model.transition(steps))
    mean = np.einsum("kij,nkj->nki", Phi, run.mean[:, node]) + psi
    cov = Phi @ run.cov[:, node] @ np.swapaxes(Phi, -1, -2) + V
    for g, flat in enumerate(run.flat):
        if flat is None:
            continue
        rows, open_ = _members(run, g), np.flatnonzero(node < flat.M.shape[0])
        at = node[open_]
        mean[np.ix_(rows, open_)], cov[g, open_] = settle(
            mean[np.ix_(rows, open_)], cov[g, open_], Phi[open_] @ flat.M[at], flat.T[at],
            flat.s[:, at],
        )  # fmt: skip
    if early:
        before, spread = _prior_laws(model, line, asked[:early])
        shape = (len(mean), *before.shape)
        mean = np.concatenate([np.broadcast_to(before, shape), mean], axis=1)
        cov = np.concatenate([np.broadcast_to(spread, (len(cov), *spread.shape)), cov], axis=1)
    return mean, cov


def smoothed(
    model: LinearSDE | DiscreteModel, line: Timeline, run: Run, asked: Array
) -> tuple[Array, Array]:
    """Laws at `asked` given all observations."""
    assert isinstance(model, LinearSDE)
    node = np.maximum(line.asked, 0)
    mean, cov = run.mean[:, node], run.cov[:, node]
    early = int(np.count_nonzero(line.asked < 0))
    Phi, psi, V = _backward(model, line.times[0] - asked[:early])
    with np.errstate(over="ignore", invalid="ignore"):
        mean[:, :early] = np.einsum("kij,nkj->nki", Phi, mean[:, :early]) + psi
        cov[:, :early] = Phi @ cov[:, :early] @ np.swapaxes(Phi, -1, -2) + V
    for g, flat in enumerate(run.flat):
        if flat is None:
            continue
        assert flat.unseen is not None
        rows, open_ = _members(run, g), np.flatnonzero(node < flat.M.shape[0])
        at = node[open_]
        move = np.broadcast_to(np.eye(model.dim), (len(open_), model.dim, model.dim)).copy()
        move[: min(early, len(open_))] = Phi[: len(open_)]
        mean[np.ix_(rows, open_)], cov[g, open_] = mark_unseen(
            mean[np.ix_(rows, open_)], cov[g, open_], move @ flat.unseen[at], move @ flat.M[at]
        )
    return mean, cov


def _report(flat: FlatStart, mean: Array, cov: Array, node: Index) -> tuple[Array, Array]:
    if flat.unseen is None:
        return settle(mean, cov, flat.M[node], flat.T[node], flat.s[:, node])
    return mark_unseen(mean, cov, flat.unseen[node], flat.M[node])


def _members(run: Run, g: int) -> Index:
    return np.flatnonzero(run.group == g)


def _prior_laws(model: LinearSDE, line: Timeline, asked: Array) -> tuple[Array, Array]:
    """Laws without data, (k, d) and (k, d, d)."""
    mean0, cov0, D = line.law
    if model.prior == "stationary":
        k = len(asked)
        return np.broadcast_to(mean0, (k, *mean0.shape)), np.broadcast_to(cov0, (k, *cov0.shape))
    gap = asked - line.times[0]
    back = _backward(model, np.maximum(-gap, 0.0))
    ahead = model.transition(np.maximum(gap, 0.0))
    past = gap < 0
    Phi = np.where(past[:, None, None], back[0], ahead[0])
    psi = np.where(past[:, None], back[1], ahead[1])
    V = np.where(past[:, None, None], back[2], ahead[2])
    with np.errstate(over="ignore", invalid="ignore"):
        cov = Phi @ cov0 @ np.swapaxes(Phi, -1, -2) + V
        moved = Phi @ D
        return mark_unseen(Phi @ mean0 + psi, cov, moved, moved)


def _backward(model: LinearSDE, gap: Array) -> tuple[Array, Array, Array]:
    """The model run backwards over gaps >= 0: Phi^-1, its drift and VB; NaN beyond their range."""
    try:
        return discretiser.transition(-model.A, model.Q, -model.drift, gap)
    except ValueError:
        d = model.dim
        out = (
            np.full((len(gap), d, d), np.nan),
            np.full((len(gap), d), np.nan),
            np.full((len(gap), d, d), np.nan),
        )
        if len(gap) > 1:
            for k in range(len(gap)):
                for whole, part in zip(out, _backward(model, gap[k : k + 1])):
                    whole[k] = part[0]
        return out
