"""The integral of an exponential, against 50-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from afafilter.linalg.integrals import exponential_integral

RATES = (0.0, 1e-320, -1e-300, 1e-17, -1e-8, -0.5, 3.0, -40.0, 1j, -0.3 + 2j, 1e-12 - 1e-12j)
TIMES = (0.0, 1e-200, 1e-9, 0.7, 12.0, 1e10)


@pytest.mark.parametrize("rate", RATES)
def test_against_mpmath(rate):
    for tau in TIMES:
        if (rate * tau).real > 700:
            continue
        with mpmath.workdps(50):
            r = mpmath.mpmathify(rate)
            exact = complex(mpmath.expm1(r * tau) / r) if rate else complex(tau)
        found = complex(exponential_integral(rate, tau))
        # The angle rate tau is rounded before it is used.
        slack = 4e-16 * (4 + abs((rate * tau).imag))
        assert abs(found - exact) <= slack * abs(exact) + 1e-320, (tau, found, exact)


def test_broadcasts_and_keeps_real_rates_real():
    rate, tau = np.array([0.0, -2.0, 0.5]), np.array([0.0, 1.0])
    out = exponential_integral(rate, tau[:, None])
    assert out.shape == (2, 3)
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out[0], 0.0)
    np.testing.assert_allclose(out[1], [1.0, (1 - np.exp(-2.0)) / 2, 2 * (np.exp(0.5) - 1)])


def test_overflow_is_infinite_and_decay_settles():
    with np.errstate(over="ignore"):
        assert exponential_integral(1.0, 1e4) == np.inf
    assert exponential_integral(-1.0, 1e300) == 1.0


@pytest.mark.parametrize("rate", [0.0, -1e-300, 3e-9, -0.7, 650.0, -1e5, 800.0])
def test_single_numbers_are_what_arrays_are(rate):
    """Python's own floats take a way of their own."""
    with mpmath.workdps(40):
        exact = mpmath.mpf(1) if rate == 0 else mpmath.expm1(mpmath.mpf(rate)) / mpmath.mpf(rate)
    wanted = float(exact) if exact < 1.7e308 else np.inf
    with np.errstate(over="ignore"):
        found = exponential_integral(rate, 1.0)
        assert found == pytest.approx(float(exponential_integral(np.array(rate), 1.0)), rel=1e-15)
    assert found == pytest.approx(wanted, rel=4e-16 * max(1.0, abs(rate)))
