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
FLIP = a.DiscreteModel([[-0.5]], Q=[[1.0]], H=[[1.0]], R=[[1.0]])
PAIR = np.stack([T, Z], axis=-1)
HEAD: dict[str, Any] = {"decay": 0.1, "process_var": 0.1, "key_var": 1.0}
DONE = a.kalman_filter(LEVEL, T, Z)
TRUTH = a.simulate(SPIRAL, T, 2, rng=0)
FIT = a.fit("brownian + noise", T, Z + np.random.default_rng(0).normal(size=20))

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
MORE: dict[str, tuple[Callable[[], Any], str]] = {
    "R a number": (lambda: a.LinearSDE([[-1.0]], Q=[[1.0]], R=1), r"\(p, p\).*1 \* np.eye\(p\)"),
    "R a vector": (lambda: a.LinearSDE(-np.eye(2), Q=np.eye(2), R=[1, 1]), r"write np.diag\(...\)"),
    "R beside C": (
        lambda: a.LinearSDE(-np.eye(2), Q=np.eye(2), R=np.eye(2), C=[[1, 0]]),
        r"R must have shape \(1, 1\), got shape \(2, 2\)",
    ),
    "C a vector": (
        lambda: a.LinearSDE(-np.eye(2), Q=np.eye(2), R=[[1]], C=[1, 0]),
        "write one row",
    ),
    "A text": (lambda: a.LinearSDE("A", Q=[[1]], R=[[1]]), "A must be numbers, got text"),
    "A unknown": (lambda: a.LinearSDE([[np.nan]], Q=[[1]], R=[[1]]), "A must be finite"),
    "drift": (lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], drift=[1, 2]), "drift must have shape"),
    "prior word": (
        lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], prior="flat"),
        "'diffuse', got 'f",
    ),
    "prior pair": (lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], prior=([0], [[1]])), "be a Prior"),
    "prior size": (
        lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], prior=a.Prior([0, 0], np.eye(2))),
        r"prior mean must have shape \(1,\)",
    ),
    "unit": (lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], time_unit="sec"), "'min'.* got 'sec'"),
    "by position": (lambda: a.LinearSDE([[-1]], [[1]], [[1]]), "A alone by position"),
    "preset": (lambda: a.brownian(process_var=-1), "process_var must be >= 0"),
    "rate": (lambda: a.ornstein_uhlenbeck(rate=-1), "rate must be > 0"),
    "dim": (lambda: a.brownian(dim=0), "dim must be >= 1"),
    "a class": (lambda: a.kalman_filter(a.LinearSDE, T, Z), "class LinearSDE .make one"),
    "order": (lambda: a.kalman_filter(T, Z, LEVEL), "model must be a LinearSDE"),
    "a fit for a model": (lambda: a.kalman_filter(FIT, T, Z), "its .model is one"),
    "t and z swapped": (lambda: a.kalman_filter(SPIRAL, np.ones((20, 2)), T), "t must be one-dim"),
    "nothing": (lambda: a.kalman_filter(LEVEL, [], []), "at least one time"),
    "transposed": (
        lambda: a.kalman_filter(SPIRAL, T, np.ones((2, 20))),
        r"pass z.swapaxes\(-1, -2\)",
    ),
    "weight a class": (
        lambda: a.kalman_filter(LEVEL, T, Z, weight=a.StudentT),
        "weight must be None",
    ),
    "variances (T,)": (lambda: a.kalman_filter(LEVEL, T, Z, obs_cov=T + 1), r"x\[:, None, None\]"),
    "variances (T, p)": (
        lambda: a.kalman_filter(SPIRAL, T, np.ones((20, 2)), obs_cov=np.ones((20, 2))),
        r"x\[..., None\] \* np.eye\(2\)",
    ),
    "text as times": (lambda: a.kalman_filter(LEVEL, ["2024-01-01"] * 20, Z), "pandas.to_datetime"),
    "queries of words": (
        lambda: a.rts_smoother(LEVEL, T, Z, query_times="all"),
        "query_times must",
    ),
    "window a float": (
        lambda: a.adaptive_filter(LEVEL, T, Z, window=2.5),
        "window must be a whole",
    ),
    "correlation": (
        lambda: a.adaptive_filter(LEVEL, T, Z, correlation="full"),
        "'exact', got 'full'",
    ),
    "temperature": (
        lambda: a.adaptive_filter(LEVEL, T, Z, inverse_temperature=-1),
        "temperature must",
    ),
    "no noise": (lambda: a.adaptive_filter(a.brownian(obs_var=0), T, Z), "give R a small positive"),
    "no logarithm": (lambda: a.adaptive_filter(FLIP, T, Z), "no real logarithm"),
    "not isotropic": (
        lambda: a.linear_time_filter(a.constant_velocity(), T, Z),
        "use adaptive_filter",
    ),
    "stream not isotropic": (lambda: a.AdaptiveFilterStream(a.constant_velocity()), "window=100"),
    "a discrete stream": (lambda: a.KalmanStream(FLIP), "a LinearSDE, got DiscreteModel"),
    "steps between steps": (
        lambda: a.kalman_filter(FLIP, T, Z, query_times=[1.5]),
        "its steps only",
    ),
    "steps back": (lambda: a.forecast(FLIP, T, Z, steps=-1), "steps must be >= 1"),
    "x0": (lambda: a.simulate(SPIRAL, T, 3, rng=0, x0=[1.0]), "x0 must have shape"),
    "outliers a number": (
        lambda: a.simulate(SPIRAL, T, 3, rng=0, outliers=0.1),
        "an Outliers or None",
    ),
    "law": (lambda: a.Outliers(0.1, law="cauchy"), "law must be one of"),
    "truth (T,)": (lambda: a.score(DONE, Z), "truth must have the shape"),
    "score turned round": (lambda: a.score(TRUTH, DONE), r"the order is score\(estimate, truth\)"),
    "percent": (lambda: DONE.interval(95), "level must lie in"),
    "a result for an estimator": (lambda: a.compare([DONE], SPIRAL, T, 3, rng=0), "f.model, t, z."),
    "no estimators": (lambda: a.compare([], SPIRAL, T, 3, rng=0), "at least one estimator"),
    "metric by its title": (
        lambda: a.compare(["kalman"], SPIRAL, T, 3, rng=0).to_latex(["RMSE"]),
        "metric must be one of.*'rmse'",
    ),
    "data for an estimator": (lambda: a.theory.efficiency(LEVEL, T, Z), "no observations"),
    "brackets": (lambda: a.fit("brownian( + noise", T, Z), "names joined by"),
    "bounds of whom": (
        lambda: a.fit("brownian + noise", T, Z, bounds={"q": (0, 1)}),
        "bounds must name",
    ),
    "bounds round": (
        lambda: a.fit("brownian + noise", T, Z, bounds={"obs_var": (2, 1)}),
        "low < high",
    ),
    "prior a number": (lambda: a.fit("brownian + noise", T, Z, priors={"obs_var": 1}), "LogNormal"),
    "starts": (lambda: a.fit("brownian + noise", T, Z, starts=0), "starts must be >= 1"),
    "profile of whom": (lambda: FIT.profile("q"), "unknown parameter 'q'"),
    "the same model": (lambda: a.likelihood_ratio(FIT, FIT), "more parameters"),
    "diagnose a word": (lambda: a.diagnose("brownian", T, Z), "a FitResult, got str"),
    "no values": (lambda: a.loglik("brownian + noise", T, Z), "params=.'process_var'"),
    "H of a functional": (lambda: DONE.through([1.0, 2.0]), r"H must have shape \(p, 1\)"),
    "paths of a filter": (lambda: DONE.sample_paths(3, rng=0), "use rts_smoother"),
    "too many names": (lambda: DONE.to_pandas(["a", "b"]), "names must be 1 names"),
    "values (N,)": (lambda: a.isotropic_attention(None, None, Z, T, **HEAD), "one row per time"),
    "rows of queries": (
        lambda: a.isotropic_attention(PAIR[:5], PAIR, PAIR, T, **HEAD),
        "q must have",
    ),
    "decay": (
        lambda: a.isotropic_attention(None, None, PAIR, T, **{**HEAD, "decay": -1}),
        "decay must",
    ),
    "stream of pairs": (
        lambda: a.KalmanStream(SPIRAL).update(0.0, 1.0),
        r"z must have shape \(2,\)",
    ),
    "state of nothing": (lambda: a.KalmanStream.from_state(SPIRAL, {}), "no entry 'system'"),
    "several paths": (lambda: a.hold_out(["rts"], SPIRAL, T, np.ones((3, 20, 2))), "one path"),
    "too few to hide": (lambda: a.hold_out(["rts"], LEVEL, T[:5], Z[:5]), "too few observations"),
    "input back": (lambda: a.Forcing([1.0, 0.0], [1.0, 2.0]), "forcing t must not decrease"),
    "input too wide": (
        lambda: a.LinearSDE([[-1]], Q=[[1]], R=[[1]], forcing=a.Forcing([0.0], [[1.0, 2.0]])),
        "forcing matrix",
    ),
    "particles": (
        lambda: a.particle_filter(LEVEL, T, Z, outlier_rate=0.1, outlier_scale=5, n_particles=0),
        "n_particles must be >= 1",
    ),
    "rate above 1": (
        lambda: a.mixture_filter(LEVEL, T, Z, outlier_rate=2, outlier_scale=5),
        "outlier_rate must be",
    ),
    "which mixture": (lambda: a.imm_filter(LEVEL, T, Z), "outlier_rate and outlier_scale"),
    "empty grid": (
        lambda: a.Study(models={"m": SPIRAL}, estimators={"k": "kalman"}, scenarios={}),
        "scenarios must hold",
    ),
    "journal": (lambda: a.plotting.style("science"), "style must be one of"),
    "one series to each": (lambda: a.fit_each("brownian + noise", T, Z), "one series: use fit"),
    "noise in order": (
        lambda: a.structured_adaptive_filter(LEVEL, 1.0, T, Z),
        "be a StructuredNoise",
    ),
    "radial": (lambda: a.radial_kalman_filter(SPIRAL, T, Z), "be a RadialTangentialSDE"),
    "which step": (
        lambda: a.influence_curve(a.kalman_filter, LEVEL, T, Z, step=50, sizes=[1.0]),
        "within the 20 times",
    ),
    "a column": (
        lambda: a.io.read_series(a.datasets.DATA / "nile.csv", values="q"),
        "no column 'q'",
    ),
    "a suffix": (lambda: a.io.read_series("x.xlsx"), "must end in one of .csv"),
    "an estimator's option": (
        lambda: a.catalog.estimator_from_spec("kalman", {"windows": 3}),
        "unknown key 'windows'; known are",
    ),
}


@pytest.mark.parametrize("case", [*MISTAKES, *MORE])
def test_a_mistake_is_named_in_one_line(case: str) -> None:
    call, message = (MISTAKES | MORE)[case]
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
