"""Mistakes in Python: one line each, which names the argument, what was given and what is wanted.

The command's are in tests/cli.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import afafilter as a
from afafilter import families

T = np.arange(20.0)
Z = np.sin(T)
LEVEL = a.brownian(process_var=1.0, obs_var=1.0)
SPIRAL = a.spiral()
FORCED = a.Forcing(T, Z)

MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "times turned back": (lambda: a.kalman_filter(LEVEL, T[::-1], Z), "must not decrease"),
    "a time missing": (lambda: a.kalman_filter(LEVEL, np.where(T == 3, np.nan, T), Z), "t must"),
    "lengths differ": (lambda: a.kalman_filter(LEVEL, T, Z[:-1]), r"z must have shape .*20"),
    "z forgotten": (lambda: a.kalman_filter(LEVEL, T), "z is missing"),
    "no model": (lambda: a.kalman_filter("brownian", T, Z), "model must be a LinearSDE"),
    "weight by a wrong name": (lambda: a.kalman_filter(LEVEL, T, Z, weight="cauchy"), "weight"),
    "anchor by a wrong name": (
        lambda: a.kalman_filter(LEVEL, T, Z, weight="huber", anchor="x"), "anchor must be one of"),
    "no rounds": (
        lambda: a.kalman_filter(LEVEL, T, Z, weight="huber", iterations=0), "iterations must be"),
    "infinite observation": (
        lambda: a.kalman_filter(LEVEL, T, np.where(T == 3, np.inf, Z)), "z must"),
    "complex": (lambda: a.kalman_filter(LEVEL, T, Z + 1j), "z must be real"),
    "noise of a wrong shape": (
        lambda: a.kalman_filter(LEVEL, T, Z, obs_cov=np.ones(20)), "obs_cov must have shape"),
    "A not square": (lambda: a.LinearSDE([[1.0, 2.0]], Q=[[1.0]], R=[[1.0]]), "A must be"),
    "Q a number": (lambda: a.LinearSDE([[-1.0]], Q=1.0, R=[[1.0]]), r"Q must have shape"),
    "Q indefinite": (lambda: a.LinearSDE([[-1.0]], Q=[[-1.0]], R=[[1.0]]), "Q must be"),
    "C forgotten": (
        lambda: a.LinearSDE(-np.eye(2), Q=np.eye(2), R=[[1.0]]), "when C is left out"),
    "delay negative": (
        lambda: a.LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], delay=-1), "delay must be >= 0"),
    "stationary but unstable": (
        lambda: a.LinearSDE([[1.0]], Q=[[1.0]], R=[[1.0]], prior="stationary"), "stable"),
    "H of a wrong shape": (
        lambda: a.DiscreteModel(np.eye(2), Q=np.eye(2), H=[[1.0]], R=[[1.0]]), "H must have shape"),
    "time-varying name": (
        lambda: a.DiscreteModel([[1.0]], Q=[[1.0]], H=[[1.0]], R=[[1.0]], time_varying="A"),
        "time_varying must be one of"),
    "nothing to draw from": (lambda: a.simulate(LEVEL, T, rng=0), "x0 must be given"),
    "no paths": (lambda: a.simulate(LEVEL, T, 0, rng=0, x0=[0.0]), "n"),
    "no generator": (lambda: a.simulate(SPIRAL, T, rng="0"), "rng must be"),
    "missing a share above 1": (lambda: a.simulate(SPIRAL, T, rng=0, missing=2), "missing must"),
    "outlier rate": (lambda: a.Outliers(2.0), "rate must"),
    "unknown family": (lambda: a.fit("brownan + noise", T, Z), "did you mean 'brownian'"),
    "family without noise only": (lambda: a.fit("noise", T, Z), "no state that moves"),
    "method": (lambda: a.fit("brownian + noise", T, Z, method="map"), "method must be one of"),
    "free name": (lambda: a.fit("brownian + noise", T, Z, free=["q"]), "free must name"),
    "no t": (lambda: a.fit("brownian + noise", z=Z), "t is needed"),
    "all missing": (lambda: a.fit("brownian + noise", T, Z * np.nan), "every value is missing"),
    "constant data": (lambda: a.fit("brownian + noise", T, Z * 0), "is constant"),
    "too few": (lambda: a.fit("brownian + noise", T[:2], Z[:2]), "too few data"),
    "dof alone": (lambda: a.fit("brownian + noise", T, Z, dof=3), "method='student_t'"),
    "negative start": (lambda: families.brownian().at(process_var=-1), "process_var must be > 0"),
    "unknown parameter": (lambda: families.brownian().at(q=1), "unknown parameter 'q'"),
    "matern nu": (lambda: families.matern(2.0), "nu must be 0.5, 1.5 or 2.5"),
    "period": (lambda: families.seasonal(0.0), "period must be > 0"),
    "params of a model": (lambda: a.loglik(LEVEL, T, Z, params={"q": 1}), "params are the values"),
    "forecast backwards": (
        lambda: a.forecast(LEVEL, T, Z, horizon_times=[3.0]), "must not lie before the last time"),
    "forecast in steps": (lambda: a.forecast(LEVEL, T, Z, steps=3), "needs horizon_times"),
    "model before estimators": (
        lambda: a.compare(LEVEL, ["kalman"], T, 3, rng=0), "the model comes after them"),
    "unknown estimator": (lambda: a.compare(["kalmn"], SPIRAL, T, 3, rng=0), "'kalman'"),
    "hold out too much": (
        lambda: a.hold_out(["rts"], LEVEL, T, Z, share=0.9), "share must be at most 0.5"),
    "hold out what": (lambda: a.hold_out(["rts"], LEVEL, T, Z, kinds=["x"]), "kinds must be one"),
    "input rows": (
        lambda: a.fit("brownian + noise", T, Z, inputs=Z[:-1]), "one row for each time"),
    "input of no model": (
        lambda: a.LinearSDE([[-1.0]], Q=[[1.0]], R=[[1.0]], forcing=3), "forcing must be a"),
    "direct of a wrong shape": (
        lambda: a.Forcing(T, Z, direct=[[1.0, 2.0]]), r"forcing direct must have shape \(p, 1\)"),
    "names of inputs": (lambda: a.Forcing(T, Z, names=("a", "b")), "forcing names must name 1"),
    "window": (lambda: a.adaptive_filter(SPIRAL, T, np.ones((20, 2)), window=0), "window must be"),
    "AFA method": (
        lambda: a.adaptive_filter(SPIRAL, T, np.ones((20, 2)), method="x"), "method must be one"),
    "nu": (lambda: a.StudentT(0.0), "nu must be > 0"),
    "c": (lambda: a.Huber(-1.0), "c must be > 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_in_one_line(case: str) -> None:
    call, message = MISTAKES[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
