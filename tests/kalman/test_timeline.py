"""Times of short series are read once per model, and never mixed up."""

from __future__ import annotations

import numpy as np
import pytest

from afafilter import constant_velocity, kalman_filter, rts_smoother, spiral
from tests.oracles import dense_loglik, dense_posterior

MODELS = [spiral(0.3, 0.8, process_var=0.1, obs_var=0.5), constant_velocity(obs_var=1.0)]


@pytest.mark.parametrize("model", MODELS, ids=["stationary", "flat"])
@pytest.mark.parametrize("estimator", [kalman_filter, rts_smoother])
def test_times_that_change_in_place_are_read_anew(model, estimator):
    t = np.array([0.0, 0.5, 0.5, 1.5])
    z = np.random.default_rng(0).standard_normal((4, model.obs_dim))
    for stretch in (1.0, 2.0, 1.0):
        t *= stretch
        for _ in range(2):
            found = estimator(model, t, z)
            mean, cov = dense_posterior(model, t, z, causal=estimator is kalman_filter)
            np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(found.cov, cov, rtol=1e-9, atol=1e-10)
            found.t[:] = found.mean[:] = np.nan  # the caller's to do with as he likes


def test_more_grids_than_are_remembered():
    model, z = MODELS[0], np.ones((3, 2))
    for k in [*range(40), *range(3)]:
        t = np.array([0.0, 1.0, 2.0 + 0.1 * k])
        wanted = dense_loglik(model, t, z)
        assert float(kalman_filter(model, t, z).loglik) == pytest.approx(wanted, rel=1e-12)
