"""Exact diffuse answers in 60-digit arithmetic, from the joint law of the data and nothing else.

    y = c + X delta + e,   e ~ N(0, S),   delta (q,) flat,   X_k = H_k Phi(t_k - t_0) D

There is no recursion in time, no square root and no rotation here: covariances of pairs of times,
a dense factorisation and generalised least squares. What is determined follows from X by
elimination. The model in double precision stands for all models within a rounding of it, hence an
entry counts as zero where it is below ROUNDING times its size, the size being what it would be if
nothing cancelled: |H| (|Phi| + tau |A| |Phi| + tau |Phi| |A|) |D|.

Conventions as in the package: 2 pi for every observed component; the flat measure is that of an
orthonormal basis at the prior's time; directions that the data leave open are left out. Slow: for
tens of scalars.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from afafilter import LinearSDE, Prior

DIGITS = 80
ROUNDING = 1e-13

Matrix = Any


class ExactDiffuse:
    """The joint law of a model's data z (T, p) at times t (T,), NaN = missing."""

    def __init__(self, model: LinearSDE, t: Any, z: Any, obs_cov: Any = None) -> None:
        with mpmath.workdps(DIGITS):
            self.model, self.t = model, [mpmath.mpf(float(x)) for x in t]
            d = model.dim
            self.A, self.Q = _mp(model.A), _mp(model.Q)
            prior = model.prior
            self.mean0, self.P0, self.D = mpmath.zeros(d, 1), mpmath.zeros(d), mpmath.eye(d)
            self.t0 = self.t[0]
            if isinstance(prior, Prior):
                self.mean0, self.P0 = _mp(prior.mean[:, None]), _mp(prior.cov)
                self.D = _mp(np.zeros((d, 0)) if prior.diffuse is None else prior.diffuse)
                self.t0 = self.t0 if prior.t0 is None else mpmath.mpf(prior.t0)
            else:
                assert prior == "diffuse"
            self.moves: dict[Any, Any] = {}
            self.laws: dict[Any, Any] = {}
            self.seen = [(k, a) for k in range(len(t)) for a in range(model.obs_dim)
                         if not np.isnan(z[k][a])]  # fmt: skip
            R = [np.asarray(model.R if obs_cov is None else obs_cov[k]) for k in range(len(t))]
            n = len(self.seen)
            self.H = [_mp(model.C[a : a + 1]) for _, a in self.seen]
            self.S = mpmath.matrix(n, n)
            for i, (k, a) in enumerate(self.seen):
                for j, (l, b) in enumerate(self.seen[: i + 1]):
                    S = (self.H[i] * self.cov(self.t[k], self.t[l]) * self.H[j].T)[0]
                    self.S[i, j] = self.S[j, i] = S + (mpmath.mpf(R[k][a, b]) if k == l else 0)
            self.y = mpmath.matrix(
                [mpmath.mpf(float(z[k][a])) - mpmath.mpf(model.offset[a])
                 - (h * self.mean(self.t[k]))[0] for h, (k, a) in zip(self.H, self.seen)]
            ) if n else mpmath.zeros(0, 1)  # fmt: skip

    # ------------------------------------------------------------------------------ laws of states

    def move(self, tau: Any) -> tuple[Matrix, Matrix, Matrix]:
        """Phi, psi and V over tau >= 0, by the block exponential."""
        if tau not in self.moves:
            with mpmath.workdps(2 * DIGITS):
                self.moves[tau] = _transition(self.A, self.Q, _mp(self.model.drift[:, None]), tau)
        return self.moves[tau]

    def mean(self, at: Any) -> Matrix:
        Phi, psi, _ = self.move(at - self.t0)
        return Phi * self.mean0 + psi

    def cov(self, at: Any, other: Any) -> Matrix:
        """Covariance of the states at two times, given delta = 0."""
        if at < other:
            return self.cov(other, at).T
        if (at, other) not in self.laws:
            if at > other:
                self.laws[at, other] = self.move(at - other)[0] * self.cov(other, other)
            else:
                Phi, _, V = self.move(at - self.t0)
                self.laws[at, other] = Phi * self.P0 * Phi.T + V
        return self.laws[at, other]

    def rows(self, H: Matrix, at: Any) -> tuple[Matrix, Matrix]:
        """H Phi D and the sizes of its entries."""
        tau = at - self.t0
        Phi = self.move(tau)[0]
        size = _abs(Phi) + tau * (_abs(self.A) * _abs(Phi) + _abs(Phi) * _abs(self.A))
        return H * Phi * self.D, _abs(H) * size * _abs(self.D)

    # ------------------------------------------------------------------------------------- answers

    def loglik(self) -> float:
        with mpmath.workdps(DIGITS):
            n = len(self.seen)
            if not n:
                return 0.0
            X, size = self._regressors(range(n))
            null, _ = null_space(X, size)
            L = mpmath.cholesky(self.S)
            total = n * mpmath.log(2 * mpmath.pi) + 2 * sum(mpmath.log(L[i, i]) for i in range(n))
            r = mpmath.lu_solve(L, self.y)
            total += (r.T * r)[0]
            basis = complement(null)
            if basis.cols:
                W = _solve(L, X * basis)
                K = mpmath.cholesky(W.T * W)
                w = mpmath.lu_solve(K, W.T * r)
                total += 2 * sum(mpmath.log(K[i, i]) for i in range(K.rows)) - (w.T * w)[0]
            return float(-total / 2)

    def law(self, at: float, until: float | None = None, H: Any = None) -> tuple[Any, Any]:
        """Mean and covariance of H x(at) given the data up to time `until` (None: all).

        H (m, d), the identity by default. NaN, inf and zero covariances where flat directions that
        the data leave open move a component.
        """
        with mpmath.workdps(DIGITS):
            H = _mp(np.eye(self.model.dim) if H is None else H)
            time = mpmath.mpf(float(at))
            used = [i for i, (k, _) in enumerate(self.seen) if until is None or self.t[k] <= until]
            mean, cov = H * self.mean(time), H * self.cov(time, time) * H.T
            G, G_size = self.rows(H, time)
            X, X_size = self._regressors(used)
            null, null_size = null_space(X, X_size)
            if used:
                cross = mpmath.matrix(H.rows, len(used))
                for j, i in enumerate(used):
                    at_i = self.t[self.seen[i][0]]
                    cross[:, j] = H * self.cov(time, at_i) * self.H[i].T
                S = mpmath.matrix(len(used), len(used))
                for a, i in enumerate(used):
                    for b, j in enumerate(used):
                        S[a, b] = self.S[i, j]
                L = mpmath.cholesky(S)
                r = mpmath.lu_solve(L, mpmath.matrix([self.y[i] for i in used]))
                back = _solve(L, cross.T)
                mean, cov = mean + back.T * r, cov - back.T * back
                basis = complement(null)
                if basis.cols:
                    W = _solve(L, X * basis)
                    K = mpmath.cholesky(W.T * W)
                    load = _solve(K, (G * basis - back.T * W).T)
                    mean = mean + load.T * mpmath.lu_solve(K, W.T * r)
                    cov = cov + load.T * load
            return _report(mean, cov, G * null, G_size * null_size)

    def _regressors(self, used: Any) -> tuple[Matrix, Matrix]:
        used = list(used)
        X = mpmath.zeros(len(used), self.D.cols)
        size = mpmath.zeros(len(used), self.D.cols)
        for row, i in enumerate(used):
            X[row, :], size[row, :] = self.rows(self.H[i], self.t[self.seen[i][0]])
        return X, size


def null_space(X: Matrix, size: Matrix) -> tuple[Matrix, Matrix]:
    """Basis of {v: X v = 0} and the sizes of its entries.

    An entry of X is zero below ROUNDING times its size.
    """
    X, size = X.copy(), size.copy()
    n, q = X.rows, X.cols
    pivots: list[tuple[int, int]] = []
    free = list(range(q))
    rest = list(range(n))
    while free and rest:
        best, where = mpmath.mpf(0), None
        for i in rest:
            for j in free:
                if size[i, j] > 0 and abs(X[i, j]) / size[i, j] > best:
                    best, where = abs(X[i, j]) / size[i, j], (i, j)
        if where is None or best <= ROUNDING:
            break
        i, j = where
        rest.remove(i)
        free.remove(j)
        for k in range(n):
            if k == i or X[k, j] == 0:
                continue
            f = X[k, j] / X[i, j]
            for c in range(q):
                X[k, c] -= f * X[i, c]
                size[k, c] += abs(f) * size[i, c]
            X[k, j] = mpmath.mpf(0)
        pivots.append(where)
    null, null_size = mpmath.zeros(q, len(free)), mpmath.zeros(q, len(free))
    for c, j in enumerate(free):
        null[j, c] = null_size[j, c] = 1
        for i, l in pivots:
            null[l, c] = -X[i, j] / X[i, l]
            null_size[l, c] = size[i, j] / abs(X[i, l])
    return null, null_size


def complement(null: Matrix) -> Matrix:
    """Orthonormal basis of what is orthogonal to the columns of `null` (q, r)."""
    q, r = null.rows, null.cols
    if r == 0:
        return mpmath.eye(q)
    if r == q:
        return mpmath.zeros(q, 0)
    Q, _ = mpmath.qr(null)
    return Q[:, r:]


def _report(mean: Matrix, cov: Matrix, moved: Matrix, size: Matrix) -> tuple[Any, Any]:
    m = mean.rows
    open_ = [any(abs(moved[i, c]) > ROUNDING * size[i, c] for c in range(moved.cols))
             for i in range(m)]  # fmt: skip
    out = np.array([np.nan if open_[i] else float(mean[i]) for i in range(m)])
    spread = np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            if not (open_[i] or open_[j]):
                spread[i, j] = float(cov[i, j])
        if open_[i]:
            spread[i, i] = np.inf
    return out, spread


def _transition(A: Matrix, Q: Matrix, u: Matrix, tau: Any) -> tuple[Matrix, Matrix, Matrix]:
    """Phi, psi, V: Taylor series of a short step, doubled by the semigroup laws."""
    norm = max(mpmath.mnorm(A, 1), mpmath.mnorm(A, mpmath.inf)) * tau
    doublings = max(0, int(mpmath.ceil(mpmath.log(norm + mpmath.mpf(10) ** -300, 2))) + 3)
    step = tau / mpmath.mpf(2) ** doublings
    A, Q, u, d = A * step, Q * step, u * step, A.rows
    power, noise, drive = mpmath.eye(d), Q, u
    Phi, V, psi = power, noise, drive
    for k in range(1, int(mpmath.mp.dps * 1.2)):
        power, drive, noise = (
            power * A / k,
            A * drive / (k + 1),
            (A * noise + noise * A.T) / (k + 1),
        )
        Phi, psi, V = Phi + power, psi + drive, V + noise
    for _ in range(doublings):
        V = Phi * V * Phi.T + V
        psi = Phi * psi + psi
        Phi = Phi * Phi
    return Phi, psi, V


def _solve(L: Matrix, M: Matrix) -> Matrix:
    """L^-1 M for lower triangular L."""
    out = mpmath.matrix(M.rows, M.cols)
    for i in range(M.rows):
        for j in range(M.cols):
            x = M[i, j]
            for k in range(i):
                x -= L[i, k] * out[k, j]
            out[i, j] = x / L[i, i]
    return out


def _abs(M: Matrix) -> Matrix:
    return M.apply(abs)


def _mp(M: Any) -> Matrix:
    M = np.asarray(M, dtype=float)
    if not M.size:
        return mpmath.zeros(*M.shape)
    return mpmath.matrix([[mpmath.mpf(float(x)) for x in row] for row in M])
