"""Exact answers in 400-bit ball arithmetic, from the joint law of the data and nothing else.

    y = c + X delta + e,   e ~ N(0, S),   delta (q,) flat,   X_k = H_k Phi(t_k - t_0) D

There is no filter, no square root of a covariance step and no rotation here: covariances of pairs
of times, one dense factorisation and generalised least squares. Every number comes with a bound on
its own error (Arb, by python-flint); where 400 bits do not do, `Imprecise` is raised. What is
determined follows from X by elimination. The model in double precision stands for all models
within a rounding of it, hence an entry counts as zero where it is below ROUNDING times its size,
the size being what it would be if nothing cancelled: |H| (|Phi| + tau (|A| |Phi| + |Phi| |A|)) |D|.

S + X X^T stands for S: flat plus N(0, I) is flat, and without measurement noise S alone may be
singular.

Conventions as in the package: 2 pi for every observed component; the flat measure is that of an
orthonormal basis at the prior's time; directions that the data leave open are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import flint
import numpy as np
from flint import arb, arb_mat

from afafilter import DiscreteModel, LinearSDE, Prior
from afafilter._base.checks import is_definite

BITS = 400
ROUNDING = 1e-13
PRECISE = 1e-15
FORGOTTEN = 1e-50

Matrix = Any
Change = Callable[[str, Any], Matrix]


class Imprecise(ArithmeticError):
    """The error bound of an answer is too large."""


class Singular(ArithmeticError):
    """Something is observed that the model predicts without error."""


class Law(NamedTuple):
    """Mean (m,) and covariance (m, m): NaN, inf and zero covariances where undetermined."""

    mean: Any
    cov: Any


class ExactGaussian:
    """The joint law of a model's states and its data z (T, p) at times t (T,), NaN = missing.

    obs_cov (T, p, p) in place of R; queries: further times at which states are asked for. change
    (name, values) -> balls of that shape: what is put in place of an input (see `exact_balls`).
    """

    def __init__(
        self,
        model: LinearSDE | DiscreteModel,
        t: Any,
        z: Any,
        obs_cov: Any = None,
        queries: Sequence[float] = (),
        change: Change | None = None,
        bits: int = BITS,
    ) -> None:
        flint.ctx.prec = bits
        self.model, self.put, self.rounding = model, change or exact_balls, ROUNDING
        self.forgets, self.bits, self.obs_cov = 0.0, bits, obs_cov
        self.discrete = isinstance(model, DiscreteModel)
        self.flat_start: ExactGaussian | None = None
        self.t, self.z = np.arange(len(z)) if self.discrete else np.asarray(t, float), z
        self._nodes(queries)
        self._steps()
        self._laws()

    def _laws(self) -> None:
        """Of all states, and of the data that are there."""
        self._states()
        model, z = self.model, self.z
        T, p = np.shape(z)
        R = np.broadcast_to(model.R if self.obs_cov is None else self.obs_cov, (T, p, p))
        H = np.broadcast_to(model.H if self.discrete else model.C, (T, p, model.dim))
        off = np.broadcast_to(model.d if self.discrete else model.offset, (T, p))
        seen = [(k, a) for k in range(T) for a in range(p) if not np.isnan(z[k][a])]
        self.last = np.array([k for k, _ in seen], int)
        noise = [self.put("R", R[k]) for k in range(T)]
        rows, shift, data = self.put("H", H), self.put("offset", off), self.put("z", z)
        n = len(seen)
        self.where = [self.shown[k] for k, _ in seen]
        self.H = np.array([rows[k, a] for k, a in seen], object).reshape(n, model.dim)
        self.X, self.size = self._flat(self.H, self.where)
        self.seen, self.noise, self.y = seen, noise, zeros(n)
        for i, (k, a) in enumerate(seen):
            self.y[i] = data[k, a] - shift[k, a] - self.H[i] @ self.mean[self.where[i]]
        self.definite = bool(is_definite(R).all())
        self._factor()

    def _factor(self) -> None:
        """The law of the data, S = L L^T, and L^-1 [y, X]."""
        S = self.X @ self.X.T
        for i, (k, a) in enumerate(self.seen):
            for j, (l, b) in enumerate(self.seen[: i + 1]):
                S[i, j] += self.H[i] @ self.cov(self.where[i], self.where[j]) @ self.H[j]
                S[i, j] += self.noise[k][a, b] if k == l else 0
        try:
            self.L = cholesky(S)
        except Imprecise as error:
            if self.definite:  # then S is, too: digits are missing
                raise
            raise Singular(str(error)) from error
        self.white = forward(self.L, np.column_stack([self.y, self.X]))
        self.nulls: dict[int, Any] = {}

    def _nodes(self, queries: Sequence[float]) -> None:
        """Times of prior, observations and queries, in order."""
        t, prior = self.t, self.model.prior
        shown = t if self.discrete else t - self.model.delay
        start = shown[0]
        if isinstance(prior, Prior) and prior.t0 is not None:
            start = prior.t0
        self.at = sorted({float(x) for x in (*shown, *t, start, *queries)})
        self.index = {x: i for i, x in enumerate(self.at)}
        self.shown = [self.index[float(x)] for x in shown]
        self.start = self.index[float(start)]

    def _steps(self) -> None:
        """Transition, drift and noise from one node to the next."""
        model, n = self.model, len(self.at)
        self.crossed: dict[tuple[int, int], Matrix] = {}
        if self.discrete:
            F, b, Q = (
                np.broadcast_to(x, (n, *x.shape[x.ndim - axes :]))
                for x, axes in ((model.F, 2), (model.b, 1), (model.Q, 2))
            )
            self.steps = list(zip(self.put("F", F)[1:], self.put("b", b)[1:], self.put("Q", Q)[1:]))
            return
        self.A, Q, u = self.put("A", model.A), self.put("Q", model.Q), self.put("u", model.drift)
        self.time = self.put("t", np.array(self.at))
        known: dict[Any, Any] = {}
        self.steps = []
        for gap in np.diff(self.time):
            key = gap.str(130, radius=False)
            if key not in known:
                Phi, psi, V = transition(self.A, Q, u, gap)
                known[key] = self.put("Phi", Phi), psi, self.put("V", V)
            self.steps.append(known[key])

    def _states(self) -> None:
        """Mean, covariance and flat directions of the state at every node before the data."""
        n, first, d = len(self.steps) + 1, self.start, self.model.dim
        self.covs: dict[tuple[int, int], Matrix] = {}
        self.mean, self.own = [None] * n, [None] * n
        self.Phi, self.Phi_size = [eye(d)] * n, [eye(d)] * n
        self.mean[first], self.own[first], self.D = self._prior()
        for k in range(first + 1, n):
            F, b, V = self.steps[k - 1]
            self.mean[k] = F @ self.mean[k - 1] + b
            self.own[k] = F @ self.own[k - 1] @ F.T + V
            self.Phi[k] = F @ self.Phi[k - 1]
            self.Phi_size[k] = abs(F) @ self.Phi_size[k - 1]
        stationary = isinstance(self.model.prior, str) and self.model.prior == "stationary"
        for k in range(first - 1, -1, -1):
            F, b, V = self.steps[k]
            back = inverse(F)
            self.Phi[k] = back @ self.Phi[k + 1]
            self.mean[k] = back @ (self.mean[k + 1] - b)
            self.own[k] = back @ (self.own[k + 1] + V) @ back.T
            if stationary:
                self.own[k] = self.own[k + 1]
        if not self.discrete:
            for k in range(n):
                self.Phi_size[k] = self.sizes(self.Phi[k], self.time[k] - self.time[first])
        if self.forgets:
            self.Phi = [
                each(lambda x: arb(0) if is_below(x, self.forgets) else x, Phi) for Phi in self.Phi
            ]
        self.first, self.stationary = first, stationary

    def sizes(self, Phi: Matrix, tau: Any) -> Matrix:
        """Of the entries of a transition over tau, if nothing cancelled in them."""
        A, Phi = abs(self.A), abs(Phi)
        return Phi + abs(tau) * (A @ Phi + Phi @ A)

    def _prior(self) -> tuple[Matrix, Matrix, Matrix]:
        model, d = self.model, self.model.dim
        none = zeros(d, 0)
        prior = model.prior
        if isinstance(prior, Prior):
            flat = none if prior.diffuse is None else self.put("D", prior.diffuse)
            return self.put("mean", prior.mean), self.put("cov", prior.cov), flat
        if prior == "diffuse":
            return zeros(d), zeros(d, d), eye(d)
        one = eye(d)
        if self.discrete:
            F, b, Q = self.put("F", model.F), self.put("b", model.b), self.put("Q", model.Q)
            mean = solve(F - one, -b[:, None])[:, 0]
            P = solve(np.kron(F, F) - np.kron(one, one), -Q.reshape(-1, 1))
        else:
            A, Q, u = self.put("A", model.A), self.put("Q", model.Q), self.put("u", model.drift)
            mean = solve(A, -u[:, None])[:, 0]
            P = solve(np.kron(A, one) + np.kron(one, A), -Q.reshape(-1, 1))
        return mean, P.reshape(d, d), none

    def cov(self, i: int, j: int) -> Matrix:
        """Covariance of the states at nodes i and j, given delta = 0."""
        if i < j:
            return self.cov(j, i).T
        if (i, j) not in self.covs:
            if j >= self.first or self.stationary:  # x_i = Phi x_j + noise after it
                found = self._between(j, i) @ self.own[j]
            else:
                middle = min(i, self.first)  # x_j = Phi^-1 (x_middle - noise apart from it)
                law = self.own[middle] @ inverse(self._between(j, middle)).T
                found = self._between(middle, i) @ law
            self.covs[i, j] = found
        return self.covs[i, j]

    def _between(self, j: int, i: int) -> Matrix:
        if i == j:
            return eye(self.model.dim)
        if (j, i) not in self.crossed:
            self.crossed[j, i] = self.steps[i - 1][0] @ self._between(j, i - 1)
        return self.crossed[j, i]

    def _flat(self, H: Matrix, where: Sequence[int]) -> tuple[Matrix, Matrix]:
        """Rows h Phi D and the sizes of their entries."""
        q = self.D.shape[1]
        X = np.array([h @ self.Phi[i] @ self.D for h, i in zip(H, where)], object)
        size = np.array([abs(h) @ self.Phi_size[i] @ abs(self.D) for h, i in zip(H, where)], object)
        return X.reshape(len(H), q), size.reshape(len(H), q)

    # ------------------------------------------------------------------------------------- answers

    def forgetful(self, below: float = FORGOTTEN) -> ExactGaussian:
        """The same where what has decayed by fifty decades, or to `below`, is gone."""
        other = copy(self)
        other.forgets, other.flat_start = below, None
        other._laws()
        return other

    def again(self, change: Change, *, steps: bool = True) -> ExactGaussian:
        """The same with other inputs; where `steps` is False, none of A, Q, F, b, drift and t."""
        other = copy(self)
        other.put, other.flat_start = change, None
        if steps:
            other._steps()
        other._laws()
        return other

    def with_noise(self, obs_cov: Any) -> ExactGaussian:
        """The same with other covariances (T, p, p) of the noise."""
        other = copy(self)
        other.obs_cov, other.flat_start = obs_cov, None
        other._laws()
        return other

    def flat(self) -> ExactGaussian:
        """The same with a flat start."""
        if self.model.prior == "diffuse":
            return self
        if self.flat_start is None:
            other = copy(self)
            other.model, other.start = replace(self.model, prior="diffuse"), self.shown[0]
            other._laws()
            self.flat_start = other
        return self.flat_start

    def with_rounding(self, rounding: float) -> ExactGaussian:
        """The same where another size counts as zero."""
        other = copy(self)
        other.rounding, other.nulls, other.flat_start = rounding, {}, None
        return other

    def used(self, stop: int | None) -> int:
        """Number of scalars in the first `stop` observations (None: all)."""
        return len(self.last) if stop is None else int(np.searchsorted(self.last, stop))

    def stretch(self) -> float:
        """By how many standard deviations the data are off the model, at least 1."""
        r, W = self.white[:, 0], self.white[:, 1:] @ self.null(len(self.last))[2]
        if W.shape[1]:
            K = cholesky(W.T @ W)
            r = r - W @ solve(K.T, forward(K, (W.T @ r)[:, None]))[:, 0]
        return max(1.0, float(np.sqrt(to_float(r @ r) / len(r)))) if len(r) else 1.0

    def null(self, n: int) -> tuple[Matrix, Matrix, Matrix]:
        """Of the first n scalars: null space of X, sizes of its entries, and its complement."""
        if n not in self.nulls:
            null, size = null_space(self.X[:n], self.size[:n], self.rounding)
            self.nulls[n] = null, size, complement(null)
        return self.nulls[n]

    def loglik_ball(self) -> Any:
        n = len(self.last)
        r, W = self.white[:, 0], self.white[:, 1:] @ self.null(n)[2]
        total = n * (2 * arb.pi()).log() + sum((2 * self.L[i, i].log() for i in range(n)), arb(0))
        total += sum((x * x for x in r), arb(0))
        if W.shape[1]:
            K = cholesky(W.T @ W)
            w = forward(K, (W.T @ r)[:, None])[:, 0]
            total += sum((2 * K[i, i].log() for i in range(len(K))), arb(0)) - w @ w
        return -total / 2

    def loglik(self) -> float:
        return to_float(self.loglik_ball())

    def law(self, at: float, stop: int | None = None, H: Any = None) -> Law:
        """Mean and covariance of H x(at) given the first `stop` observations (None: all).

        H (m, d), the identity by default.
        """
        return self.law_at(self.index[float(at)], stop, H)

    def law_at(self, node: int, stop: int | None = None, H: Any = None) -> Law:
        """The same at one of the nodes."""
        H = eye(self.model.dim) if H is None else self.put("H", np.asarray(H, float))
        n = self.used(stop)
        null, null_size, basis = self.null(n)
        G, G_size = self._flat(H, [node] * len(H))
        mean, cov = H @ self.mean[node], H @ self.cov(node, node) @ H.T + G @ G.T
        if n:
            cross = np.array([self.H[i] @ self.cov(self.where[i], node) for i in range(n)], object)
            L = self.L[:n, :n]
            back = forward(L, cross @ H.T + self.X[:n] @ G.T)
            r, W = self.white[:n, 0], self.white[:n, 1:] @ basis
            mean, cov = mean + back.T @ r, cov - back.T @ back
            if basis.shape[1]:
                K = cholesky(W.T @ W)
                load = forward(K, (G @ basis - back.T @ W).T)
                mean = mean + load.T @ forward(K, (W.T @ r)[:, None])[:, 0]
                cov = cov + load.T @ load
        open_ = moved(G @ null, G_size @ null_size, self.rounding)
        return report(mean, cov, open_)


def exact_balls(name: str, values: Any) -> Matrix:
    """The numbers themselves. Phi and V, which are balls already, as they are."""
    if name in ("Phi", "V"):
        return values
    return each(lambda x: arb(float(x)) if x == x else None, values)


def each(function: Callable[[Any], Any], values: Any) -> Matrix:
    """function of every entry, as an array of objects."""
    out = np.empty(np.size(values), object)
    for k, x in enumerate(np.ravel(values)):
        out[k] = function(x)
    return out.reshape(np.shape(values))


def zeros(*shape: int) -> Matrix:
    return np.full(shape, arb(0), object)


def eye(d: int) -> Matrix:
    out = zeros(d, d)
    out[np.diag_indices(d)] = arb(1)
    return out


def transition(A: Matrix, Q: Matrix, u: Matrix, tau: Any) -> tuple[Matrix, Matrix, Matrix]:
    """Phi, psi, V: Taylor series of a short step, doubled by the semigroup laws."""
    norm = float((abs(A).sum(axis=0).max() * tau).upper())
    doublings = max(0, int(np.ceil(np.log2(norm + 1e-300))) + 14)
    step, d = tau / arb(2) ** doublings, len(A)
    a, noise, drive = (arb_mat((M * step).tolist()) for M in (A, Q, u[:, None]))
    power = arb_mat(eye(d).tolist())
    Phi, V, psi, k = power, noise, drive, 0
    gained = 0.0  # bits by which terms have become smaller
    while gained < flint.ctx.prec + 30:
        k += 1
        gained += doublings - np.log2(norm + 1e-300) + np.log2(k)
        half = a * noise
        power, drive, noise = (
            a * power / k,
            a * drive / (k + 1),
            (half + half.transpose()) / (k + 1),
        )
        Phi, psi, V = Phi + power, psi + drive, V + noise
    for _ in range(doublings):
        V, psi, Phi = Phi * V * Phi.transpose() + V, Phi * psi + psi, Phi * Phi
    Phi, psi, V = (np.array(M.tolist(), object) for M in (Phi, psi, V))
    return Phi, psi[:, 0], V


def cholesky(M: Matrix) -> Matrix:
    """Lower Cholesky factor; `Imprecise` where a pivot may be 0."""
    L = M.copy()
    for j in range(len(L)):
        L[j:, j] -= L[j:, :j] @ L[j, :j] if j else 0
        if not L[j, j] > 0 or not L[j, j] > abs(M[j, j]) * arb(2) ** (-flint.ctx.prec // 2):
            raise Imprecise(f"pivot {j}")
        L[j:, j] /= L[j, j].sqrt()
        L[j, j + 1 :] = arb(0)
    return L


def forward(L: Matrix, M: Matrix) -> Matrix:
    """L^-1 M for lower triangular L."""
    out = M.copy()
    for i in range(len(L)):
        out[i] = (out[i] - L[i, :i] @ out[:i]) / L[i, i] if i else out[i] / L[i, i]
    return out


def solve(M: Matrix, right: Matrix) -> Matrix:
    try:
        found = arb_mat(M.tolist()).solve(arb_mat(right.tolist()))
    except ZeroDivisionError as error:
        raise Imprecise("singular") from error
    return np.array(found.tolist(), object).reshape(right.shape)


def inverse(M: Matrix) -> Matrix:
    return solve(M, eye(len(M)))


def null_space(X: Matrix, size: Matrix, rounding: float) -> tuple[Matrix, Matrix]:
    """Basis of {v: X v = 0} and the sizes of its entries.

    An entry of X is zero below `rounding` times its size.
    """
    X, size = X.copy(), size.copy()
    n, q = X.shape
    pivots: list[tuple[int, int]] = []
    free, rest = list(range(q)), list(range(n))
    while free and rest:
        clear = {(i, j): abs(X[i, j]) / size[i, j] for i in rest for j in free if size[i, j] > 0}
        i, j = max(clear, key=lambda at: clear[at].mid(), default=(-1, -1))
        if i < 0 or is_below(clear[i, j], rounding):
            break
        rest.remove(i)
        free.remove(j)
        for k in range(n):
            if k != i and not X[k, j].is_zero():
                f, pivot = X[k, j] / X[i, j], abs(X[i, j])
                loose = (size[k, j] + abs(f) * size[i, j]) / pivot  # of f itself
                size[k] = size[k] + abs(f) * size[i] + loose * abs(X[i])
                X[k] = X[k] - f * X[i]
                X[k, j] = arb(0)
        pivots.append((i, j))
    null, null_size = zeros(q, len(free)), zeros(q, len(free))
    for c, j in enumerate(free):
        null[j, c] = null_size[j, c] = arb(1)
        for i, l in pivots:
            null[l, c] = -X[i, j] / X[i, l]
            null_size[l, c] = (size[i, j] + abs(null[l, c]) * size[i, l]) / abs(X[i, l])
    return null, null_size


def complement(null: Matrix) -> Matrix:
    """Orthonormal basis of what is orthogonal to the columns of `null` (q, r)."""
    q, r = null.shape
    if r == 0:
        return eye(q)
    basis: list[Matrix] = []
    left = [null[:, j] for j in range(r)] + list(eye(q))
    while len(basis) < q:
        lengths = [v @ v for v in left]
        some = range(1) if len(basis) < r else range(len(left))
        k = max(some, key=lambda i: lengths[i].mid())
        unit = left.pop(k) / lengths[k].sqrt()
        for b in basis:  # once more: nothing of the others may be left
            unit = unit - (b @ unit) * b
        basis.append(unit / (unit @ unit).sqrt())
        left = [v - (basis[-1] @ v) * basis[-1] for v in left]
    return np.array(basis[r:], object).reshape(q - r, q).T


def moved(directions: Matrix, size: Matrix, rounding: float) -> Any:
    return np.array(
        [any(not is_below(x, rounding * s) for x, s in zip(*row)) for row in zip(directions, size)],
        bool,
    ).reshape(len(directions))


def report(mean: Matrix, cov: Matrix, open_: Any) -> Law:
    m = len(mean)
    out, spread = np.full(m, np.nan), np.zeros((m, m))
    for i in np.flatnonzero(~open_):
        sd = cov[i, i].sqrt() if cov[i, i] > 0 else arb(0)
        out[i] = to_float(mean[i], sd)
        for j in np.flatnonzero(~open_):
            spread[i, j] = to_float(cov[i, j], (abs(cov[i, i]) * abs(cov[j, j])).sqrt())
    spread[open_, open_] = np.inf
    return Law(out, spread)


def is_below(ball: Any, limit: Any) -> bool:
    """Whether |ball| <= limit; `Imprecise` where the error bound leaves that open."""
    if abs(ball) <= limit:
        return True
    if not abs(ball) > limit:
        raise Imprecise(f"{ball} beside {limit}")
    return False


def to_float(ball: Any, size: Any = 1) -> float:
    """The number, known well enough beside its own magnitude or `size`."""
    if not ball.rad() <= PRECISE * (abs(ball.mid()) + arb(size).mid()) + arb(10) ** -300:
        raise Imprecise(str(ball))
    return float(ball.mid())
