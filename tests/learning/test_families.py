"""Families: axes with parameters of their own, pickling."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from afafilter import constant_velocity, fit, matern, simulate
from afafilter import families as f

WORDS = {
    "noise": f.noise(2, diagonal=True),
    "constant": f.constant(2),
    "brownian": f.brownian(2, diagonal=True),
    "ornstein_uhlenbeck": f.ornstein_uhlenbeck(2),
    "isotropic": f.isotropic(3),
    "spiral": f.spiral(),
    "cycle": f.cycle(damped=False, dim=2),
    "oscillator": f.oscillator(2, diagonal=True),
    "matern": f.matern(2.5, 2),
    "constant_velocity": f.constant_velocity(2),
    "local_linear_trend": f.local_linear_trend(2, diagonal=True),
    "seasonal": f.seasonal(12.0, 2, 2),
}


def test_every_word_is_tried_here():
    assert {*WORDS, "Family", "Normal", "LogNormal"} == set(f.__all__)


def test_axes_share_parameters_or_have_their_own():
    shared = f.constant_velocity(2) + f.noise(2)
    assert list(shared.parameters) == ["process_var", "obs_var"]
    own = f.constant_velocity(2, diagonal=True) + f.noise(2, diagonal=True)
    assert list(own.parameters) == ["process_var[0]", "process_var[1]", "obs_var[0]", "obs_var[1]"]
    model = shared.model(process_var=0.6, obs_var=0.1)
    preset = constant_velocity(0.6, 0.1, dim=2)
    for name in ("A", "Q", "R", "C"):
        np.testing.assert_array_equal(getattr(model, name), getattr(preset, name))
    model = own.model(
        {"process_var[0]": 0.6, "process_var[1]": 0.2, "obs_var[0]": 0.1, "obs_var[1]": 3.0}
    )
    np.testing.assert_array_equal(model.Q, np.diag([0.0, 0.0, 0.6, 0.2]))
    np.testing.assert_array_equal(model.R, np.diag([0.1, 3.0]))
    kernel = f.matern(1.5, 2, diagonal=True) + f.noise(2)
    assert list(kernel.parameters) == ["length", "variance[0]", "variance[1]", "obs_var"]
    axis = matern(1.5, 2.0, 3.0).Q[1, 1]
    assert kernel.model({"length": 2.0, "variance[0]": 1.0, "variance[1]": 3.0, "obs_var": 1.0}).Q[
        3, 3
    ] == pytest.approx(axis)


def test_axes_with_parameters_of_their_own_fit_as_if_alone():
    """Independent axes: the likelihood is the product, so each axis has its own maximum."""
    truth = f.brownian(2, diagonal=True) + f.noise(2, diagonal=True)
    model = truth.model(
        {"process_var[0]": 1.0, "process_var[1]": 4.0, "obs_var[0]": 2.0, "obs_var[1]": 0.5}
    )
    t = np.arange(120.0)
    z = simulate(model, t, rng=1, x0=[0.0, 0.0]).z[0]
    both = fit(truth, t, z)
    alone = [fit(f.brownian() + f.noise(), t, z[:, k]) for k in range(2)]
    assert both.loglik == pytest.approx(sum(found.loglik for found in alone), abs=1e-5)
    for k, found in enumerate(alone):
        for name, value in found.params.items():
            assert both.params[f"{name}[{k}]"] == pytest.approx(value, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("word", WORDS)
def test_families_pickle(word):
    family = WORDS[word]
    again = pickle.loads(pickle.dumps(family))
    values = {name: 1.0 + 0.1 * k for k, name in enumerate(family.parameters)}
    if family.dim:
        for name in ("A", "Q", "R", "C", "offset"):
            old, new = (getattr(x.model(values), name) for x in (family, again))
            np.testing.assert_array_equal(old, new)
    assert again.free == family.free


@pytest.mark.parametrize("method", ["ml", "em", "student_t"])
def test_what_is_fitted_to_a_family_pickles(method):
    t = np.arange(60.0)
    family = f.brownian() + f.noise()
    z = simulate(family.model(process_var=1.0, obs_var=2.0), t, rng=0, x0=[0.0]).z[0]
    found = fit(family, t, z, method=method)
    again = pickle.loads(pickle.dumps(found))
    assert again.params == found.params
    assert again.loglik == found.loglik
    np.testing.assert_array_equal(again.model.Q, found.model.Q)
    np.testing.assert_array_equal(again.to_pandas(), found.to_pandas())
    if method == "ml":
        assert again.profile("obs_var") == found.profile("obs_var")
        np.testing.assert_array_equal(
            again.bootstrap(2, np.random.default_rng(0)),
            found.bootstrap(2, np.random.default_rng(0)),
        )


def test_guesses_see_masks_labels_and_dates() -> None:
    t = np.arange(30.0)
    z = np.sin(0.7 * t) + 0.1 * t
    hidden = t % 7 == 3
    family = f.brownian() + f.cycle() + f.noise()
    wanted = family.guess(t, np.where(hidden, np.nan, z))
    masked = np.ma.array(np.where(hidden, -9999.0, z), mask=hidden)
    dates = pd.date_range("2024-01-01", periods=30)
    for given in ((t, masked), (dates, pd.Series(masked.filled(np.nan), index=dates)[::-1])):
        assert family.guess(*given) == pytest.approx(wanted)
