"""A small study, for processes that run it or tell its keys: few imports."""

from __future__ import annotations

from functools import partial

import numpy as np

from afafilter import Estimate, LinearSDE, Outliers, Scenario, Shell, Study

T = 0.1 * np.arange(16)


def raw(model, t, z):
    return Estimate(t, z, np.broadcast_to(model.R, (*z.shape[:-1], *model.R.shape)), label="raw")


def shrunk(model, t, z, *, factor=0.9):
    cov = np.broadcast_to(factor * model.R, (*z.shape[:-1], *model.R.shape))
    return Estimate(t, factor * z, cov, label="shrunk")


def fails_when_quiet(model, t, z):
    if model.Q[0, 0] < 0.2:
        raise ValueError("too quiet")
    return raw(model, t, z)


def spiral(process_var):
    return LinearSDE.isotropic(0.1, 1.0, process_var=process_var, obs_var=1.0)


MODELS = {"quiet": spiral(0.1), "loud": spiral(0.5)}
ESTIMATORS = {"raw": raw, "shrunk": partial(shrunk, factor=0.8)}
SCENARIOS = {
    "clean": Scenario(T, 20, x0=Shell(5.0, 1.0)),
    "outliers": Scenario(T, 20, x0=Shell(5.0, 1.0), outliers=Outliers(0.2), burn_in=4),
}


def make(**changes) -> Study:
    options = {"models": MODELS, "estimators": ESTIMATORS, "scenarios": SCENARIOS, "seeds": 2}
    return Study(**(options | changes))


def _closure(words):
    def estimator(model, t, z):
        return raw(model, t, z) if "a" in {"a", "b", "c", *words} else None

    return estimator


KEYED = {"lambda": lambda m, t, z: raw(m, t, z), "closure": _closure({"p", "q", "r"})}
