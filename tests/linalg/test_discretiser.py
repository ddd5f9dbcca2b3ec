"""Discretisation against 50-digit arithmetic, the semigroup laws, and closed forms."""

from __future__ import annotations

import time
import warnings

import mpmath
import numpy as np
import pytest
from scipy import linalg
from scipy.linalg import block_diag

from afafilter import LinearSDE
from afafilter.linalg import discretiser
from afafilter.linalg.modes import modes
from tests.conftest import MODELS
from tests.oracles import mp_transition

JORDAN = np.array([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [0.0, 0.0, -1.0]])
ROTATION = np.array([[0.0, -1.0], [1.0, 0.0]])


def relative(found, exact) -> float:
    """Normwise relative error; absolute where the exact value is 0 or not representable."""
    largest = float(np.abs(exact).max())
    if largest < 1e-290:
        return float(np.abs(found - exact).max())
    return float(np.linalg.norm(((found - exact) / largest).astype(float)))


def errors(A, Q, u, taus, phi_floor=0.0):
    """Largest error of (Phi, psi, V), and V's smallest eigenvalue relative to its norm."""
    A, Q, u = (np.asarray(M, dtype=float) for M in (A, Q, u))
    Phi, psi, V = discretiser.transition(A, Q, u, np.asarray(taus, dtype=float))
    worst, lowest = 0.0, np.inf
    for k, tau in enumerate(taus):
        exact = mp_transition(A, Q, u, tau)
        if np.linalg.norm(exact[0].astype(float)) < phi_floor:
            exact = (Phi[k], *exact[1:])
        worst = max(worst, *(relative(f, e) for f, e in zip((Phi[k], psi[k], V[k]), exact)))
        assert (V[k] == V[k].T).all()
        size = np.abs(V[k]).max()
        lowest = min(lowest, np.linalg.eigvalsh(V[k])[0] / size if size > 0 else 0.0)
    return worst, lowest


# ------------------------------------------------------------------------------ the oracle itself


@pytest.mark.parametrize("name", ["general", "matern52", "unstable"])
def test_oracle_is_the_integral(name):
    model, tau = MODELS[name], 1.7
    A, Q, u = (mpmath.matrix(M.tolist()) for M in (model.A, model.Q, model.drift + 0.2))
    Phi, psi, V = mp_transition(model.A, model.Q, model.drift + 0.2, tau)
    with mpmath.workdps(30):
        d = model.dim
        nodes = [
            (tau * (1 + x) / 2, tau * w / 2)
            for x, w in mpmath.calculus.quadrature.GaussLegendre(mpmath.mp).calc_nodes(4, 100)
        ]
        sum_V, sum_psi = mpmath.zeros(d), mpmath.zeros(d, 1)
        for s, weight in nodes:
            E = mpmath.expm(A * s, method="taylor")
            sum_V += weight * (E * Q * E.T)
            sum_psi += weight * (E * u)
        E = mpmath.expm(A * tau, method="taylor")
    as_float = [np.array(M.tolist(), dtype=float) for M in (E, sum_psi, sum_V)]
    assert relative(as_float[0], Phi) < 1e-15
    assert relative(as_float[1][:, 0], psi) < 1e-14
    assert relative(as_float[2], V) < 1e-14


# --------------------------------------------------------------------------------- exactness

GAPS = [1e-9, 1e-6, 1e-3, 0.1, 1.0, 7.0, 50.0, 400.0]


def test_transition_is_exact_on_every_model(model):
    worst, lowest = errors(model.A, model.Q, model.drift + 0.3, GAPS)
    assert worst < 1e-10
    assert lowest > -1e-14


@pytest.mark.parametrize("seed", range(12))
def test_transition_with_eigenvalue_spread_of_a_million(seed):
    """Mixed bases: every mode is hidden in full matrices; Q of any rank."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    D = np.diag(-(10 ** rng.uniform(-3, 3, d)))
    D[-1, -1], D[0, 0] = -1e3, -1e-3
    if d >= 4:
        w = 10 ** rng.uniform(-3, 2)
        D[1, 2], D[2, 1], D[2, 2] = -w, w, D[1, 1]
    S = np.linalg.qr(rng.standard_normal((d, d)))[0] @ np.diag(rng.uniform(0.3, 3, d))
    S = S @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = S @ D @ np.linalg.inv(S)
    B = rng.standard_normal((d, int(rng.integers(1, d + 1))))
    gaps = [1e-7, 1e-4, 0.01, 1.0, 30.0, 1000.0]
    worst, lowest = errors(A, B @ B.T, rng.standard_normal(d), gaps)
    assert worst < 1e-10
    assert lowest > -1e-14


HARD = {
    "stiff_ou_and_oscillator": (
        block_diag([[-1e6]], ROTATION - 0.05 * np.eye(2)), np.diag([1e6, 0.1, 0.1]), GAPS,
    ),
    "defective_at_two_scales": (
        block_diag(1e6 * JORDAN, JORDAN), np.diag([0.0, 0.0, 1.0, 0.0, 0.0, 1.0]), GAPS,
    ),
    "chain_of_integrators": (np.eye(5, k=1), np.diag([0.0, 0, 0, 0, 1]), [1e-6, 0.1, 5.0, 1e4]),
    "unstable_and_very_stable": (
        np.array([[0.5, 1.0], [0.0, -2e3]]), np.array([[0.0, 0.0], [0.0, 1.0]]), GAPS,
    ),
    "companion_with_fast_modes": (
        np.array([[0.0, 1.0], [-1e6, -2e3]]), np.diag([0.0, 4e9]), [1e-8, 1e-5, 0.01, 1.0, 100.0],
    ),
    "noise_on_one_mode_only": (
        np.array([[-1.0, 3.0], [0.0, -800.0]]), np.diag([1.0, 0.0]), GAPS,
    ),
    "half_defective_rotation": (
        np.block([[ROTATION, np.eye(2)], [np.zeros((2, 2)), ROTATION]]) - 0.01 * np.eye(4),
        np.diag([0.0, 0.0, 0.0, 1.0]), GAPS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_transition_on_hard_models(name):
    A, Q, gaps = HARD[name]
    worst, lowest = errors(A, Q, np.ones(len(A)), gaps, phi_floor=1e-200)
    assert worst < 1e-10
    assert lowest > -1e-14


@pytest.mark.parametrize("name", ["general", "matern52", "constant_velocity", "unstable", "stiff"])
def test_many_intervals_are_as_exact_as_few(name):
    """Hundreds of intervals share base points; some are 0, tiny, equal, or on a base point."""
    model = MODELS[name]
    rng = np.random.default_rng(4)
    fast = np.linalg.norm(model.A, 1)
    dt = np.concatenate(
        [rng.exponential(3.0 / fast, 3000), 10 ** rng.uniform(-9, 0, 200) / fast, np.zeros(3),
         np.full(5, 0.25 / fast), np.arange(1, 30) / 64]
    )  # fmt: skip
    rng.shuffle(dt)
    drift = model.drift + 0.3
    many = discretiser.transition(model.A, model.Q, drift, dt)
    few = discretiser.transition(model.A, model.Q, drift, dt[:100])
    # Base points are in use: these are not the numbers of intervals one by one.
    assert any((x[:100] != y).any() for x, y in zip(many, few))
    for k in [*np.argsort(dt)[[0, 3, 100, -1]], *range(8)]:
        exact = mp_transition(model.A, model.Q, drift, dt[k])
        assert max(relative(part[k], e) for part, e in zip(many, exact)) < 1e-13
        if model.dim == 4 and name == "constant_velocity" and dt[k] > 0:
            np.testing.assert_allclose(many[2][k], exact[2].astype(float), rtol=1e-13)
    size = np.abs(many[2]).max(axis=(1, 2))
    assert (np.linalg.eigvalsh(many[2])[:, 0] >= -1e-14 * size).all()
    assert (many[2] == many[2].swapaxes(1, 2)).all()


@pytest.mark.parametrize("n", [1, 40, 3000])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_roots_by_columns(name, n):
    """One interval, a few, and many from base points; some of length 0."""
    model = MODELS[name]
    dt = np.random.default_rng(n).exponential(3.0 / max(np.linalg.norm(model.A, 1), 1.0), n)
    dt[n // 2 :: 7] = 0.0
    Phi, psi, V = discretiser.transition(model.A, model.Q, model.drift, dt)
    columns, drive, root = model.discretiser.roots(dt)
    np.testing.assert_allclose(columns.swapaxes(1, 2), Phi, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(drive, psi, rtol=1e-13, atol=1e-15)
    assert (np.tril(root, -1) == 0).all()
    assert (np.diagonal(root, axis1=1, axis2=2) >= 0).all()
    size = np.sqrt(np.einsum("nii,njj->nij", V, V))
    assert (np.abs(root.swapaxes(1, 2) @ root - V) <= 1e-12 * size).all()


def test_one_interval_of_many_out_of_range():
    """V overflows long before Phi does: e^{2 tau} and e^{tau}, tau = 400."""
    model = LinearSDE([[1.0]], Q=[[1.0]], R=[[1.0]], prior="diffuse")
    dt = np.random.default_rng(0).exponential(0.01, 3000)
    dt[1500] = 400.0
    for discretised in (model.discretiser.roots, model.transition):
        with pytest.raises(ValueError, match="dt = 400 exceeds the floating-point range"):
            discretised(dt)


def test_few_distinct_intervals_among_many_share_their_transition():
    model = MODELS["general"]
    dt = np.random.default_rng(0).integers(1, 50, 5000) / 10
    many = discretiser.transition(model.A, model.Q, model.drift, dt)
    few = discretiser.transition(model.A, model.Q, model.drift, np.arange(1, 50) / 10)
    for x, y in zip(many, few):
        np.testing.assert_array_equal(x, y[np.rint(10 * dt).astype(int) - 1])


def test_defective_and_stiff_in_a_mixed_basis():
    """Neither the modal form nor plain doubling (8e-10 here) is enough: extended precision is."""
    rng = np.random.default_rng(3)
    S = np.linalg.qr(rng.standard_normal((6, 6)))[0] @ np.diag(np.linspace(0.5, 2, 6))
    A = S @ block_diag(1e5 * JORDAN, JORDAN) @ np.linalg.inv(S)
    worst, lowest = errors(A, np.eye(6), np.ones(6), [1e-3, 0.1, 1.0, 7.0])
    assert worst < 1e-10
    assert lowest > -1e-14


def test_long_gap_where_the_plain_block_exponential_overflows():
    """OU plus oscillator, one gap of 80: e^{-A tau} would hold e^{+8e5}."""
    A = block_diag([[-1e4]], [[0.0, 1.0], [-1.0, -0.02]])
    Q = np.diag([2e4, 0.0, 0.3])
    worst, lowest = errors(A, Q, np.zeros(3), [80.0])
    assert worst < 1e-12
    assert lowest > 0


def test_short_step_with_singular_noise_keeps_every_entry():
    """White acceleration: V = q [[tau^3/3, tau^2/2], [tau^2/2, tau]], entry by entry."""
    tau = np.array([1e-8, 1e-4, 1.0, 1e3])
    V = discretiser.transition(np.eye(2, k=1), np.diag([0.0, 2.0]), np.zeros(2), tau)[2]
    exact = 2.0 * np.array([[tau**3 / 3, tau**2 / 2], [tau**2 / 2, tau]]).transpose(2, 0, 1)
    np.testing.assert_allclose(V, exact, rtol=1e-13)


# ------------------------------------------------------------------------------------ the laws


def test_semigroup_laws(model):
    rng = np.random.default_rng(1)
    s, t = 10 ** rng.uniform(-3, 1.3, (2, 40))
    A, Q, u = model.A, model.Q, model.drift + 0.3
    (Ps, ms, Vs), (Pt, mt, Vt), (P, m, V) = (
        discretiser.transition(A, Q, u, x) for x in (s, t, s + t)
    )
    laws = [
        (P, Pt @ Ps),
        (V, Pt @ Vs @ Pt.swapaxes(-1, -2) + Vt),
        (m, (Pt @ ms[..., None])[..., 0] + mt),
    ]
    for whole, joined in laws:
        axes = tuple(range(1, whole.ndim))
        size = np.sqrt((whole**2).sum(axes))
        error = np.sqrt(((whole - joined) ** 2).sum(axes))
        assert (error <= 1e-10 * size).all()


def test_zero_interval_is_exactly_nothing(model):
    Phi, psi, V = discretiser.transition(model.A, model.Q, model.drift, np.array([0.0, 1.0]))
    assert (Phi[0] == np.eye(model.dim)).all()
    assert (psi[0] == 0).all()
    assert (V[0] == 0).all()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 4)])
def test_any_shape_of_intervals(shape):
    dt = np.random.default_rng(0).exponential(size=shape)
    model = MODELS["general"]
    Phi, psi, V = discretiser.transition(model.A, model.Q, model.drift, dt)
    assert (Phi.shape, psi.shape, V.shape) == ((*shape, 4, 4), (*shape, 4), (*shape, 4, 4))
    for k in np.ndindex(shape):
        one = discretiser.transition(model.A, model.Q, model.drift, dt[k])
        for whole, part in zip((Phi, psi, V), one):
            np.testing.assert_allclose(whole[k], part, rtol=1e-12, atol=1e-14)


def test_unstable_overflow_names_the_gap():
    with pytest.raises(ValueError, match=r"dt = 5000 exceeds .* eigenvalue 0\.4\)"):
        discretiser.transition(
            np.diag([0.4, -1.0]), np.eye(2), np.zeros(2), np.array([1.0, 5000.0])
        )


def test_a_hundred_thousand_intervals_need_no_loop():
    """A Python loop with one small exponential each takes longer than ten seconds."""
    model = MODELS["general"]
    dt = np.random.default_rng(0).exponential(1.0, 100_000)
    start = time.perf_counter()
    model.transition(dt)
    assert time.perf_counter() - start < 5.0


# ------------------------------------------------------------------------------- the small parts


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if discretiser.is_stable(m.A)])
def test_stationary_covariance_solves_lyapunov(name):
    model = MODELS[name]
    P = discretiser.stationary_covariance(model.A, model.Q)
    d = model.dim
    with mpmath.workdps(30):
        eye = np.eye(d)
        left = mpmath.matrix((np.kron(model.A, eye) + np.kron(eye, model.A)).tolist())
        exact = mpmath.lu_solve(left, mpmath.matrix((-model.Q).ravel().tolist()))
    exact = np.array(exact.tolist(), dtype=float).reshape(d, d)
    np.testing.assert_allclose(P, exact, atol=1e-13 * np.abs(exact).max())
    assert np.linalg.eigvalsh(P)[0] > 0


@pytest.mark.parametrize(
    ("A", "stable"),
    [
        ([[-1e-9]], True),
        ([[0.0]], False),
        ([[0.0, 1.0], [0.0, 0.0]], False),
        ([[0.0, -3.0], [3.0, 0.0]], False),
        ([[-1e6, 5.0], [0.0, -1e-3]], True),
        ([[0.2, 0.0], [0.0, -5.0]], False),
    ],
)
def test_is_stable(A, stable):
    assert discretiser.is_stable(np.array(A)) is stable


def test_undamped_rotation_in_a_mixed_basis_is_not_stable():
    """Rounding puts its eigenvalues at about -1e-16: that is no decay."""
    for seed in range(50):
        S = np.random.default_rng(seed).standard_normal((2, 2))
        assert not discretiser.is_stable(S @ ROTATION @ np.linalg.inv(S))


@pytest.mark.parametrize("seed", range(8))
def test_a_level_in_another_basis_has_no_stationary_law(seed):
    """Steps of a level beside a decay, turned: the eigenvalue 1 is 2e-14 less at times."""
    S = np.eye(3) + 0.4 * np.random.default_rng(seed).standard_normal((3, 3))
    A = S @ np.diag([0.0, -40.0, -1.0]) @ np.linalg.inv(S)
    F = discretiser.transition(A, np.zeros((3, 3)), np.zeros(3), 1.0)[0]
    assert not discretiser.is_stable_in_steps(F)
    assert not discretiser.is_stable_in_steps((1 - 1e-14) * F)
    assert discretiser.is_stable_in_steps((1 - 1e-11) * F)


def test_modes_rebuild_the_model():
    model = MODELS["general"]
    lam, S, S_inv, Qs, cond = modes(model.A, model.Q)
    np.testing.assert_allclose((S * lam) @ S_inv, model.A, atol=1e-13)
    np.testing.assert_allclose(S @ Qs @ S.conj().T, model.Q, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(S, axis=0), 1.0, rtol=1e-14)
    assert cond == pytest.approx(np.linalg.cond(S))


def test_modes_find_slow_eigenvalues_beside_fast_ones():
    """Plain QR iteration leaves an absolute error of eps times the fastest rate: 1e-10 here."""
    rng = np.random.default_rng(5)
    S = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    A = S @ np.diag([-1.0, -2.0, -1e5, -1e6]) @ S.T
    with mpmath.workdps(40):
        exact = mpmath.eig(mpmath.matrix(A.tolist()), left=False, right=False)
    exact = np.sort(np.array([float(x.real) for x in exact]))
    found = np.sort(modes(A, np.eye(4)).lam.real)
    np.testing.assert_allclose(found, exact, rtol=1e-14)


def test_modes_of_a_defective_matrix_say_so():
    assert modes(np.eye(2, k=1), np.eye(2)).cond == np.inf


def test_modes_of_equal_eigenvalues():
    model = LinearSDE.isotropic(0.2, 1.0, process_var=0.5, obs_var=1.0, dim=6)
    lam, S, S_inv, _, cond = modes(model.A, model.Q)
    assert cond == pytest.approx(1.0)
    np.testing.assert_allclose((S * lam) @ S_inv, model.A, atol=1e-15)


@pytest.mark.parametrize("tau", [30.0, 400.0])
@pytest.mark.parametrize("rounding", [0.0, 4e-17, -4e-17])
@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_a_chain_of_integrators_up_to_rounding_keeps_every_variance(tau, rounding, unit):
    """Balancing puts its components 1e8 apart: the smaller one's noise must not drown."""
    A = np.array([[-0.7, 0.0, 0.0], [0.0, 6e-17, rounding], [0.0, 0.14, -7e-17]])
    root = np.array([[1.0, 0.0, 0.0], [0.0, unit, 0.0], [0.0, 1e-6 * unit, 1e-3 * unit]])
    Q = root @ root.T
    wanted = mp_transition(A, Q, np.zeros(3), tau)[2].astype(float)
    found = discretiser.transition(A, Q, np.zeros(3), np.array(tau))[2]
    sd = np.sqrt(np.diag(wanted))
    np.testing.assert_allclose(found / np.outer(sd, sd), wanted / np.outer(sd, sd), atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 6])
def test_lyapunov_equations_in_any_units(d):
    """A^T Y + Y A + G = 0 and P = F P F^T + Q, whatever the sign of G and the units, in silence."""
    rng = np.random.default_rng(d)
    A = rng.normal(size=(d, d)) - (1 + 1.5 * d**0.5) * np.eye(d)
    G = rng.normal(size=(d, d))
    G, F = G + G.T, linalg.expm(A)
    Y, P = linalg.solve_continuous_lyapunov(A.T, -G), linalg.solve_discrete_lyapunov(F, G)
    for S in (np.eye(d), np.diag(10.0 ** rng.integers(-12, 13, d))):
        back = np.linalg.inv(S)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = S @ discretiser.stationary_adjoint(S @ A @ back, back @ G @ back) @ S
            steps = discretiser.stationary_steps_covariance(S @ F @ back, S @ G @ S)
        np.testing.assert_allclose(found, Y, atol=1e-13 * np.abs(Y).max())
        np.testing.assert_allclose(back @ steps @ back, P, atol=1e-13 * np.abs(P).max())


def test_slow_steps_keep_their_digits():
    """P = Q / (1 - f^2), 1 - f = 1e-10."""
    f = 1 - 1e-10
    P = discretiser.stationary_steps_covariance(np.array([[f]]), np.eye(1))
    assert P[0, 0] == pytest.approx(1 / ((1 - f) * (1 + f)), rel=1e-12)


@pytest.mark.parametrize("left", [6e-16, 1e-30, 0.0])
def test_rounding_that_drives_a_chain_back_is_no_numpy_warning(left):
    """Scales that balance it are beyond the range of integers."""
    A = np.array([[left, 0.0, -0.03], [0.02, -left, -0.02], [0.0, 0.0, -0.017]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Phi, _, V = discretiser.transition(A, np.eye(3), np.zeros(3), np.array([2.0]))
    clean = np.where(np.abs(A) < 1e-12, 0.0, A)
    want, _, noise = discretiser.transition(clean, np.eye(3), np.zeros(3), np.array([2.0]))
    np.testing.assert_allclose(Phi, want, atol=1e-14)
    np.testing.assert_allclose(V, noise, atol=1e-13)
