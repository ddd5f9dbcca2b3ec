"""Cases for the laws: models, times and data of every kind that the estimators must answer.

A case is drawn by a `Pick`, which is either a seeded generator (`make fuzz`: case k of seed s is
always the same) or Hypothesis (`make test`: cases shrink to the smallest that fails).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg import block_diag

from afafilter import DiscreteModel, LinearSDE, Prior


class Pick(Protocol):
    """Where chance comes from."""

    def integer(self, low: int, high: int) -> int: ...
    def choice(self, values: Sequence[Any]) -> Any: ...
    def rng(self) -> np.random.Generator: ...


class Seeded:
    """Chance by a seed."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))

    def choice(self, values: Sequence[Any]) -> Any:
        return values[self.integer(0, len(values) - 1)]

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.integer(0, 2**31 - 1))


@dataclass(frozen=True)
class Case:
    """A model with data z (T, p) at t (T,), noise covariances (T, p, p) or None, query times."""

    model: Any
    t: Any
    z: Any
    obs_cov: Any
    queries: Any


def rarely(pick: Pick, one_in: int) -> bool:
    return pick.integer(1, one_in) == one_in


# Blocks of dynamics: A and Q. Rates are about one; `_dynamics` scales them.
BLOCKS: dict[str, tuple[Any, Any]] = {
    "walk": ([[0.0]], [[1.0]]),
    "constant": ([[0.0]], [[0.0]]),
    "velocity": ([[0.0, 1.0], [0.0, 0.0]], np.diag([0.0, 1.0])),
    "acceleration": (np.diag([1.0, 1.0], 1), np.diag([0.0, 0.0, 1.0])),
    "decay": ([[-0.7]], [[1.0]]),
    "silent decay": ([[-2.0]], [[0.0]]),
    "stiff": (np.diag([-1000.0, -1.0]), np.diag([50.0, 1.0])),
    "growth": ([[0.4]], [[0.3]]),
    "defective": ([[-1.0, 1.0], [0.0, -1.0]], np.diag([0.0, 2.0])),
    "rank one": (np.diag([-1.0, -5.0]), np.ones((2, 2))),
    "shortest": ([[0.0, -np.pi], [np.pi, 0.0]], 0.1 * np.eye(2)),
    "cycle": ([[-0.1, -1.1], [1.1, -0.1]], np.zeros((2, 2))),
    "spiral": ([[-0.1, -1.0], [1.0, -0.1]], 0.3 * np.eye(2)),
    "oscillator": ([[0.0, 1.0], [-4.0, -0.3]], np.diag([0.0, 0.5])),
    "matern": ([[0.0, 1.0], [-1.69, -2.6]], np.diag([0.0, 7.0])),
}
GAPS = (0.0, 0.0, 0.1, 0.25, 1.0, 1.0, 1.0, 2.0, 7.0, 30.0, 1e-4, 400.0)


def draw_case(pick: Pick) -> Case:
    """Any case."""
    if rarely(pick, 5):
        return _discrete(pick)
    if rarely(pick, 4):
        return _isotropic(pick)
    A, Q = _dynamics(pick)
    d = len(A)
    p = pick.integer(1, 3)
    C, R, unit = _sensors(pick, p, d)
    t = _slowly(_times(pick), A)
    T = len(t)
    drift = offset = None
    if rarely(pick, 4):
        drift, offset = 0.1 * pick.rng().standard_normal(d), pick.rng().standard_normal(p)
    delay = pick.choice([0.0, 0.0, 0.0, 0.25])
    model = LinearSDE(
        A,
        Q=Q,
        R=R,
        C=C,
        drift=drift,
        offset=offset,
        delay=delay,
        prior=_prior(pick, d, float(t[0]) - delay),
    )
    obs_cov = None
    if rarely(pick, 4):
        obs_cov = R * 10.0 ** pick.rng().integers(-3, 3, (T, 1, 1))
    z = _data(pick, model, t, unit, obs_cov)
    return Case(model, t, z, obs_cov, _queries(pick, t, A))


def _dynamics(pick: Pick) -> tuple[Any, Any]:
    names = [pick.choice(sorted(BLOCKS)) for _ in range(pick.integer(1, 2))]
    A = block_diag(*(BLOCKS[name][0] for name in names))
    Q = block_diag(*(BLOCKS[name][1] for name in names)) * pick.choice([1.0, 1.0, 1e-6, 1e3])
    d = len(A)
    if len(names) == 2 and rarely(pick, 3):
        A[0, -1] += pick.choice([0.5, -1.0])  # the second block drives the first
    A, Q = A / pick.choice([1.0, 1.0, 1.0, 60.0]), Q
    if rarely(pick, 4):  # another basis of the states
        S = np.eye(d) + 0.4 * pick.rng().standard_normal((d, d))
        A, Q = S @ A @ np.linalg.inv(S), S @ Q @ S.T
        Q = 0.5 * (Q + Q.T)
    if rarely(pick, 4):  # other units
        S = np.diag(10.0 ** pick.rng().integers(-4, 5, d))
        A, Q = S @ A @ np.linalg.inv(S), S @ Q @ S
    return A, Q


def _sensors(pick: Pick, p: int, d: int) -> tuple[Any, Any, Any]:
    """C, R and how large the data of each sensor are."""
    C = np.array([[pick.choice([0.0, 1.0, 1.0, -1.0, 0.5]) for _ in range(d)] for _ in range(p)])
    sds = 10.0 ** np.array([pick.integer(-4, 0) for _ in range(p)])
    correlation = np.eye(p)
    if p > 1 and rarely(pick, 3):
        correlation[0, 1] = correlation[1, 0] = pick.choice([0.7, -0.999])
    if rarely(pick, 8):
        sds[pick.integer(0, p - 1)] = 0.0  # an exact measurement
    unit = np.ones(p)
    if rarely(pick, 5):
        unit = 10.0 ** pick.rng().integers(-6, 7, p)
    return C * unit[:, None], correlation * np.outer(sds * unit, sds * unit), unit


def _times(pick: Pick) -> Any:
    gaps = [pick.choice(GAPS) for _ in range(pick.integer(0, 6))]
    if rarely(pick, 3):
        gaps = [g * float(f) for g, f in zip(gaps, 1 + pick.rng().random(len(gaps)))]
    start = pick.choice([0.0, 0.0, 0.0, -3.0, 2460000.5, 1.7e9])
    return start + np.concatenate([[0.0], np.cumsum(gaps)])


def _slowly(t: Any, A: Any) -> Any:
    """Times in which nothing grows by more than e^12: what grows to 1e100 is not held to a rule."""
    growth = float(np.linalg.eigvals(A).real.max() * (t[-1] - t[0]))
    return t if growth <= 12 else t[0] + (t - t[0]) * (12 / growth)


def _data(pick: Pick, model: Any, t: Any, unit: Any, obs_cov: Any = None) -> Any:
    """Data of the model's own making, or any others."""
    rng, T, p = pick.rng(), len(t), model.obs_dim
    if pick.integer(1, 4) > 1:
        z = _drawn(model, t, rng, unit, obs_cov) / unit
    else:
        z = pick.choice([1.0, 3.0]) * rng.standard_normal((T, p))
    if rarely(pick, 8):
        z[pick.integer(0, T - 1), pick.integer(0, p - 1)] += 1e3  # an outlier
    z[rng.random((T, p)) < pick.choice([0.0, 0.25, 0.5])] = np.nan
    return z * unit


def _drawn(model: Any, t: Any, rng: np.random.Generator, unit: Any, obs_cov: Any) -> Any:
    """A path that starts anywhere, near or far."""
    T, d, p = len(t), model.dim, model.obs_dim
    if isinstance(model, DiscreteModel):
        F, b, V = (
            np.broadcast_to(model.F, (T, d, d)),
            np.broadcast_to(model.b, (T, d)),
            model.Q[None],
        )
        H, off = model.H, model.d
    else:
        F, b, V = model.transition(np.diff(t, prepend=t[0]))
        H, off = model.C, model.offset
    V, R = np.broadcast_to(V, (T, d, d)), model.R[None] if obs_cov is None else obs_cov
    seen = np.abs(H / unit[:, None]).max(axis=0)  # of a state as large as one
    x = rng.standard_normal(d) * rng.choice([1.0, 1.0, 1e3, 5e6]) / np.where(seen > 0, seen, 1.0)
    z = np.empty((T, p))
    for k in range(T):
        if k:
            x = F[k] @ x + b[k] + _root(V[k]) @ rng.standard_normal(d)
        z[k] = H @ x + off + _root(np.broadcast_to(R, (T, p, p))[k]) @ rng.standard_normal(p)
    return np.clip(z, -1e12, 1e12)


def _root(M: Any) -> Any:
    values, vectors = np.linalg.eigh(M)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _prior(pick: Pick, d: int, first: float) -> Any:
    kind = pick.choice(["flat", "flat", "default", "known", "part"])
    if kind == "flat":
        return "diffuse"
    if kind == "default":
        return None
    rng = pick.rng()
    root = rng.standard_normal((d, d)) * 10.0 ** rng.integers(-2, 4)
    if rarely(pick, 4):
        root[:, 0] = 0.0  # singular
    mean = rng.standard_normal(d)
    t0 = None if rarely(pick, 2) else first - pick.choice([0.0, 0.5, 2.0])
    if kind == "known" or d == 1:
        return Prior(mean, root @ root.T, t0)
    q = pick.integer(1, d - 1)
    basis = np.eye(d)[:, rng.permutation(d)[:q]]
    if rarely(pick, 3):
        basis = rng.standard_normal((d, q))
    return Prior(mean, root @ root.T, t0, basis)


def _queries(pick: Pick, t: Any, A: Any) -> Any:
    """Times before, at, between and after the data; before them no further than 30 decays."""
    reach = min(5.0, 30.0 / max(np.abs(np.linalg.eigvals(A)).max(), 1e-9))
    rng, span = pick.rng(), float(t[-1] - t[0])
    around = [t[0] - reach * rng.random(), *(t[0] + span * rng.random(2)), t[-1] + 2 * rng.random()]
    return np.unique(np.array([*around, pick.choice(list(t))], float))


def _isotropic(pick: Pick) -> Case:
    """Models that the fast forms of AFA take, too: -mu I + skew in any basis, or modes."""
    modes = pick.integer(1, 2)
    alike = pick.choice([True, True, False])
    rng = pick.rng()
    mu, var, noise = (
        pick.choice([0.0, 0.1, 1.0]),
        pick.choice([0.0, 0.3, 5.0]),
        10.0 ** rng.integers(-3, 1),
    )
    blocks, Qs = [], []
    for _ in range(modes):
        w = float(rng.normal())
        own = mu if alike else mu * float(1 + rng.random())
        blocks.append(np.array([[-own, -w], [w, -own]]))
        Qs.append((var if alike else var * float(rng.random())) * np.eye(2))
    A, Q, d = block_diag(*blocks), block_diag(*Qs), 2 * modes
    R, C = noise * np.eye(d), np.eye(d)
    if rarely(pick, 3):
        S = np.array([[1.0, 0.5], [0.0, 1.0]])
        S = np.kron(np.eye(modes), S)
        A, Q, R = S @ A @ np.linalg.inv(S), S @ Q @ S.T, S @ R @ S.T
    t = _times(pick)
    model = LinearSDE(A, Q=0.5 * (Q + Q.T), R=0.5 * (R + R.T), C=C, prior="diffuse")
    z = _data(pick, model, t, np.ones(d))
    z[np.isnan(z).any(axis=1)] = np.nan
    return Case(model, t, z, None, _queries(pick, t, A))


def _discrete(pick: Pick) -> Case:
    """Steps of a continuous model, or any steps at all, the same or changing with time."""
    t, (A, Q) = _times(pick), _dynamics(pick)
    T, d, p = len(t), len(A), pick.integer(1, 2)
    C, R, unit = _sensors(pick, p, d)
    F: Any
    if rarely(pick, 2):
        F, b, Q = LinearSDE(A, Q=Q, R=R, C=C).transition(pick.choice([0.1, 1.0]))
        F = np.where(np.abs(F) > 1e-14 * np.abs(F).max(), F, 0.0)  # no sin(pi)
    else:
        rng = pick.rng()
        F, b = rng.standard_normal((d, d)), 0.1 * rng.standard_normal(d)
        if rarely(pick, 3):
            F[:, 0] = 0.0  # nothing of the first component is kept
        if rarely(pick, 2):
            F = F + 0.3 * rng.standard_normal((T, d, d))
    obs_cov = R * 10.0 ** pick.rng().integers(-3, 3, (T, 1, 1)) if rarely(pick, 4) else None
    prior = _prior(pick, d, 0.0)
    if isinstance(prior, Prior):
        prior = Prior(prior.mean, prior.cov, None, prior.diffuse)
    model = DiscreteModel(
        F, H=C, Q=Q, R=R, b=b, prior=prior, time_varying=("F",) if F.ndim == 3 else ()
    )
    return Case(model, np.arange(float(T)), _data(pick, model, t, unit, obs_cov), obs_cov, None)
