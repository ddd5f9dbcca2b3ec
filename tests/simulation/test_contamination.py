"""What the simulator can do wrong on purpose: each against its closed form, with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import (
    ColouredNoise,
    DiscreteModel,
    Gaps,
    Jumps,
    LevelShift,
    LinearSDE,
    Outliers,
    Prior,
    brownian,
    ornstein_uhlenbeck,
    sampling_times,
    simulate,
    spiral,
)

T = np.arange(200.0) / 4
OU = ornstein_uhlenbeck(0.5, process_var=0.2, obs_var=0.3)
N = 400


def plain(**options):
    return simulate(OU, T, N, rng=3, **options)


CLEAN = plain()


def test_patches_strike_successive_observations_at_the_wanted_rate():
    data = plain(outliers=Outliers(0.2, patch=5))
    struck = data.outliers
    share = struck[:, 4:].mean()
    assert share == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 * 5 / struck.size))
    begins = struck[:, 1:-5] & ~struck[:, :-6]
    for ahead in range(1, 5):
        assert struck[:, 1 + ahead : struck.shape[1] - 5 + ahead][begins].all()
    np.testing.assert_array_equal(data.x, CLEAN.x)
    np.testing.assert_array_equal(data.z[~struck], CLEAN.z[~struck])


@pytest.mark.parametrize(("side", "sign"), [("above", 1), ("below", -1)])
def test_one_sided_outliers_have_one_sign(side, sign):
    data = plain(outliers=Outliers(0.3, scale=4.0, side=side))
    added = (data.z - CLEAN.z)[data.outliers]
    assert (sign * added > 0).all()
    both = plain(outliers=Outliers(0.3, scale=4.0))
    np.testing.assert_allclose(np.abs(added), np.abs((both.z - CLEAN.z)[both.outliers]))


def test_innovation_outliers_stay_in_the_state():
    data = plain(outliers=Outliers(0.05, scale=6.0, strikes="innovation"))
    moved = data.x - CLEAN.x
    decay = np.exp(-0.5 * 0.25)
    increments = moved[:, 1:] - decay * moved[:, :-1]
    struck = data.outliers[:, 1:]
    np.testing.assert_allclose(increments[~struck], 0.0, atol=1e-12)
    step = 0.2 * (1 - decay**2)  # variance of a step: q / (2 rate) (1 - e^{-2 rate h})
    spread = increments[struck].std()
    assert spread == pytest.approx(6.0 * np.sqrt(step), rel=5 / np.sqrt(2 * struck.sum()))
    np.testing.assert_allclose(data.z - CLEAN.z, moved, atol=1e-12)


def test_jumps_add_the_variance_of_a_compound_poisson_process():
    rate, size = 0.4, 3.0
    jumps = Jumps(rate, [[size]])
    start = simulate(OU, T, 4000, rng=3, x0=[0.0])
    data = simulate(OU, T, 4000, rng=3, x0=[0.0], jumps=jumps)
    added = (data.x - start.x)[:, :, 0]
    variance = rate * size * (1 - np.exp(-T)) / 1.0  # rate E J^2 (1 - e^{-2 mu t}) / (2 mu)
    np.testing.assert_allclose(added.var(0)[20:], variance[20:], rtol=0.15)
    assert np.abs(added.mean(0)).max() < 5 * np.sqrt(variance.max() / 4000)
    first = (added[:, 1] != 0).mean()
    assert first == pytest.approx(1 - np.exp(-rate * 0.25), abs=0.02)


def test_level_shifts_are_added_from_their_time_on():
    data = plain(shifts=[LevelShift(10.0, 5.0), LevelShift(20.0, [-2.0])])
    wanted = np.where(T >= 10, 5.0, 0.0) + np.where(T >= 20, -2.0, 0.0)
    np.testing.assert_allclose(data.z - CLEAN.z, np.broadcast_to(wanted[:, None], data.z.shape))
    np.testing.assert_array_equal(data.x, CLEAN.x)


def test_gaps_come_in_blocks():
    data = plain(missing=Gaps(0.02, 10.0))
    lost = np.isnan(data.z[..., 0])
    share = 0.02 / (0.02 + 0.1)
    assert lost.mean() == pytest.approx(share, abs=5 * np.sqrt(share * 20 / lost.size))
    ends = lost[:, :-1] & ~lost[:, 1:]
    assert ends.sum() / lost[:, :-1].sum() == pytest.approx(0.1, rel=0.1)
    begins = ~lost[:, :-1] & lost[:, 1:]
    assert begins.sum() / (~lost[:, :-1]).sum() == pytest.approx(0.02, rel=0.1)
    np.testing.assert_array_equal(data.z[~lost], CLEAN.z[~lost])


def test_coloured_noise_has_its_autocovariance():
    data = plain(coloured=ColouredNoise(2.0, [[0.7]]))
    e = (data.z - CLEAN.z)[..., 0]
    for lag in (0, 1, 4, 12):
        found = (e[:, lag:] * e[:, : len(T) - lag]).mean()
        assert found == pytest.approx(0.7 * np.exp(-lag * 0.25 / 2.0), abs=0.06)


def test_noise_of_each_observation():
    covs = np.linspace(0.1, 5.0, len(T))[:, None, None]
    data = simulate(OU, T, 4000, rng=3, obs_cov=covs)
    noise = (data.z - data.x)[..., 0]
    np.testing.assert_allclose(noise.var(0), covs[:, 0, 0], rtol=5 * np.sqrt(2 / 4000))
    base = simulate(OU, T, 4000, rng=3)
    wanted = (base.z - base.x)[..., 0] * np.sqrt(covs[:, 0, 0] / 0.3)
    np.testing.assert_allclose(noise, wanted, atol=1e-12)
    discrete = DiscreteModel([[0.9]], Q=[[0.2]], H=[[1.0]], R=[[9.0]], prior=Prior([0.0], [[1.0]]))
    steps = simulate(discrete, T, 4000, rng=3, obs_cov=covs)
    np.testing.assert_allclose((steps.z - steps.x)[..., 0], wanted, atol=1e-12)


def test_a_jittering_clock_shows_other_states():
    """Brownian motion seen early or late by e: z - x has the variance q E|e|."""
    model = brownian(2.0, 0.0)
    t = np.arange(4000.0)
    data = simulate(model, t, 5, rng=1, x0=[0.0], clock_jitter=0.1)
    np.testing.assert_array_equal(data.t, t)
    error = (data.z - data.x)[:, 1:, 0]
    assert error.var() == pytest.approx(2.0 * 0.1 * np.sqrt(2 / np.pi), rel=0.05)


def test_fine_paths_pass_through_the_states():
    fine = np.arange(0.0, 5.01, 0.05)
    t = np.array([0.0, 1.0, 2.5, 5.0])
    data = simulate(spiral(), t, 3, rng=0, fine_times=fine)
    assert data.fine_x.shape == (3, len(fine), 2)
    at = np.searchsorted(fine, t - 1e-9)
    np.testing.assert_array_equal(data.fine_x[:, at], data.x)
    walk = simulate(brownian(0.3), t, 20, rng=0, x0=[0.0], fine_times=fine)
    assert np.diff(walk.fine_x, axis=1).var() == pytest.approx(0.3 * 0.05, rel=0.1)  # q h


@pytest.mark.parametrize(
    ("law", "sd"), [("poisson", 2.0), ("gamma", 0.6), ("jitter", None), ("regular", 0.0)]
)
def test_sampling_times(law, sd):
    spread = 0.3
    t = sampling_times(20_000, 2.0, law=law, spread=spread, t0=5.0, rng=0)
    gaps = np.diff(t)
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(2.0, rel=0.03)
    wanted = 2.0 * spread * np.sqrt(2 / 12) if sd is None else sd
    assert gaps.std() == pytest.approx(wanted, rel=0.05, abs=1e-9)
    assert abs(t[0] - 5.0) <= 2.0 * spread / 2


def test_what_is_asked_for_leaves_the_rest_as_it_was():
    """One seed, one truth: options draw from streams of their own."""
    more = plain(
        outliers=Outliers(0.1),
        missing=0.1,
        coloured=ColouredNoise(1.0, [[1.0]]),
        shifts=[LevelShift(0.0, 1.0)],
    )
    np.testing.assert_array_equal(more.x, CLEAN.x)


VARYING = LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Outliers(0.1, side="left"), ValueError, "outliers side must be one of"),
        (lambda: Outliers(0.1, patch=0), ValueError, "outliers patch must be >= 1"),
        (lambda: Outliers(0.1, law="mean_doubling", side="above"), ValueError, "no meaning"),
        (lambda: Jumps(-1.0, [[1.0]]), ValueError, "jumps rate must be >= 0"),
        (lambda: plain(jumps=Jumps(1.0, np.eye(2))), ValueError, "jumps cov must have shape"),
        (lambda: plain(jumps=3.0), TypeError, "jumps must be a Jumps or None"),
        (lambda: plain(shifts=[3.0]), TypeError, "shifts must be LevelShift"),
        (lambda: plain(shifts=[LevelShift(0.0, [1.0, 2.0])]), ValueError, "level shift size"),
        (lambda: Gaps(1.5, 3.0), ValueError, "gaps rate must be a probability"),
        (lambda: Gaps(0.5, 0.3), ValueError, "gaps length must be >= 1"),
        (lambda: ColouredNoise(0.0, [[1.0]]), ValueError, "coloured noise time must be > 0"),
        (lambda: plain(coloured=ColouredNoise(1.0, np.eye(2))), ValueError, "coloured noise cov"),
        (lambda: plain(clock_jitter=-1.0), ValueError, "clock_jitter must be >= 0"),
        (lambda: plain(fine_times=[-1.0, 2.0]), ValueError, "fine_times must not begin before"),
        (lambda: plain(obs_cov=np.eye(2)), ValueError, "obs_cov must have shape"),
        (lambda: sampling_times(5, 1.0, law="random"), ValueError, "law must be one of"),
        (lambda: sampling_times(5, 1.0, law="jitter", spread=2.0), ValueError, "at most 1"),
        (
            lambda: simulate(VARYING.discretize(T), rng=0, clock_jitter=1.0),
            ValueError,
            "clock_jitter and fine_times need a LinearSDE",
        ),
        (
            lambda: plain(outliers=Outliers(0.1), missing=2.0),
            ValueError,
            "missing must be probabilities",
        ),
    ],
)
def test_bad_options_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
