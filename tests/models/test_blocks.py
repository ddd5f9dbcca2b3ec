"""Formulas of presets and families: stationary laws and derivatives by complex numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from afafilter.models import blocks

DAMPED = {
    "ornstein_uhlenbeck": (blocks.ornstein_uhlenbeck, (0.8, 0.5)),
    "cycle": (lambda mu, w, q: blocks.pairs(mu, [w, 2 * w], q), (0.3, 2.0, 0.7)),
    "isotropic": (partial(blocks.isotropic, dim=3), (0.2, 1.5, 0.4)),
    "damped_oscillator": (blocks.damped_oscillator, (0.2, 1.3, 0.6)),
    **{f"matern {nu}": (partial(blocks.matern, nu=nu), (1.4, 2.3)) for nu in blocks.NU},
}


@pytest.mark.parametrize("name", DAMPED)
def test_stationary_covariance_solves_the_lyapunov_equation(name):
    build, values = DAMPED[name]
    block = build(*values)
    left = block.A @ block.cov + block.cov @ block.A.T
    np.testing.assert_allclose(left, -block.Q, atol=1e-12 * np.abs(block.Q).max())
    assert block.flat.shape == (len(block.A), 0)


@pytest.mark.parametrize("name", DAMPED)
def test_complex_numbers_carry_derivatives(name):
    build, values = DAMPED[name]
    for k, value in enumerate(values):
        stepped, upper, lower = (list(values) for _ in range(3))
        stepped[k] = complex(value, 1e-30)
        upper[k], lower[k] = value * (1 + 1e-6), value * (1 - 1e-6)
        for part in ("A", "Q", "cov"):
            slope = np.imag(getattr(build(*stepped), part)) / 1e-30
            difference = getattr(build(*upper), part) - getattr(build(*lower), part)
            scale = np.abs(slope).max(initial=1e-3)
            np.testing.assert_allclose(slope, difference / (2e-6 * value), atol=1e-7 * scale)


@pytest.mark.parametrize("name", DAMPED)
@pytest.mark.parametrize("axes", [1, 2])
def test_arrays_of_parameters_make_blocks_side_by_side(name, axes):
    build, values = DAMPED[name]
    many = np.array(values) * np.array([[1.0], [1.7], [0.4]])
    found = blocks.axes([build(*many.T)] * axes)
    for k, each in enumerate(many.tolist()):
        one = blocks.axes([build(*each)] * axes)
        for part in ("A", "Q", "cov"):
            np.testing.assert_allclose(getattr(found, part)[k], getattr(one, part), rtol=1e-14)


def test_undamped_oscillator_starts_flat():
    block = blocks.damped_oscillator(0.0, 2.0, 0.3)
    np.testing.assert_array_equal(block.flat, np.eye(2))
    assert not block.cov.any()


def test_axes_are_independent_copies():
    one, other = blocks.trend(0.1, 0.2), blocks.trend(0.1, 0.7)
    both = blocks.axes([one, other])
    for k, single in enumerate((one, other)):
        own = [k, 2 + k]
        np.testing.assert_array_equal(both.A[np.ix_(own, own)], single.A)
        np.testing.assert_array_equal(both.Q[np.ix_(own, own)], single.Q)
        np.testing.assert_array_equal(both.C[k, own], single.C[0])
        rest = [1 - k, 3 - k]
        assert not both.A[np.ix_(own, rest)].any()
        assert not both.Q[np.ix_(own, rest)].any()
        assert not both.C[k, rest].any()
