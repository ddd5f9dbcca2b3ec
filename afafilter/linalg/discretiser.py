"""Exact discretisation and small dense linear algebra shared by all modules.

Symbols: Phi(tau) = e^{A tau}; psi(tau) = int_0^tau e^{As} u ds;
V(tau) = int_0^tau e^{As} Q e^{A^T s} ds (the differential Lyapunov equation, V(0) = 0);

`transition` holds two algorithms and takes, per interval, the one with the smaller error bound:

series and doubling
    Taylor series in tau on a step with ||A|| h <= 1/2, then doublings by the semigroup laws

        Phi -> Phi^2,   psi -> Phi psi + psi,   V -> Phi V Phi^T + V.

    Sums of positive semidefinite terms, so V cannot lose definiteness; right for defective A and
    singular Q. Each squaring multiplies the relative error of Phi by 2 ||Phi||^2 / ||Phi^2||;
    where that adds up to more than 1e-11 the work is done again in the Schur basis of each block of
    A, in extended precision (where the platform's long double has it). No e^{-A tau} appears,
    unlike in Van Loan's (1978) block exponential, which overflows for stiff A or long intervals.
modal closed form
    A = S Lam S^-1, Qs = S^-1 Q S^-H, V = S [Qs_kl expm1((lam_k + conj lam_l) tau) /
    (lam_k + conj lam_l)] S^H. Its error does not grow with tau, but where terms cancel (short tau
    with singular Q, nearly parallel eigenvectors); the size of the terms gives the bound.

Many distinct intervals start from base points, a multiple of a small step each, where these two
are used, and go on from there by the semigroup laws and a short Taylor series (compiled).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter._base.remembered import remembered
from afafilter._base.steps import mostly_distinct
from afafilter._base.threads import rows, spread
from afafilter.linalg.doubling import (
    TERMS,
    Cluster,
    amplification,
    balanced,
    double_roots,
    same_block,
    schur_form,
    single_eigenvalue_blocks,
    square,
    taylor_rows,
    turned_root,
)
from afafilter.linalg.modes import Modes, modal_transition, modes
from afafilter.linalg.transitions import by_columns, from_base, lower_roots, transitions

_EPS = float(np.finfo(np.float64).eps)
_SHORT_NORM = 2.0  # ||A|| tau up to which three doublings do: compiled, error about eps
_SERIES_REACH = 0.5  # ||A|| h of the Taylor step
_DOUBLING_REACH = 8.0  # ||A|| tau up to which doubling is not worth competing with
_DOUBLING_ERROR = 1e-11  # error estimate beyond which doubling is repeated in extended precision
_PIVOT_LOSS = 1e-6  # share of a pivot of V from which its factorisation has lost six digits
_CELL_REACH = 0.0625  # ||A|| times the distance from a base point, at most
_CELL_TERMS = 12
_MANY = 256  # intervals from which base points are worth trying
_SMALL = 1024  # entries (n, d, d) of the largest set of intervals whose transitions are kept
_SUMMED = 64.0  # ||A|| over the slowest decay up to which a sum of steps loses no digits
_MOST_DOUBLINGS = 60  # of steps that decay by a rounding each
_REFINEMENTS = 2  # of an inverse, from double to extended precision
_CHUNK = 1 << 21  # entries of one (n, d, d) temporary


def transition(A: Array, Q: Array, u: Array, dt: Array) -> tuple[Array, Array, Array]:
    """Exact discretisation of dx = (Ax + u) dt + dw, Cov(dw) = Q dt, over intervals dt.

    Parameters
    ----------
    A : (d, d), 1/time. Any matrix: stiff, defective and unstable ones too.
    Q : (d, d) symmetric positive semidefinite, state^2/time. Singular is fine.
    u : (d,) state/time.
    dt : (...) >= 0, time.

    Returns
    -------
    Phi : (..., d, d), psi : (..., d), V : (..., d, d), V exactly symmetric; I, 0, 0 where dt = 0.

    Raises
    ------
    ValueError
        If A is unstable and dt so long that the result exceeds the floating-point range.

    Notes
    -----
    Equal intervals are computed once unless most of many differ; O(n d^3) for n distinct ones,
    without a Python loop over them. Normwise relative error below 1e-10 for eigenvalue spreads up
    to 1e6 (tested against 50-digit arithmetic); typically 1e-14. The exception: Phi of a defective
    A of five or more components in a mixed basis, once it has decayed below 1e-15, is right in the
    absolute sense.
    """
    return Discretiser(A, Q, u)(dt)


class Discretiser:
    """`transition` for one model: what does not depend on the intervals is computed once."""

    def __init__(self, A: Array, Q: Array, u: Array) -> None:
        # Balancing by powers of two is exact and makes ||A|| a fair measure (companion matrices).
        scale, self.A = balanced(A)
        self.scale = np.outer(scale, 1 / scale), scale, np.outer(scale, scale)
        self.Q, self.u = Q / self.scale[2], u / scale
        self.norm = float(np.abs(self.A).sum(axis=0).max())
        self.unit = self.norm if self.norm > 0 else 1.0  # time is counted in units of 1/||A||
        self.cell = float(2.0 ** np.floor(np.log2(_CELL_REACH / self.unit)))

    def __call__(self, dt: Array) -> tuple[Array, Array, Array]:
        """Phi, psi, V over dt (...), as `transition`."""
        dt = np.asarray(dt, dtype=np.float64)
        taus = dt.ravel()
        if self._few(taus):
            found = remembered(self, ("transitions", taus.tobytes()), lambda: self._some(taus))
            Phi, psi, V = (part.copy() for part in found)
        else:
            Phi, psi, V = self._some(taus)
        d = len(self.A)
        shape = (*dt.shape, d, d)
        return Phi.reshape(shape), psi.reshape(shape[:-1]), V.reshape(shape)

    def or_nan(self, dt: Array) -> tuple[Array, Array, Array]:
        """The same over dt (n,), NaN where it leaves the floating-point range."""
        try:
            return self(dt)
        except ValueError:
            if len(dt) == 1:
                Phi, psi, V = self(0.0 * dt)
                return Phi * np.nan, psi * np.nan, V * np.nan
            each = zip(*(self.or_nan(one) for one in dt[:, None]))
            Phi, psi, V = (np.concatenate(part) for part in each)
            return Phi, psi, V

    def _few(self, taus: Array) -> bool:
        """Whether the transitions over these intervals are kept: of one, or not large."""
        return len(taus) == 1 or 0 < len(taus) * self.A.size <= _SMALL

    def _some(self, taus: Array) -> tuple[Array, Array, Array]:
        """Over taus (n,), alike ones found once."""
        if len(taus) == 1 or mostly_distinct(taus) or (taus[1:] > taus[:-1]).all():
            return self._each(taus)
        distinct, where = np.unique(taus, return_inverse=True)
        Phi, psi, V = self._each(distinct)
        return Phi[where], psi[where], V[where]

    def roots(self, taus: Array) -> tuple[Array, Array, Array]:
        """Columns of Phi, psi, columns of the lower root of V over taus (n,), to be read only."""

        def find() -> tuple[Array, Array, Array]:
            return self._refined_roots(taus, self._each(taus, roots=True))

        return remembered(self, ("roots", taus.tobytes()), find) if self._few(taus) else find()

    def _refined_roots(
        self, taus: Array, found: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array]:
        """`roots` where V has lost what is small beside its largest parts: doubled as roots."""
        root, small = found[2], np.empty(len(taus), bool)

        def look(part: slice) -> None:
            x = root[part]
            pivots, size = np.einsum("nii->ni", x), np.einsum("nji,nji->ni", x, x)
            small[part] = (pivots * pivots < _PIVOT_LOSS * size).any(axis=1)

        spread(look, rows(len(taus)), len(taus))
        lost = np.flatnonzero(small)
        lost = lost[self.norm * taus[lost] > _SERIES_REACH]
        if lost.size:
            halvings = self._halvings(taus[lost])
            order = np.argsort(-halvings, kind="stable")
            lost, halvings = lost[order], halvings[order]
            with np.errstate(under="ignore"):
                x, P, _, V = self._series(np.ldexp(taus[lost], -halvings), np.longdouble)
                sharp = lower_roots(V)
                double_roots(halvings, x, P, sharp)
                root[lost] = turned_root(self._turned[0], sharp) * self.scale[1]
        return found

    def _halvings(self, taus: Array) -> NDArray[np.intp]:
        """How often each interval is halved to where the Taylor series is right."""
        reach = self.unit * taus / _SERIES_REACH
        return np.where(reach > 1, np.ceil(np.log2(np.maximum(reach, 1.0))), 0).astype(np.intp)

    def _each(self, taus: Array, roots: bool = False) -> tuple[Array, Array, Array]:
        """Over taus (n,), every one by itself."""
        n, d = len(taus), len(self.A)
        starts, base = np.zeros(0), np.zeros(0, np.intp)
        if n >= _MANY:
            starts, base = _groups(np.floor(taus / self.cell))
        if not 0 < len(starts) <= n // 4:
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                Phi, psi, V = self._exact(taus)
                self._check_range(taus, Phi, psi, V)
            return by_columns(Phi, psi, V) if roots else (Phi, psi, V)
        scale = np.concatenate([part.ravel() for part in self.scale])
        powers = self.unit ** np.arange(1, _CELL_TERMS + 1)
        coefficients = self._taylor[:_CELL_TERMS].astype(np.float64) * powers[:, None] * scale
        starts = starts * self.cell
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            given = self._exact(starts)
        out = np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d))

        def some(part: slice) -> None:
            tau, cell, found = taus[part], base[part], tuple(x[part] for x in out)
            from_base(coefficients, tau - starts[cell], cell, *given, *found, roots)
            with np.errstate(over="ignore", invalid="ignore"):
                self._check_range(tau, *found)

        spread(some, rows(n), n)
        return out

    def _check_range(self, taus: Array, Phi: Array, psi: Array, V: Array) -> None:
        if np.isfinite(Phi.sum() + psi.sum() + V.sum()):
            return
        finite = np.isfinite(Phi).all((1, 2)) & np.isfinite(psi).all(1) & np.isfinite(V).all((1, 2))
        if not finite.all():
            gap = taus[np.argmin(finite)]
            raise ValueError(
                f"the transition over dt = {gap:g} exceeds the floating-point range: A is unstable "
                f"(largest real part of an eigenvalue {np.linalg.eigvals(self.A).real.max():.3g}); "
                "split the record there or rescale time"
            )

    def _exact(self, taus: Array) -> tuple[Array, Array, Array]:
        """Every interval by itself, in chunks that bound the temporaries."""
        n, d = len(taus), len(self.A)
        if n and self.norm * taus[taus.argmax()] <= _SHORT_NORM:
            Phi, psi, V = transitions(self.A, self.Q, self.u, np.ascontiguousarray(taus))
        else:
            Phi, psi, V = np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d))
            step = max(1, _CHUNK // (d * d))
            for begin in range(0, n, step):
                part = slice(begin, begin + step)
                Phi[part], psi[part], V[part] = self._chunk(taus[part])
        for value, scale in zip((Phi, psi, V), self.scale):
            value *= scale
        return Phi, psi, 0.5 * (V + V.swapaxes(-1, -2))

    def summed(self) -> Array:
        """V over an endless interval of a stable A, the sum over steps of 1/||A|| each."""
        F, _, V = transitions(self.A, self.Q, self.u, np.array([1 / self.unit]))
        return np.asarray(stationary_steps_covariance(F[0], V[0]) * self.scale[2])

    @cached_property
    def modes(self) -> Modes:
        return modes(self.A, self.Q)

    @cached_property
    def clusters(self) -> list[Cluster]:
        return single_eigenvalue_blocks(self.A)

    @cached_property
    def _taylor(self) -> NDArray[np.longdouble]:
        """`taylor_rows` in units of 1 / ||A||."""
        return taylor_rows(*(M.astype(np.longdouble) / self.unit for M in (self.A, self.Q, self.u)))

    @cached_property
    def _turned(self) -> tuple[Any, Any, NDArray[np.longdouble]]:
        """U of `schur_form`, its inverse, and `_taylor` of U^-1 x, all of it in long double."""
        U, one = schur_form(self.A)[1].astype(np.longdouble), np.eye(len(self.A))
        inverse = U.T
        for _ in range(_REFINEMENTS):
            inverse = inverse @ (2 * one - U @ inverse)
        turned = inverse @ self.A @ U, inverse @ self.Q @ inverse.T, inverse @ self.u
        return U, inverse, taylor_rows(*(M / self.unit for M in turned))

    def _chunk(self, taus: Array) -> tuple[Array, Array, Array]:
        n, d = len(taus), len(self.A)
        reach = self.norm * taus
        out = np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d))
        modal = reach > _DOUBLING_REACH
        if modal.any():
            *found, bound = modal_transition(self.modes, self.Q, self.u, taus[modal])
            better = bound < _EPS * reach[modal]
            modal[modal] = better
            for whole, part in zip(out, found):
                whole[modal] = part[better]
        rest = np.flatnonzero(~modal)
        for dtype in (np.float64, np.longdouble):
            if rest.size:
                *found, error = self._double(taus[rest], dtype)
                for whole, part in zip(out, found):
                    whole[rest] = part
                rest = rest[error > _DOUBLING_ERROR]
        return out

    def _double(self, taus: Array, dtype: type) -> tuple[Array, Array, Array, Array]:
        """Phi, psi, V and an estimate of Phi's relative error."""
        halvings = self._halvings(taus)
        order = np.argsort(-halvings, kind="stable")
        x, P, psi, V = self._series(np.ldexp(taus[order], -halvings[order]), dtype)
        left, tau = halvings[order], taus[order]
        far = self.norm * tau > _DOUBLING_REACH
        clusters = [c for c in self.clusters if tau[0] < c.limit] if far.any() else []
        counted = same_block(self.A)  # entries of Phi that squaring has to get right
        for cluster in clusters:
            counted[np.ix_(cluster.members, cluster.members)] = False
        error = np.full(len(tau), _EPS)
        for done in range(int(left[0]) if len(left) else 0):
            n = int(np.searchsorted(-left, -done, side="left"))
            p, v = P[:n], V[:n]
            V[:n] = p @ v @ p.swapaxes(-1, -2) + v
            psi[:n] += (p @ psi[:n, :, None])[..., 0]
            before = p * counted
            x[:n], P[:n] = square(x[:n], p)
            if counted.any():
                error[:n] = (2 * error[:n] + _EPS) * amplification(before, P[:n] * counted)
        if dtype is np.longdouble:
            U, inverse, _ = self._turned
            P, psi, V = U @ P @ inverse, psi @ U.T, U @ V @ U.T
        for cluster in clusters:
            rows = np.flatnonzero(far)
            P[np.ix_(rows, cluster.members, cluster.members)] = cluster(tau[rows])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return P[back], psi[back], V[back], error[back]

    def _series(self, h: Array, dtype: type) -> tuple[Array, Array, Array, Array]:
        """diag(Phi - I), Phi, psi, V by Taylor series (||A|| h <= 1/2).

        In double precision of the state itself, in extended precision of U^-1 x (`_turned`).
        """
        d = len(self.A)
        powers = (self.unit * h.astype(dtype))[:, None] ** np.arange(1, TERMS + 1)
        total = powers @ (self._turned[2] if dtype is np.longdouble else self._taylor.astype(dtype))
        X, psi, V = np.split(total, [d * d, d * d + d], axis=1)
        X = X.reshape(-1, d, d)
        x = np.diagonal(X, axis1=1, axis2=2).copy()
        return x, X + np.eye(d), np.ascontiguousarray(psi), V.reshape(-1, d, d)


def _groups(x: Array) -> tuple[Array, NDArray[np.intp]]:
    """Distinct values of the whole numbers x (n,) >= 0, increasing, and which of them each is."""
    top = x.max()
    if top > 4 * len(x):
        values, which = np.unique(x, return_inverse=True)
        return values, which
    number = x.astype(np.intp)
    used = np.zeros(int(top) + 1, bool)
    used[number] = True
    return np.flatnonzero(used).astype(np.float64), (np.cumsum(used) - 1)[number]


def is_stable(A: Array) -> bool:
    """Whether every eigenvalue of A has a negative real part, beyond rounding."""
    norm = float(np.abs(balanced(A)[1]).sum(axis=0).max())
    return bool(np.linalg.eigvals(A).real.max() < -4 * len(A) * _EPS * norm)


def is_stable_in_steps(F: Array) -> bool:
    """Whether every eigenvalue of F lies within the unit circle, beyond hundreds of roundings."""
    norm = float(np.abs(balanced(F)[1]).sum(axis=0).max())
    return bool(np.abs(np.linalg.eigvals(F)).max() < 1 - 256 * len(F) * _EPS * norm)


def stationary_covariance(A: Array, Q: Array) -> Array:
    """P with A P + P A^T + Q = 0 (A stable, Q symmetric): V after 50 decays of the slowest mode.

    Like `transition`, and unlike a Schur solver, semidefinite by construction where Q is, and
    accurate for each block of a block-diagonal model. Where no mode is much slower than others,
    the sum over steps of 1/||A|| each is as exact. Of one state it is Q / (-2 A).
    """
    if len(A) == 1:
        return np.asarray(Q / (-2.0 * A))
    slowest, flow = -float(np.linalg.eigvals(A).real.max()), Discretiser(A, Q, np.zeros(len(A)))
    if flow.norm <= _SUMMED * slowest:
        return flow.summed()
    return flow(np.asarray(50 / slowest))[2]


def stationary_adjoint(A: Array, G: Array) -> Array:
    """Y with A^T Y + Y A + G = 0 (A stable): the gradient by Q of what has the gradient G by P.

    G (d, d) symmetric, of any sign: the sum over steps of 1/||A|| each.
    """
    return Discretiser(A.T, G, np.zeros(len(A))).summed()


def stationary_steps_covariance(F: Array, Q: Array) -> Array:
    """P = F P F^T + Q = sum_k F^k Q F^kT (F stable, Q symmetric), the sum doubled until it stands.

    Semidefinite by construction where Q is; no system of d^2 equations is solved.
    """
    scale, turned = balanced(F)
    pair = np.outer(scale, scale)
    P, power = Q / pair, turned[None]
    x = np.diagonal(F - np.eye(len(F)))[None]
    with np.errstate(under="ignore"):
        for _ in range(_MOST_DOUBLINGS):
            more = power[0] @ P @ power[0].T
            P = P + more
            x, power = square(x, power)
            if not np.abs(power).max() > _EPS**2:
                break
    P = P * pair
    return np.asarray(0.5 * (P + P.T))
