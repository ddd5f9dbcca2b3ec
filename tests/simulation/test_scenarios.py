"""Non-linear scenarios: strong order of the sub-steps, and laws that are known."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import LinearSDE, simulate
from afafilter.simulation.scenarios import (
    DriftSDE,
    coupled_van_der_pol,
    lorenz,
    simulate_drift,
    spiral_3d,
    strong_error,
)

SYSTEMS = {
    "spiral_3d": (spiral_3d(process_var=0.3), [2.0, 0.0, 0.0], 1.0),
    "lorenz": (lorenz(process_var=1.0), [1.0, 1.0, 25.0], 0.1),
    "van_der_pol": (coupled_van_der_pol(process_var=0.3), [1.0, -0.5, 0.0, 1.0], 1.0),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_strong_order_is_one_or_better(name):
    model, x0, span = SYSTEMS[name]
    h, error = strong_error(model, x0, span, 6, rng=0)
    slope = np.polyfit(np.log(h[2:]), np.log(error[2:]), 1)[0]
    assert slope > 0.9
    assert error[-1] < error[0] / 20


@pytest.mark.parametrize("name", SYSTEMS)
def test_without_noise_heun_has_order_two(name):
    model, x0, span = SYSTEMS[name]
    quiet = DriftSDE(model.drift, model.dim, 0.0, 0.0, model.substep)
    h, error = strong_error(quiet, x0, span, 6, n_paths=1)
    slope = np.polyfit(np.log(h[2:]), np.log(error[2:]), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.15)


def test_a_linear_drift_has_the_exact_law():
    A = np.array([[-0.5, -1.0], [1.0, -0.5]])
    rough = DriftSDE(lambda x: x @ A.T, 2, 0.4, 0.2, 0.01)
    t = np.array([0.0, 0.5, 2.0])
    n = 20_000
    found = simulate_drift(rough, t, n, x0=[3.0, 0.0], rng=1)
    exact = simulate(LinearSDE(A, Q=0.4 * np.eye(2), R=0.2 * np.eye(2)), t, n, x0=[3.0, 0.0], rng=2)
    for k in (1, 2):
        for a, b in ((found.x, exact.x), (found.z, exact.z)):
            sd = b[:, k].std(0)
            assert (np.abs(a[:, k].mean(0) - b[:, k].mean(0)) < 5 * sd * np.sqrt(2 / n)).all()
            np.testing.assert_allclose(a[:, k].var(0), b[:, k].var(0), rtol=0.06)


def test_lorenz_stays_on_its_attractor():
    data = simulate_drift(lorenz(), np.arange(0.0, 10.0, 0.1), 5, x0=[1.0, 1.0, 25.0], rng=0)
    assert np.abs(data.x).max() < 70
    assert (np.diff(np.sign(data.x[..., 0]), axis=1) != 0).any(axis=1).all()  # visits both wings
    assert (data.z - data.x).std() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lorenz(substep=0.0), "substep must be > 0"),
        (lambda: lorenz(process_var=-1.0), "process_var must be >= 0"),
        (lambda: simulate_drift(lorenz(), [0.0], x0=[1.0], rng=0), "x0 must have shape"),
        (lambda: simulate_drift(lorenz(), [0.0, 1e6], x0=[1.0] * 3, rng=0), "substep must be long"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
