"""AFA where scales lie far apart, against its sums in 400-bit arithmetic."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.linalg import block_diag

from afafilter import LinearSDE, adaptive_filter, adaptive_smoother
from tests.exact_adaptive import pulled
from tests.exact_oracle import ExactGaussian
from tests.fuzz.truth import TOLERANCE, law_apart

BASIS = np.array([[1.0, 0.4, -0.3], [0.2, 1.0, 0.5], [-0.4, 0.1, 1.0]])


def in_another_basis(A, Q, C):
    S = BASIS[: len(A), : len(A)]
    return S @ A @ np.linalg.inv(S), S @ Q @ S.T, C @ np.linalg.inv(S)


def velocity_and_decay():
    """In mixed components, so that what is 0 in the invariant subspaces is rounding."""
    A, Q = block_diag([[0.0, 1.0], [0.0, 0.0]], -0.7), np.diag([0.0, 1.0, 0.3])
    A, Q, C = in_another_basis(A, Q, np.array([[1.0, 0.0, 1.0], [0.5, -1.0, 0.0]]))
    return LinearSDE(A, Q=0.5 * (Q + Q.T), R=1e-4 * np.eye(2), C=C), [0.0, 0.3, 32.0, 42.2, 42.3]


def silent_spiral():
    """Known ever better from its past; what is seen of it is e^-75 smaller later on."""
    A = np.array([[-0.1, -1.1], [1.1, -0.1]])
    model = LinearSDE(A, Q=np.zeros((2, 2)), R=[[1e-4]], C=[[1.0, 1.0]])
    return model, [0.0, 746.75, 750.2, 780.5]


def silent_decay_beside_matern():
    """Seen together only: what is silent is known as well as the noise of the others lets it."""
    A = block_diag([[0.0, 1.0], [-1.69, -2.6]], -2.0)
    C = [[0.5, 1.0, -1.0], [1.0, 1.0, 0.0]]
    model = LinearSDE(A, Q=np.diag([0.0, 7e3, 0.0]), R=np.diag([0.01, 0.01]), C=C)
    return model, [-3.0, -2.7, 44.0, 545.0]


def sensors_that_err_together():
    """Errors of sd 1 mm and 1 m with correlation -0.999, a state of 4 km."""
    R = np.array([[1e-6, -0.999e-3], [-0.999e-3, 1.0]])
    model = LinearSDE(
        [[0.0, 1.0], [-1.69, -2.6]], Q=np.diag([0.0, 7.0]), R=R, C=[[0.5, 0.5], [0.5, 1.0]],
        offset=[1.9e6, 1.9e6],
    )  # fmt: skip
    return model, [-3.0, -1.0, -0.9]


def precise_sensors_of_a_loud_state():
    """sd 1e-4 where the state moves by 1e3 between observations."""
    model = LinearSDE(
        [[-0.003, -0.02], [-0.001, -0.008]], Q=np.diag([900.0, 700.0]),
        R=np.diag([1e-8, 1.0, 1e-8]), C=[[1.0, 1.0], [0.0, -1.0], [0.5, 1.0]],
    )  # fmt: skip
    return model, [0.0, 0.25, 400.25, 800.25, 801.25]


def two_defective_blocks():
    A = block_diag([[0.0, 1.0], [-1.69, -2.6]], np.diag([1.0, 1.0], 1))
    A[0, -1] = 0.5
    C = [[1, 0, 0, -1, 1], [0.5, 0, -1, 1, 0], [0.5, 1, -1, 0.5, 0.5]]
    model = LinearSDE(A, Q=np.diag([0, 7e3, 0, 0, 1e3]), R=np.diag([1.0, 1e-4, 1e-6]), C=C)
    return model, [-3.0, -2.0, -1.9999, -1.9999, 28.0]


def a_fast_block_drives_another_strongly():
    """In units in which observations show both alike, invariant subspaces are 1e-9 apart."""
    A = block_diag([[0.0, -np.pi], [np.pi, 0.0]], [[0.0, 1.0], [-1.69, -2.6]])
    A[0, 3] = -1.0
    unit = np.array([1.0, 1e8, 1e4, 1e9])
    A, Q = A * unit[:, None] / unit, np.diag([1.0, 1.0, 0.0, 7.0]) * 1e-4 * unit**2
    model = LinearSDE(A, Q=Q, R=[[0.01]], C=np.array([[0.5, -1.0, 0.5, 0.0]]))
    return model, [0.0, 2.4, 99.6, 101.4, 103.5, 110.9, 111.4]


def a_position_that_only_its_velocity_shows():
    """Beside a turning plane: the first coordinate of a decaying pair is in no row."""
    A = block_diag([[0.0, -np.pi], [np.pi, 0.0]], [[0.0, 1.0], [-4.0, -0.3]])
    C = [[-1.0, 1.0, 0.0, -1.0], [1.0, 0.0, 0.0, -1.0], [0.0, 0.5, 0.0, -1.0]]
    R = np.diag([1e-2, 1e-4, 1.0])
    return LinearSDE(A, Q=np.diag([100.0, 100.0, 0.0, 500.0]), R=R, C=C), [0.0, 1.0, 401.0, 402.0]


def two_positions_that_only_velocities_show():
    A = block_diag([[0.0, 1.0], [-4.0, -0.3]], [[0.0, 1.0], [-1.0, -0.2]], 0.0)
    C = [[0.0, 1.0, 0.0, -1.0, 1.0], [0.0, 1.0, 0.0, 1.0, -1.0], [0.0, 0.5, 0.0, 1.0, 1.0]]
    R = np.diag([1e-2, 1e-4, 1.0])
    return LinearSDE(A, Q=np.diag([0.0, 5.0, 0.0, 1.0, 1.0]), R=R, C=C), [0.0, 1.0, 150.0, 150.5]


CASES = [
    a_position_that_only_its_velocity_shows,
    two_positions_that_only_velocities_show,
    a_fast_block_drives_another_strongly,
    velocity_and_decay,
    silent_spiral,
    silent_decay_beside_matern,
    sensors_that_err_together,
    precise_sensors_of_a_loud_state,
    two_defective_blocks,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("correlation", ["independent", "exact"])
@pytest.mark.parametrize("unit", [1.0, 2.0**30])
def test_scales_far_apart(case, correlation, unit):
    model, t = case()
    t, p = np.array(t), model.obs_dim
    z = model.offset + np.random.default_rng(3).standard_normal((len(t), p))
    model = LinearSDE(
        model.A, Q=model.Q * unit**2, R=model.R, C=model.C / unit, offset=model.offset,
        prior="diffuse",
    )  # fmt: skip
    exact = ExactGaussian(model, t, z, bits=1600)
    for estimator, two in ((adaptive_filter, False), (adaptive_smoother, True)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = estimator(model, t, z, correlation=correlation, method="dense")
        for i in (0, len(t) - 1):
            stop = len(t) if two else i + 1
            if correlation == "exact":
                wanted = exact.law(t[i], stop)
            else:
                wanted = pulled(exact, t[i], range(stop))
            assert law_apart((found.mean[i], found.cov[i]), wanted, exact.stretch()) <= TOLERANCE


@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
def test_a_variance_beyond_the_floating_point_range_is_not_determined(estimator):
    """The last query's observations are 560 decay times old: of the fast mode e^-2800 is left."""
    model = LinearSDE(np.diag([-1.0, -5.0]), Q=np.eye(2), R=[[1.0]], C=[[1.0, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimator(
            model, [0.0, 0.2, 560.0], [[1.0], [2.0], [np.nan]], method="dense", query_times=[560.0]
        )
    assert np.isnan(found.mean[0, 0])
    assert np.isinf(found.cov[0, 0, 0])
    np.testing.assert_allclose(found.mean[0, 1], 0.0, atol=1e-12)


@pytest.mark.parametrize("shows", [[0, 1, 1, 0], [0, 1, -1, -1], [1, 0, -1, 1]])
@pytest.mark.parametrize("wait", [286.0, 345.0, 513.0])
def test_what_is_left_of_a_spiral_beside_open_directions(shows, wait):
    """Two fast modes are seen once, by their sum; of the spiral e^-30 to e^-50 is seen again."""
    model = LinearSDE(
        block_diag([[-0.1, -1.0], [1.0, -0.1]], -1.0, -5.0), Q=np.diag([0.3, 0.3, 1.0, 1.0]),
        R=[[1e-2]], C=[shows], prior="diffuse",
    )  # fmt: skip
    t = np.array([0.0, wait, wait + 1.4, wait + 2.3, wait + 4.1])
    z = np.random.default_rng(4).standard_normal((5, 1))
    exact = ExactGaussian(model, t, z, bits=1600).forgetful()
    found = adaptive_smoother(model, t, z, correlation="exact")
    for i in (0, 4):
        apart = law_apart((found.mean[i], found.cov[i]), exact.law(t[i]), exact.stretch())
        assert apart <= TOLERANCE


@pytest.mark.parametrize("rates", [(0.0, 0.1), (0.2, 0.5), (0.0, 0.3, 1.0)])
@pytest.mark.parametrize("gap", [1e-2, 1e-4])
@pytest.mark.parametrize("correlation", ["independent", "exact"])
def test_a_sum_is_known_where_its_parts_are_not(rates, gap, correlation):
    """As many observations as states, without process noise: what is observed has the noise's sd.

    The modes are told apart so barely that each has an sd of up to 1e9.
    """
    d = len(rates)
    S = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 2.0], [0.5, 0.3, -1.0]])[:d, :d]
    model = LinearSDE(
        S @ -np.diag(rates) @ np.linalg.inv(S), Q=np.zeros((d, d)), R=[[1.0]], C=np.eye(1, d),
        prior="diffuse",
    )  # fmt: skip
    t, z = np.append(gap * np.arange(d), 100.0), np.arange(1.0, d + 2)[:, None]
    found = adaptive_filter(model, t, z, correlation=correlation, method="dense")
    assert found.mean[d - 1, 0] == pytest.approx(d, abs=1e-9)
    assert found.cov[d - 1, 0, 0] == pytest.approx(1.0, abs=1e-6)
