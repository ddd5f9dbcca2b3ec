"""Starting values: frequencies from a periodogram that drifts do not mislead."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from afafilter import families, fit
from afafilter.learning.start_values import _generalised_periodogram, data_scales


def cycle_and_walk(seed: int, frequency: float, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 300, n))
    walk = np.cumsum(rng.standard_normal(n) * np.sqrt(np.diff(t, prepend=0.0)))
    z = 3 * np.sin(frequency * t) + 0.5 * walk + 0.5 * rng.standard_normal(n)
    return t, z


@pytest.mark.parametrize("frequency", [0.12, 0.33, 1.1])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_peak_is_the_cycle(seed: int, frequency: float) -> None:
    t, z = cycle_and_walk(seed, frequency)
    peaks = data_scales(t + 5e4, z[:, None] + 0.02 * t[:, None], 1).peaks
    assert peaks[0] == pytest.approx(frequency, abs=np.pi / 300)


def test_power_is_the_sum_of_squares_that_a_sine_explains() -> None:
    t, z = cycle_and_walk(3, 0.33, 60)
    y = z - np.polyval(np.polyfit(t, z, 1), t)
    omega, power = _generalised_periodogram(t, y, float(np.median(np.diff(t))))
    for k in range(0, len(omega), 7):
        line = np.column_stack([np.ones_like(t), t])
        full = np.column_stack([line, np.cos(omega[k] * t), np.sin(omega[k] * t)])
        rest = [y - X @ np.linalg.lstsq(X, y, rcond=None)[0] for X in (line, full)]
        wanted = rest[0] @ rest[0] - rest[1] @ rest[1]
        assert power[k] == pytest.approx(wanted, abs=0.03 * y @ y)


@pytest.mark.parametrize("seed", range(3))
def test_fit_of_a_cycle_reaches_the_optimum(seed: int) -> None:
    t, z = cycle_and_walk(seed, 0.33, 150)
    family = families.brownian() + families.cycle() + families.noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cycle is not damped: its decay is at the boundary
        found = fit(family, t, z)
        told = fit(family.at({"cycle.frequency": 0.33}), t, z)
    assert found.loglik == pytest.approx(told.loglik, abs=0.01)
    assert found.params["cycle.frequency"] == pytest.approx(0.33, abs=0.005)


@pytest.mark.parametrize(
    ("frequency", "amplitude", "unit", "n"),
    [(5.0, 3.0, 1.0, 120), (0.8, 1.2, 1.0, 120), (0.06, 3.0, 86400.0, 200)],
    ids=["faster than the mean interval", "weak beside the walk", "three turns in all, seconds"],
)
def test_fit_of_other_cycles_reaches_the_optimum(
    frequency: float, amplitude: float, unit: float, n: int
) -> None:
    t, walk = cycle_and_walk(0, 0.0, n)
    z = walk + amplitude * np.sin(frequency * t)
    family = families.brownian() + families.cycle() + families.noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(family, t * unit, z)
        told = fit(family.at({"cycle.frequency": frequency / unit}), t * unit, z)
    assert found.loglik > told.loglik - 0.01
    assert found.params["cycle.frequency"] * unit == pytest.approx(frequency, abs=0.01)


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_a_sharp_cycle_near_nyquist_through_gaps_and_outliers_is_not_its_alias(seed: int) -> None:
    """Within a run of unit steps w and 2 pi - w look alike; only the gaps tell them apart."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(np.where(rng.random(200) < 0.03, rng.uniform(20, 200, 200), 1.0))
    z = 2 * np.sin(3.03 * t + 1) + rng.standard_normal(200)
    z[rng.random(200) < 0.03] += 15
    family = families.constant() + families.cycle() + families.noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(family, t, z)
        told = fit(family.at(frequency=3.03, decay=1 / (t[-1] - t[0])), t, z)
    assert found.loglik > told.loglik - 0.01
    assert found.params["frequency"] == pytest.approx(3.03, abs=0.005)


def test_a_weak_slow_cycle_at_equal_steps_comes_first() -> None:
    """A peak is measured by what the noise has around it: white noise has no clearer one."""
    t, found = np.arange(200.0), 0
    for seed in range(12):
        z = 0.6 * np.sin(0.15 * t) + np.random.default_rng(seed).standard_normal(200)
        found += abs(data_scales(t, z[:, None], 1).peaks[0] - 0.15) < 0.02
    assert found >= 10


def test_times_near_a_grid_have_no_aliases() -> None:
    """Daily values with gaps: frequencies above half the grid's look like those below."""
    rng = np.random.default_rng(0)
    t = np.flatnonzero(rng.random(300) < 0.6).astype(float) + 0.05 * rng.uniform(-1, 1)
    z = np.sin(0.9 * t) + 0.3 * rng.standard_normal(len(t))
    peaks = data_scales(t, z[:, None], 1).peaks
    assert peaks.max() <= np.pi
    assert peaks[0] == pytest.approx(0.9, abs=0.02)


def test_a_lesser_peak_is_taken_where_it_is_likelier() -> None:
    """A strong narrow line that one component must not take from the other."""
    t, z = cycle_and_walk(1, 0.33, 150)
    z = z + 2.0 * np.sin(1.7 * t)
    family = families.brownian() + families.cycle() + families.cycle() + families.noise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(family, t, z)
    pair = sorted(value for name, value in found.params.items() if "frequency" in name)
    np.testing.assert_allclose(pair, [0.33, 1.7], atol=0.01)


@pytest.mark.parametrize("seed", [1, 7, 8])
def test_a_weak_cycle_is_found_beside_a_strong_one_and_its_aliases(seed: int) -> None:
    # Side peaks of the strong cycle are larger than the weak one's own: 20 to 50 nats were lost.
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 80, 70))
    z = 4 * np.sin(0.9 * t) + 0.8 * np.sin(0.31 * t + 1) + 0.3 * rng.standard_normal(70)
    family = families.cycle() + families.cycle() + families.noise()
    found = fit(family, t, z)
    names = [name for name in found.params if name.endswith("frequency")]
    told = fit(family.at(dict(zip(names, (0.9, 0.31), strict=True))), t, z)
    assert found.loglik > told.loglik - 0.3
    assert sorted(found.params[name] for name in names) == pytest.approx([0.31, 0.9], abs=0.02)
