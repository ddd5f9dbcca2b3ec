"""Weights against their formulas, their losses by quadrature, and their argument checks."""

import dataclasses

import numpy as np
import pytest
from scipy.integrate import quad

from afafilter import IMQ, Exponential, Huber, Power, Rational, StudentT, Threshold
from afafilter.weights import Weight, as_weight, weight_from_name

D2 = np.array([0.0, 1e-12, 0.3, 1.0, 3.99, 4.0, 4.01, 25.0, 1e8])
CASES = [
    (Exponential(3.0), lambda x, d: np.exp(-x / 3.0)),
    (Power(3.0), lambda x, d: (1 + x / 3.0) ** (-(3.0 + d) / d)),
    (Power(3.0, 1.0), lambda x, d: 1 / (1 + x / 3.0)),
    (Power(3.0, 0.4), lambda x, d: (1 + x / 3.0) ** -0.4),
    (StudentT(5.0), lambda x, d: (5.0 + d) / (5.0 + x)),
    (Rational(0.7), lambda x, d: 1 / (1 + 0.7 * x)),
    (IMQ(2.0), lambda x, d: 1 / (1 + x / 4.0)),
    (Huber(2.0), lambda x, d: 1.0 if x <= 4 else 2.0 / np.sqrt(x)),
    (Threshold(2.0), lambda x, d: float(x <= 4.0)),
]
IDS = [repr(weight) for weight, _ in CASES]


@pytest.mark.parametrize(("weight", "formula"), CASES, ids=IDS)
@pytest.mark.parametrize("dim", [1, 2, 6])
def test_weight_and_log_follow_the_formula(weight, formula, dim):
    expected = np.array([formula(x, dim) for x in D2])
    np.testing.assert_allclose(weight(D2, dim), expected, rtol=1e-13)
    with np.errstate(divide="ignore"):
        logs = np.log(expected)
    finite = expected > 0
    np.testing.assert_allclose(weight.log(D2, dim)[finite], logs[finite], rtol=1e-12, atol=1e-14)
    assert isinstance(weight, Weight)


@pytest.mark.parametrize(("weight", "formula"), CASES, ids=IDS)
@pytest.mark.parametrize("top", [0.5, 3.0, 17.0])
def test_rho_is_the_integral_of_the_weight(weight, formula, top):
    points = [4.0] if top > 4.0 else None
    integral, _ = quad(lambda x: formula(x, 2), 0, top, points=points, epsabs=1e-12, epsrel=1e-12)
    np.testing.assert_allclose(weight.rho(top, 2), integral, rtol=1e-10)
    assert weight.rho(0.0, 2) == 0.0


@pytest.mark.parametrize(("weight", "formula"), CASES, ids=IDS)
def test_weights_decrease_keep_single_precision_and_pass_nan(weight, formula):
    assert (np.diff(weight(D2, 3)) <= 0).all()
    single = D2.astype(np.float32)
    for method in (weight, weight.log, weight.rho):
        assert method(single, 3).dtype == np.float32
        assert np.isnan(method(np.array([np.nan, 1.0]), 3)).tolist() == [True, False]
    np.testing.assert_allclose(weight(single[:5], 3), weight(D2[:5], 3), rtol=1e-5)
    assert weight(np.array([1, 4]), 2).dtype == np.float64


def test_log_weight_outlives_the_underflow_of_the_weight():
    assert Exponential(1.0).log(1e5, 2) == -1e5
    assert Threshold(1.0).log(2.0, 2) == -np.inf
    assert Power(2.0, 50.0).log(1e200, 2) == pytest.approx(-50 * np.log(0.5e200))


def test_dimension_may_vary_between_observations():
    d2, dim = np.array([1.0, 1.0, 1.0]), np.array([1, 2, 3])
    for weight in (Power(4.0), StudentT(4.0)):
        expected = [float(weight(1.0, n)) for n in (1, 2, 3)]
        np.testing.assert_allclose(weight(d2, dim), expected, rtol=1e-14)
        rhos = [float(weight.rho(1.0, n)) for n in (1, 2, 3)]
        np.testing.assert_allclose(weight.rho(d2, dim), rhos, rtol=1e-14)


@pytest.mark.parametrize("kind", [Exponential, Power, StudentT, Rational, IMQ, Huber, Threshold])
@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, [1.0, 2.0]])
def test_parameters_must_be_positive_numbers(kind, bad):
    with pytest.raises(ValueError, match=kind.__name__):
        kind(bad)


def test_parameters_are_fixed_and_checked():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Power(2.0).nu = 3.0
    with pytest.raises(TypeError, match="Huber c"):
        Huber("wide")
    with pytest.raises(ValueError, match="Power kappa"):
        Power(2.0, -1.0)
    assert Power(2.0) == Power(2)


def test_weights_by_name():
    assert weight_from_name("power", nu=2.0, kappa=1.5) == Power(2.0, 1.5)
    assert weight_from_name("power", nu=2.0) == Power(2.0)
    assert weight_from_name("huber", c=2.0) == Huber(2.0)
    assert weight_from_name("StudentT", nu=4.0) == weight_from_name("student_t", nu=4.0)
    assert weight_from_name("IMQ", c=2.0) == IMQ(2.0)
    with pytest.raises(ValueError, match="student_t, rational, imq"):
        weight_from_name("cauchy", c=1.0)
    with pytest.raises(ValueError, match="takes the parameters c, got nu"):
        weight_from_name("huber", nu=1.0)
    with pytest.raises(ValueError, match="needs the parameter nu"):
        weight_from_name("exponential")


def test_as_weight_names_the_remedy():
    assert as_weight(None) is None
    assert as_weight(Huber(1.0)) == Huber(1.0)
    assert as_weight("huber") == Huber(2.0)
    for bad in (Huber, 2.0):
        with pytest.raises(TypeError, match="a word such as 'student_t' or a weight such as"):
            as_weight(bad)
    with pytest.raises(ValueError, match="hubert"):
        as_weight("hubert")
