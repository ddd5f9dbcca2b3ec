"""Known inputs in the likelihood: the filter's value, and a gradient checked by differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from afafilter import Forcing, LinearSDE, Prior, kalman_filter, loglik

RNG = np.random.default_rng(0)
T = np.cumsum(RNG.uniform(0.3, 1.5, 40))
U = RNG.normal(size=(40, 2))
Z = RNG.normal(size=(2, 40, 1))
Z[0, 5] = np.nan
PRIORS = {
    "stationary": "stationary",
    "diffuse": "diffuse",
    "earlier": Prior([0.0, 0.0], np.eye(2), t0=-1.0),
}


def _model(prior: Any, **forcing: Any) -> LinearSDE:
    return LinearSDE(
        [[-0.3, 0.8], [-0.7, -0.4]],
        Q=[[0.5, 0.1], [0.1, 0.3]],
        R=[[0.4]],
        C=[[1.0, 0.3]],
        delay=0.2,
        prior=prior,
        forcing=Forcing(T + 0.1, U, **forcing),
    )


def _moved(model: LinearSDE, name: str, place: tuple[int, ...], step: float) -> LinearSDE:
    field = {"input": "matrix"}.get(name, name)
    inside = name in ("input", "direct")
    value = np.array(getattr(model.forcing if inside else model, field))
    value[place] += step
    if not inside:
        return replace(model, **{field: value})
    assert model.forcing is not None
    return replace(model, forcing=replace(model.forcing, **{field: value}))


@pytest.mark.parametrize("prior", PRIORS)
def test_value_is_the_filters_and_gradient_that_of_differences(prior: str) -> None:
    M, D = [[0.5, 0.2], [-0.3, 0.7]], [[1.5, -0.4]]
    model = _model(PRIORS[prior], matrix=M, direct=D)
    found: Any = loglik(model, T, Z, gradient=True)
    value, slopes = found
    assert value == pytest.approx(np.sum(kalman_filter(model, T, Z).loglik), rel=1e-12)
    h = 1e-5
    for name in ("A", "C", "input", "direct"):
        for place in np.ndindex(slopes[name].shape):
            ends: Any = [loglik(_moved(model, name, place, s), T, Z) for s in (h, -h)]
            assert slopes[name][place] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=2e-6)


def test_regressors_alone_leave_the_states() -> None:
    """z = C x + D u + v is the model without input of z - D u."""
    D = np.array([[1.5, -0.4]])
    model = _model("stationary", direct=D)
    rest = Z - Forcing(T + 0.1, U).values(T) @ D.T
    plain = replace(model, forcing=None)
    assert loglik(model, T, Z) == pytest.approx(loglik(plain, T, rest), rel=1e-13)
