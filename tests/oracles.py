"""Independent answers: high-precision discretisation and the dense joint Gaussian.

Nothing here calls the library's discretisation, filters or likelihoods. The transition comes from
Arb; states, observations and their conditional laws from one big covariance matrix, factorised
in extended precision. Cost is cubic in the number of scalars: for tests only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import flint
import numpy as np
from flint import arb, arb_mat
from numpy.typing import ArrayLike

from afafilter import DiscreteModel, LinearSDE, Prior

Array = np.ndarray[Any, Any]
REAL = np.longdouble


# ---------------------------------------------------------------- discretisation in high precision


def mp_transition(
    A: ArrayLike, Q: ArrayLike, u: ArrayLike, dt: float
) -> tuple[Array, Array, Array]:
    """Phi, psi, V of dx = (Ax + u) dt + noise over dt, as longdouble.

    The block exponential of Van Loan (1978) on a step short enough for ||A|| h <= 1/2, then
    doublings by the semigroup laws; all in ball arithmetic (Arb), which bounds its own error, with
    as many bits as it takes.
    """
    A, Q, u = (np.asarray(M, dtype=float) for M in (A, Q, u))
    Phi, psi, V = _mp_transition(A.tobytes(), Q.tobytes(), u.tobytes(), len(A), float(dt))
    return Phi.copy(), psi.copy(), V.copy()


def step_noise(A: ArrayLike, Q: ArrayLike, length: float) -> Array:
    """int_0^length e^{As} Q e^{A's} ds."""
    return mp_transition(A, Q, np.zeros(len(np.asarray(A))), length)[2].astype(float)


@lru_cache(maxsize=4096)
def _mp_transition(A: bytes, Q: bytes, u: bytes, d: int, dt: float) -> tuple[Array, Array, Array]:
    block = np.zeros((2 * d + 1, 2 * d + 1))  # [[A, Q, u], [0, -A^T, 0], [0, 0, 0]]
    block[:d, :d] = np.frombuffer(A).reshape(d, d)
    block[:d, d : 2 * d] = np.frombuffer(Q).reshape(d, d)
    block[:d, 2 * d] = np.frombuffer(u)
    block[d : 2 * d, d : 2 * d] = -block[:d, :d].T
    norm = float(max(np.abs(block[:d, :d]).sum(axis=axis).max() for axis in (0, 1))) * abs(dt)
    doublings = max(0, int(np.ceil(np.log2(max(norm, 1e-300)))) + 1)
    before, bits = flint.ctx.prec, 256
    try:
        while bits < 2**16:
            flint.ctx.prec = bits
            rows = (arb_mat(block.tolist()) * (arb(dt) / 2**doublings)).exp().tolist()[:d]
            Phi, cross, psi = (
                arb_mat([row[part] for row in rows])
                for part in (slice(d), slice(d, 2 * d), slice(2 * d, None))
            )
            V = cross * Phi.transpose()
            for _ in range(doublings):
                V = Phi * V * Phi.transpose() + V
                psi, Phi = Phi * psi + psi, Phi * Phi
            if _is_known(Phi) and _is_known(psi) and _is_known(V):
                return _longdouble(Phi), _longdouble(psi)[:, 0], _longdouble(V)
            bits *= 2
    finally:
        flint.ctx.prec = before
    raise ArithmeticError("oracle: the exponential is out of reach")


def _is_known(M: arb_mat) -> bool:
    """Whether every entry has 25 digits, or is nothing beside the largest."""
    entries = M.entries()
    nothing = max(x.abs_upper() for x in entries) * 1e-60
    return all(
        x.is_finite() and (x.rel_accuracy_bits() >= 84 or x.rad() <= nothing) for x in entries
    )


def _longdouble(M: arb_mat) -> Array:
    """The middles of the entries."""
    tiny = arb(10) ** -4900

    def digits(x: arb) -> str:
        return x.str(25, radius=False) if abs(x) > tiny else "0"

    return np.array([[REAL(digits(x.mid())) for x in row] for row in M.tolist()])


# ---------------------------------------------------------------------------- dense joint Gaussian


@dataclass(frozen=True)
class Joint:
    """Joint law of the states at `nodes` and of the observations, given flat directions = 0.

    x = mean + flat @ delta + noise with covariance cov, delta flat; y = H x + offset + v, v ~ R.
    """

    nodes: Array  # (n,) sorted distinct times
    mean: Array  # (n d,)
    cov: Array  # (n d, n d)
    flat: Array  # (n d, q)
    H: Array  # (T p, n d)
    offset: Array  # (T p,)
    R: Array  # (T p, T p)
    rows: Array  # (Tq,) index of the node of each estimate


def joint_gaussian(
    model: LinearSDE | DiscreteModel,
    t: ArrayLike,
    query_times: ArrayLike | None = None,
    obs_cov: ArrayLike | None = None,
) -> Joint:
    """Joint law of states and observations at t, and of the states at the query times.

    The prior holds at the time of the state that the first observation shows, t[0] - delay, or at
    its own t0. A stationary prior holds everywhere. Before the time of a proper prior the state is
    what can have led there, x(s) = Phi^-1 (x(t0) - psi - w), w independent of x(t0).
    """
    given = (None if x is None else np.asarray(x, dtype=float) for x in (t, query_times, obs_cov))
    return _joint_gaussian(model, *(None if x is None else x.tobytes() for x in given))


@lru_cache(maxsize=4)
def _joint_gaussian(
    model: LinearSDE | DiscreteModel, stamps: bytes, queries: bytes | None, covs: bytes | None
) -> Joint:
    t = np.frombuffer(stamps)
    query = t if queries is None else np.frombuffer(queries)
    d, p = model.dim, model.obs_dim
    obs_cov = None if covs is None else np.frombuffer(covs).reshape(len(t), p, p)
    delay = model.delay if isinstance(model, LinearSDE) else 0.0
    discrete = isinstance(model, DiscreteModel)
    shown = t - delay
    anchor = shown[0]
    prior = model.prior
    if isinstance(prior, Prior) and prior.t0 is not None:
        anchor = prior.t0
    elif prior == "stationary":
        anchor = min(shown[0], query[0])
    nodes = (
        np.arange(len(t)) if discrete else np.unique(np.concatenate([shown, t, query, [anchor]]))
    )
    n, start = len(nodes), 0 if discrete else int(np.searchsorted(nodes, anchor))
    mean0, cov0, flat0 = _prior_law(model)
    q = flat0.shape[1]
    mean, flat = np.zeros((n, d), REAL), np.zeros((n, d, q), REAL)
    # x_node = mean + flat delta + noise[node] @ e with cov(e) = block_diag(source)
    noise = np.zeros((n, d, n, d), REAL)
    source = np.zeros((n, d, d), REAL)
    mean[start], flat[start], source[start] = mean0, flat0, cov0
    noise[start, :, start] = np.eye(d)
    for k in range(start + 1, n):
        Phi, psi, source[k] = _step(model, nodes, k)
        mean[k], flat[k] = Phi @ mean[k - 1] + psi, Phi @ flat[k - 1]
        noise[k] = np.tensordot(Phi, noise[k - 1], 1)
        noise[k, :, k] += np.eye(d)
    for k in range(start - 1, -1, -1):
        Phi, psi, source[k] = _step(model, nodes, k + 1)
        back = _inverse(Phi)
        mean[k], flat[k] = back @ (mean[k + 1] - psi), back @ flat[k + 1]
        noise[k] = np.tensordot(back, noise[k + 1], 1)
        noise[k, :, k] -= back
    full = noise.reshape(n * d, n, d)
    spread = np.einsum("akb,kbc->akc", full, source).reshape(n * d, n * d)
    cov = spread @ full.reshape(n * d, n * d).T

    H, offset = np.zeros((len(t), p, n, d), REAL), np.zeros((len(t), p), REAL)
    R = np.zeros((len(t), p, len(t), p), REAL)
    for k in range(len(t)):
        node = k if discrete else int(np.searchsorted(nodes, shown[k]))
        C, b, noise_cov = _observation(model, k)
        H[k, :, node], offset[k] = C, b
        R[k, :, k] = noise_cov if obs_cov is None else obs_cov[k]
    size = len(t) * p
    return Joint(
        nodes,
        mean.ravel(),
        cov,
        flat.reshape(n * d, q),
        H.reshape(size, n * d),
        offset.ravel(),
        R.reshape(size, size),
        np.arange(n) if discrete else np.searchsorted(nodes, query),
    )


def dense_posterior(
    model: LinearSDE | DiscreteModel,
    t: ArrayLike,
    z: ArrayLike,
    *,
    causal: bool,
    query_times: ArrayLike | None = None,
    obs_cov: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Mean (Tq, d) and covariance (Tq, d, d) of each state given the data z (T, p).

    causal: on the grid, observations up to that index; at query times, those stamped up to then.
    Otherwise all of them. NaN = not observed. Flat directions are estimated by generalised least
    squares; components that they leave undetermined get mean NaN, variance inf, covariances 0.
    """
    t, z = np.asarray(t, dtype=float), np.asarray(z, dtype=float)
    d, p = model.dim, model.obs_dim
    joint = joint_gaussian(model, t, query_times, obs_cov)
    count = len(joint.rows)
    used = np.full(count, len(t))
    if causal:
        used = 1 + np.arange(count)
        if query_times is not None:
            used = np.searchsorted(t, np.asarray(query_times), side="right")
    keep = np.flatnonzero((np.arange(len(t) * p) < used.max() * p) & ~np.isnan(z.ravel()))
    residual, S, X = _data_law(joint, z.ravel(), keep)
    L = cholesky(S)  # that of the first data is its leading part, and so are products with L^-1
    white = forward(L, np.column_stack([residual, X, joint.H[keep] @ joint.cov]))
    mean, cov = np.empty((count, d)), np.empty((count, d, d))
    for i, node in enumerate(joint.rows):
        first = white[: np.searchsorted(keep, used[i] * p)]
        mean[i], cov[i] = _condition(joint, first, slice(node * d, (node + 1) * d))
    return mean, cov


def dense_loglik(
    model: LinearSDE | DiscreteModel, t: ArrayLike, z: ArrayLike, obs_cov: ArrayLike | None = None
) -> float:
    """Log density of the data, flat directions integrated out.

    The convention is that of statsmodels' exact diffuse initialisation (Durbin & Koopman, 2012,
    sec. 7.2.2): *every* observed scalar counts one log 2 pi, those absorbed by flat directions
    too. With an orthonormal flat basis at the prior's time and X the data's regressors on it,

        -1/2 [ n log 2 pi + log|S| + log|X^T S^-1 X| + r^T S^-1 r ],

    r the generalised least squares residual. Directions that the data do not see are left out
    (pseudo-determinant). Nile as a local level (15099, 1469.1): -633.4646; dropping the log 2 pi
    of the one absorbed observation, another common convention, gives -632.5456.
    """
    z = np.asarray(z, dtype=float)
    joint = joint_gaussian(model, t, None, obs_cov)
    keep = np.flatnonzero(~np.isnan(z.ravel()))
    if not len(keep):
        return 0.0
    residual, S, X = _data_law(joint, z.ravel(), keep)
    L = cholesky(S)
    r, X = forward(L, residual), forward(L, X)
    identified, _ = _split(X)
    X = X @ identified
    total = len(keep) * np.log(2 * REAL(np.pi)) + 2 * np.log(np.diag(L)).sum()
    if X.shape[1]:
        K = cholesky(X.T @ X)
        w = forward(K, X.T @ r)
        return float(-0.5 * (total + 2 * np.log(np.diag(K)).sum() + r @ r - w @ w))
    return float(-0.5 * (total + r @ r))


# ------------------------------------------------------------------------------------- inner parts


def _condition(joint: Joint, white: Array, state: slice) -> tuple[Array, Array]:
    """Law of a state given data of which `white` is L^-1 [residual, X, H cov], S = L L^T."""
    mean, cov, G = joint.mean[state], joint.cov[state, state], joint.flat[state]
    q = G.shape[1]
    unseen = np.eye(q, dtype=REAL)
    if len(white):
        r, X, cross = white[:, 0], white[:, 1 : 1 + q], white[:, 1 + q :][:, state]
        identified, unseen = _split(X)
        X, load = X @ identified, (G - cross.T @ X) @ identified
        mean, cov = mean + cross.T @ r, cov - cross.T @ cross
        if identified.shape[1]:
            K = cholesky(X.T @ X)
            back = forward(K, load.T)
            mean = mean + back.T @ forward(K, X.T @ r)
            cov = cov + back.T @ back
    unknown = np.abs(G @ unseen).sum(axis=1) > 1e-9 * max(1.0, float(np.abs(G).max(initial=0)))
    mean, cov = mean.astype(float), cov.astype(float)
    mean[unknown] = np.nan
    cov[unknown, :] = cov[:, unknown] = 0.0
    cov[unknown, unknown] = np.inf
    return mean, cov


def _data_law(joint: Joint, z: Array, keep: Array) -> tuple[Array, Array, Array]:
    H = joint.H[keep]
    residual = z[keep] - joint.offset[keep] - H @ joint.mean
    return residual, H @ joint.cov @ H.T + joint.R[np.ix_(keep, keep)], H @ joint.flat


def _split(X: Array) -> tuple[Array, Array]:
    """Orthonormal bases of the row space and of the null space of X."""
    if X.shape[1] == 0:
        return np.zeros((0, 0), REAL), np.zeros((0, 0), REAL)
    _, values, rows = np.linalg.svd(X.astype(float), full_matrices=True)
    rank = int((values > 1e-10 * max(values.max(), 1e-300)).sum()) if values.max() > 0 else 0
    return rows[:rank].T.astype(REAL), rows[rank:].T.astype(REAL)


def _prior_law(model: LinearSDE | DiscreteModel) -> tuple[Array, Array, Array]:
    d = model.dim
    eye, none = np.eye(d, dtype=REAL), np.zeros((d, 0), REAL)
    if model.prior == "diffuse":
        return np.zeros(d, REAL), np.zeros((d, d), REAL), eye
    if isinstance(model.prior, Prior):
        flat = none if model.prior.diffuse is None else model.prior.diffuse
        return model.prior.mean.astype(REAL), model.prior.cov.astype(REAL), flat.astype(REAL)
    continuous = isinstance(model, LinearSDE)
    G = model.A if continuous else model.F
    left = np.kron(G, np.eye(d)) + np.kron(np.eye(d), G) if continuous else np.kron(G, G)
    left = left if continuous else left - np.eye(d * d)
    P = _solve(left, -model.Q.reshape(-1, 1)).reshape(d, d)
    m = _solve(
        G if continuous else G - np.eye(d), -(model.drift if continuous else model.b)[:, None]
    )
    return m[:, 0], P, none


def _step(model: LinearSDE | DiscreteModel, nodes: Array, k: int) -> tuple[Array, Array, Array]:
    """Transition from node k - 1 to node k."""
    if isinstance(model, LinearSDE):
        return mp_transition(model.A, model.Q, model.drift, float(nodes[k] - nodes[k - 1]))
    return tuple(_entry(model, name, k) for name in ("F", "b", "Q"))  # type: ignore[return-value]


def _observation(model: LinearSDE | DiscreteModel, k: int) -> tuple[Array, Array, Array]:
    if isinstance(model, LinearSDE):
        return model.C, model.offset, model.R
    return tuple(_entry(model, name, k) for name in ("H", "d", "R"))  # type: ignore[return-value]


def _entry(model: DiscreteModel, name: str, k: int) -> Array:
    value = getattr(model, name).astype(REAL)
    return value[k] if name in model.time_varying else value


def cholesky(M: Array) -> Array:
    """Lower Cholesky factor in extended precision."""
    L = np.array(M, dtype=REAL)
    n = len(L)
    for j in range(n):
        L[j:, j] -= L[j:, :j] @ L[j, :j]
        if L[j, j] <= 0:
            raise ValueError(f"oracle: matrix not positive definite at pivot {j}")
        L[j:, j] /= np.sqrt(L[j, j])
        L[j, j + 1 :] = 0
    return L


def forward(L: Array, M: Array) -> Array:
    """L^-1 M in extended precision."""
    out = np.array(M, dtype=REAL)
    for i in range(len(L)):
        out[i] = (out[i] - L[i, :i] @ out[:i]) / L[i, i]
    return out


def _solve(M: ArrayLike, rhs: ArrayLike) -> Array:
    left, right = np.asarray(M, float), np.asarray(rhs, float)
    return _mp_solve(left.tobytes(), right.tobytes(), len(left)).copy()


@lru_cache(maxsize=256)
def _mp_solve(M: bytes, rhs: bytes, n: int) -> Array:
    left, right = np.frombuffer(M).reshape(n, n), np.frombuffer(rhs).reshape(n, -1)
    before, flint.ctx.prec = flint.ctx.prec, 256
    try:
        return _longdouble(arb_mat(left.tolist()).solve(arb_mat(right.tolist())))
    finally:
        flint.ctx.prec = before


def _inverse(M: Array) -> Array:
    """M^-1 of a small matrix given in extended precision, by Gauss-Jordan with pivoting."""
    n = len(M)
    work = np.concatenate([np.array(M, REAL), np.eye(n, dtype=REAL)], axis=1)
    for j in range(n):
        pivot = j + int(np.argmax(np.abs(work[j:, j])))
        work[[j, pivot]] = work[[pivot, j]]
        work[j] /= work[j, j]
        others = np.arange(n) != j
        work[others] -= np.outer(work[others, j], work[j])
    return work[:, n:]
