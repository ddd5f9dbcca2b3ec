"""Long records: closed forms against the laws of short ones, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import (
    LinearSDE,
    LongRecordWarning,
    StudentT,
    adaptive_filter,
    adaptive_smoother,
    constant_velocity,
    simulate,
    spiral,
    theory,
)

DT = 0.1


def flat_spiral(decay=0.1, process_var=0.1, obs_var=0.5):
    return LinearSDE.isotropic(
        decay, 1.0, process_var=process_var, obs_var=obs_var, prior="diffuse"
    )


@pytest.mark.parametrize("decay", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_error_of_a_length_is_that_of_the_weights(decay, beta):
    N, sigma2, eta2, gamma2 = 150, 0.1, 0.5, 0.2
    t = DT * np.arange(N)
    lag = t[:, None] - t[None, :]
    V = sigma2 * (lag if decay == 0 else -np.expm1(-2 * decay * lag) / (2 * decay))
    P = np.tril((V + eta2 * np.exp(-2 * decay * lag) + gamma2) ** -beta)
    W = P / P.sum(axis=1, keepdims=True)
    wanted = theory.isotropic_mse(W, t, decay=decay, process_var=sigma2, obs_var=eta2)
    lengths = np.array([1, 2, 30, 150])
    found = theory.length_error(flat_spiral(decay), DT, lengths, beta, anchor_var=gamma2)
    np.testing.assert_allclose(found**2, wanted[lengths - 1], rtol=1e-9)


def test_error_of_a_length_is_that_of_the_estimator():
    model, t = flat_spiral(), DT * np.arange(60)
    law = theory.error_covariance(model, t, estimator=adaptive_filter)
    found = theory.length_error(model, DT, [1, 20, 60])
    np.testing.assert_allclose(
        found**2, np.trace(law.cov, axis1=1, axis2=2)[[0, 19, 59]] / 2, rtol=1e-8
    )


@pytest.mark.parametrize("length", [64, 2000, 30_000])
def test_error_of_long_records_is_that_of_simulation(length):
    model, n_paths = flat_spiral(), 200
    t = DT * np.arange(length)
    rng = np.random.default_rng(length)
    errors = []
    for _ in range(4):
        data = simulate(model, t, n_paths // 4, rng=rng, x0=np.array([1.0, 0.0]))
        found = adaptive_filter(model, t, data.z, query_times=t[-1:])
        errors.append(((found.mean[:, -1] - data.x[:, -1]) ** 2).mean(axis=1))
    square = np.concatenate(errors)
    wanted = theory.length_error(model, DT, [length])[0] ** 2
    assert abs(square.mean() - wanted) < 4 * square.std() / np.sqrt(n_paths)


def test_very_long_records_end_in_the_stationary_mean():
    model = flat_spiral()
    stationary = np.sqrt(0.1 / 0.2)
    found = theory.length_error(model, DT, [64, 10**4, 10**9])
    assert found[0] < 0.6 * stationary
    assert found[1] > 0.9 * stationary
    assert found[2] == pytest.approx(stationary, rel=1e-3)


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_at_the_critical_length_half_the_weight_knows_nothing(beta):
    model = flat_spiral(process_var=1.0)
    critical = theory.critical_length(model, DT, beta)
    memory = 1 / (0.1 * DT)
    lag = DT * np.arange(round(critical))
    V = -np.expm1(-0.2 * lag) / 0.2
    w = (V + 0.5 * np.exp(-0.2 * lag)) ** -beta
    old = w[int(memory) :].sum() / w.sum()
    # Just beyond the memory an observation still knows a little: its weight is above the floor.
    assert 0.5 <= old < 0.75
    lengths = np.unique(np.geomspace(1, 1e12, 300).astype(np.int64))
    error = theory.length_error(model, DT, lengths, beta)
    ends = np.sqrt(1.0 / 0.2)
    assert np.interp(100 * critical, lengths, error) > 0.9 * ends
    assert np.interp(critical, lengths, error) > 1.2 * error.min()


def test_inverse_temperature_lengthens_as_a_power_of_the_precisions():
    """N* ~ M (P_0 / P_inf)^beta."""
    model = flat_spiral(process_var=1.0)
    ratio = (1.0 / 0.2) / 0.5
    lengths = [theory.critical_length(model, DT, beta) for beta in (12.0, 13.0, 14.0)]
    assert lengths[1] / lengths[0] == pytest.approx(ratio, rel=0.12)
    assert lengths[2] / lengths[1] == pytest.approx(ratio, rel=0.12)


def test_without_decay():
    model = flat_spiral(decay=0.0)
    assert theory.critical_length(model, DT, 1.5) == np.inf
    memory = 0.5 / (0.1 * DT)
    for beta in (0.5, 1.0):
        critical = round(theory.critical_length(model, DT, beta))
        w = (0.1 * DT * np.arange(critical) + 0.5) ** -beta
        assert w[int(memory) :].sum() / w.sum() == pytest.approx(0.5, abs=0.02)
    # Summable weights: the error settles. Others: it goes on growing.
    settled = theory.length_error(model, DT, [10**5, 10**6], 4.0)
    assert settled[1] == pytest.approx(settled[0], rel=1e-3)
    growing = theory.length_error(model, DT, [10**5, 10**6], 1.0)
    assert growing[1] > 2 * growing[0]


def test_without_noise_of_old_observations_nothing_is_critical():
    assert theory.critical_length(flat_spiral(process_var=0.0), DT) == np.inf
    assert theory.critical_length(flat_spiral(decay=0.0, process_var=0.0), DT) == np.inf


def test_bad_input():
    with pytest.raises(ValueError, match="isotropic"):
        theory.critical_length(constant_velocity(process_var=1.0, obs_var=1.0), DT)
    with pytest.raises(ValueError, match="dt"):
        theory.critical_length(flat_spiral(), 0.0)
    with pytest.raises(ValueError, match="lengths"):
        theory.length_error(flat_spiral(), DT, [0])


@pytest.mark.parametrize("estimator", [adaptive_filter, adaptive_smoother])
@pytest.mark.parametrize("options", [{}, {"weight": StudentT(4.0)}, {"inverse_temperature": 2.0}])
def test_too_long_a_record_warns_and_names_the_remedy(estimator, options):
    model, n = flat_spiral(process_var=0.3), 3000
    t = DT * np.cumsum(np.random.default_rng(1).exponential(1.0, n))
    data = simulate(model, t, rng=2, x0=np.zeros(2))
    asked = {"query_times": t[-200:], **options}
    with pytest.warns(LongRecordWarning, match=r"3000 .*critical length \d+.*window=\d+") as caught:
        found = estimator(model, t, data.z, **asked)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    window = int(str(caught[0].message).split("window=")[1].split(".")[0])
    mended = estimator(model, t, data.z, **asked, window=window)
    rmse = [np.sqrt(((e.mean - data.x[..., -200:, :]) ** 2).mean()) for e in (found, mended)]
    assert rmse[0] > 1.5 * rmse[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("model", "n", "options"),
    [
        (spiral(), 100, {}),  # shorter than critical
        (spiral(process_var=0.0), 5000, {}),  # old observations know everything
        (flat_spiral(decay=0.0), 5000, {"inverse_temperature": 4.0}),  # summable weights
        (spiral(), 5000, {"window": 50}),
        (spiral(decay=2.0, process_var=0.1), 5000, {}),  # little to know: no worse than its best
        (constant_velocity(process_var=1.0, obs_var=1.0), 400, {}),
    ],
)
def test_no_false_alarm(model, n, options):
    t = DT * np.arange(n)
    adaptive_filter(model, t, np.zeros((n, model.obs_dim)), query_times=t[-1:], **options)


@pytest.mark.filterwarnings("error")
def test_missing_rows_do_not_make_a_record_long():
    t = DT * np.arange(5000)
    z = np.full((len(t), 2), np.nan)
    z[-80:] = 0.0
    adaptive_filter(flat_spiral(process_var=0.3), t, z, query_times=t[-1:])
    adaptive_filter(flat_spiral(), np.zeros(500), np.zeros((500, 2)))
