"""Models on which every law is tested, and data to go with them.

The matrices are written out here, not taken from `afafilter.models.presets`: those are tested
against them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import LinearSDE, Prior


def _rotation(decay: float, frequency: float) -> np.ndarray:
    return np.array([[-decay, -frequency], [frequency, -decay]])


def _matern32() -> LinearSDE:
    lam, var = 1.3, 0.8
    A = np.array([[0.0, 1.0], [-(lam**2), -2 * lam]])
    return LinearSDE(A, Q=np.diag([0.0, 4 * lam**3 * var]), R=[[0.2]], C=[[1.0, 0.0]])


def _matern52() -> LinearSDE:
    lam, var = 0.9, 1.1
    A = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-(lam**3), -3 * lam**2, -3 * lam]])
    Q = np.diag([0.0, 0.0, 16 / 3 * lam**5 * var])
    return LinearSDE(A, Q=Q, R=[[0.1]], C=[[1.0, 0.0, 0.0]])


def _constant_velocity() -> LinearSDE:
    A = np.kron(np.array([[0.0, 1.0], [0.0, 0.0]]), np.eye(2))
    Q = np.kron(np.diag([0.0, 0.4]), np.eye(2))
    R = np.array([[0.5, 0.1], [0.1, 0.3]])
    return LinearSDE(A, Q=Q, R=R, C=np.hstack([np.eye(2), np.zeros((2, 2))]))


def _oscillator() -> LinearSDE:
    A = np.array([[0.0, 1.0], [-4.0, -0.3]])
    return LinearSDE(A, Q=np.diag([0.0, 0.5]), R=[[0.2]], C=[[1.0, 0.0]])


def _stiff() -> LinearSDE:
    A = block_diag([[-1e3]], _rotation(0.05, 1.0))
    Q = np.diag([500.0, 0.2, 0.2])
    return LinearSDE(A, Q=Q, R=[[0.3]], C=[[1.0, 1.0, 0.0]])


def _general() -> LinearSDE:
    rng = np.random.default_rng(20)
    A = rng.standard_normal((4, 4))
    A -= (np.linalg.eigvals(A).real.max() + 0.3) * np.eye(4)
    B = rng.standard_normal((4, 4))
    E = rng.standard_normal((3, 3))
    return LinearSDE(
        A,
        Q=0.3 * B @ B.T,
        R=0.2 * E @ E.T + 0.1 * np.eye(3),
        C=rng.standard_normal((3, 4)),
        drift=rng.standard_normal(4),
        offset=rng.standard_normal(3),
    )


def _trend_and_ou() -> LinearSDE:
    trend = LinearSDE([[0.0, 1.0], [0.0, 0.0]], Q=np.diag([0.0, 0.01]), R=[[0.2]], C=[[1.0, 0.0]])
    ou = LinearSDE([[-0.8]], Q=[[0.5]], R=[[0.0]])
    return trend + ou


def _proper_prior() -> LinearSDE:
    rng = np.random.default_rng(7)
    A = rng.standard_normal((3, 3)) - 1.5 * np.eye(3)
    root = rng.standard_normal((3, 3))
    prior = Prior(rng.standard_normal(3), root @ root.T + 0.2 * np.eye(3))
    Q = np.array([[0.4, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.2]])
    return LinearSDE(A, Q=Q, R=np.diag([0.5, 0.3, 0.4]), drift=[0.1, -0.2, 0.3], prior=prior)


MODELS: dict[str, LinearSDE] = {
    "brownian": LinearSDE([[0.0]], Q=[[0.5]], R=[[1.2]]),
    "ou": LinearSDE([[-0.7]], Q=[[0.9]], R=[[0.4]], drift=[0.3], offset=[-0.5]),
    "spiral": LinearSDE.isotropic(0.1, 1.0, process_var=0.3, obs_var=0.5),
    "isotropic_undamped": LinearSDE.isotropic(0.0, 0.7, process_var=0.3, obs_var=0.5),
    "matern32": _matern32(),
    "matern52": _matern52(),
    "constant_velocity": _constant_velocity(),
    "oscillator": _oscillator(),
    "unstable": LinearSDE(
        [[0.4, 0.3], [0.1, -0.9]], Q=[[0.3, 0.1], [0.1, 0.2]], R=[[0.5, 0.0], [0.0, 0.8]]
    ),
    "stiff": _stiff(),
    "noiseless_rotation": LinearSDE(_rotation(0.0, 1.1), Q=np.zeros((2, 2)), R=0.6 * np.eye(2)),
    "general": _general(),
    "trend_and_ou": _trend_and_ou(),
    "proper_prior": _proper_prior(),
}


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> LinearSDE:
    """Each model in turn."""
    return MODELS[request.param]


def irregular_times(n: int = 12, seed: int = 0) -> np.ndarray:
    """Sorted times in about [0, 0.45 n]: irregular, every fourth one repeats its predecessor."""
    gaps = np.random.default_rng(seed).exponential(0.6, n)
    gaps[0] = 0.0
    gaps[3::4] = 0.0
    return np.cumsum(gaps)


def draw_data(
    model: LinearSDE,
    t: np.ndarray,
    seed: int = 0,
    *,
    n_paths: int | None = None,
    missing: float = 0.0,
) -> np.ndarray:
    """Observations (T, p), or (n_paths, T, p), of a state path that starts at random.

    Components are NaN with probability `missing`. Written from the definition, step by step, so
    that tests of estimators do not rest on `afafilter.simulation.simulate`.
    """
    rng = np.random.default_rng(seed)
    paths = 1 if n_paths is None else n_paths
    d, p = model.dim, model.obs_dim

    def root(M: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(M)
        return vectors * np.sqrt(np.clip(values, 0.0, None))[..., None, :]

    Phi, psi, V = model.transition(np.diff(t, prepend=t[0]))
    step_root, noise_root = root(V), root(model.R)
    x = rng.standard_normal((paths, d))
    z = np.empty((paths, len(t), p))
    for k in range(len(t)):
        x = x @ Phi[k].T + psi[k] + rng.standard_normal((paths, d)) @ step_root[k].T
        noise = rng.standard_normal((paths, p)) @ noise_root.T
        z[:, k] = x @ model.C.T + model.offset + noise
    z[rng.random(z.shape) < missing] = np.nan
    return z[0] if n_paths is None else z


@pytest.fixture
def t() -> np.ndarray:
    """Irregular times with repeats."""
    return irregular_times()


@pytest.fixture
def z(model: LinearSDE, t: np.ndarray) -> np.ndarray:
    """Complete data (T, p) for `model` at `t`."""
    return draw_data(model, t)


@pytest.fixture
def z_missing(model: LinearSDE, t: np.ndarray) -> np.ndarray:
    """Data (T, p) with about a fifth of the components missing."""
    return draw_data(model, t, missing=0.2)
