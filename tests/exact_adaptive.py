"""AFA by independent pairs in ball arithmetic: sums of what each observation shows, as they stand.

With tau = at - t_j, H_j = C Phi(-tau) and S_j = R + C VB(tau) C^T for tau >= 0, else C Phi(|tau|)
and R + C V(|tau|) C^T, whitened G^T G = H^T S^-1 H and G^T y = H^T S^-1 (z_j - ...):

    x = (sum w_j G_j^T G_j)^-1 sum w_j G_j^T y_j,   w_j = w(|y_j - G_j a|^2), a the anchor.

Of a model with a flat start. What of the state is open is decided as in `exact_oracle`; of a
`forgetful` one, what an observation shows by e^-115 of what else it shows is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flint import arb

from afafilter.weights import Weight
from tests.exact_oracle import (
    ExactGaussian,
    Law,
    Matrix,
    cholesky,
    complement,
    eye,
    forward,
    inverse,
    is_below,
    moved,
    null_space,
    report,
    to_float,
    zeros,
)


class Pair(NamedTuple):
    """What observation j shows of the state at another time: y = G x + N(0, I); its scalars.

    size: of the entries of G, if nothing cancelled in them.
    """

    j: int
    G: Matrix
    y: Matrix
    rows: list[int]
    size: Matrix


def pairs(e: ExactGaussian, at: float, js: Sequence[int]) -> list[Pair]:
    """Of observations js that show anything."""
    d, node, found = e.model.dim, e.index[float(at)], []
    for j in sorted(set(js)):
        rows = [int(i) for i in np.flatnonzero(e.last == j)]
        if not rows:
            continue
        parts, C, where = [e.seen[i][1] for i in rows], e.H[rows], e.where[rows[0]]
        F, b, V = eye(d), zeros(d), zeros(d, d)
        for step in e.steps[min(where, node) : max(where, node)]:
            F, b, V = step[0] @ F, step[0] @ b + step[1], step[0] @ V @ step[0].T + step[2]
        if where < node:
            back = inverse(F)
            F, b, V = back, -back @ b, back @ V @ back.T
        S = cholesky(e.noise[j][np.ix_(parts, parts)] + C @ V @ C.T)
        y = e.y[rows] + C @ (e.mean[where] - b)
        white = forward(S, np.column_stack([C @ F, y]))
        size = abs(forward(S, eye(len(rows)))) @ abs(C) @ e.sizes(F, e.time[node] - e.time[where])
        if e.forgets:
            for row in white[:, :d]:
                limit = e.forgets * max(abs(row), key=lambda x: x.mid())
                row[[is_below(x, limit) for x in row]] = arb(0)
        found.append(Pair(j, white[:, :d], white[:, d], rows, size))
    return found


def average(
    e: ExactGaussian, at: float, shown: list[Pair], weights: Sequence[Any]
) -> tuple[Any, ...]:
    """Mean, covariance (as balls, of what is known) and what is open."""
    d, node = e.model.dim, e.index[float(at)]
    total, right = zeros(d, d), zeros(d)
    for (_, G, y, *_), w in zip(shown, weights, strict=True):
        total, right = total + w * (G.T @ G), right + w * (G.T @ y)
    if e.forgets:
        left = np.vstack([zeros(0, d), *(pair.G for pair in shown)])
        size = np.vstack([zeros(0, d), *(pair.size for pair in shown)])
        null, null_size = null_space(left, size, e.rounding)
        open_ = moved(null, null_size, e.rounding)
    else:
        rows = [i for pair in shown for i in pair.rows]
        null, null_size = null_space(e.X[rows], e.size[rows], e.rounding)
        null = e.Phi[node] @ null
        open_ = moved(null, e.Phi_size[node] @ null_size, e.rounding)
    B = complement(null)
    if not B.shape[1]:
        return zeros(d), zeros(d, d), open_
    K = cholesky(B.T @ total @ B)
    load = forward(K, B.T)
    return load.T @ forward(K, (B.T @ right)[:, None])[:, 0], load.T @ load, open_


def pulled(e: ExactGaussian, at: float, js: Sequence[int]) -> Law:
    """The plain average of observations js."""
    shown = pairs(e, at, js)
    return report(*average(e, at, shown, [arb(1)] * len(shown)))


FAR = 1e300
"""Squared distance from which on a weight is taken for the power law that it tends to."""


class Robust(NamedTuple):
    """Reweighting: by observations js, around an anchor from those of `start`, so many rounds.

    The anchor is the plain average of `start`, or of all where that leaves something open; where an
    anchor is open, the weights are 1.
    """

    js: Sequence[int]
    start: Sequence[int]
    weight: Weight
    rounds: int


def log_weight(weight: Weight, d2: Any, dim: int) -> Any:
    """log w(d2); beyond the range of floating-point numbers by the power law that w has there."""
    x = to_float(d2)
    if x < FAR:
        return arb(float(weight.log(np.array(x), dim)))
    at_far, before = (float(weight.log(np.array(at), dim)) for at in (FAR, FAR / 1e100))
    slope = (at_far - before) / np.log(1e100)
    return at_far + slope * (d2.log() - arb(FAR).log())


def reweighted(e: ExactGaussian, at: float, how: Robust) -> Law:
    """The estimate after the last round, with the covariance that its weights claim."""
    shown = pairs(e, at, how.js)
    ones = [arb(1)] * len(shown)
    begin = pairs(e, at, how.start)
    anchor, _, open_ = average(e, at, begin, [arb(1)] * len(begin))
    if open_.any():
        anchor, _, open_ = average(e, at, shown, ones)
    found = average(e, at, shown, ones)
    for _ in range(how.rounds):
        if open_.any():
            found = average(e, at, shown, ones)
            break
        weights = []
        for _, G, y, rows, _ in shown:
            r = y - G @ anchor
            weights.append(log_weight(how.weight, r @ r, len(rows)).exp())
        found = average(e, at, shown, weights)
        anchor, _, open_ = found
    return report(*found)
