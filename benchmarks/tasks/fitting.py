"""Maximum likelihood on the Nile, the sunspots and many series, beside statsmodels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Array, Arrays, Case, Library, Run, Task

Params = Mapping[str, Any]


def inputs(params: Params) -> Arrays:
    """Times and values of a public series, or of a simulated one."""
    if params["series"] == "oscillator":
        from afafilter import damped_oscillator, ornstein_uhlenbeck, simulate

        rng = np.random.default_rng(5)
        t = np.cumsum(rng.exponential(0.3, params["N"]))
        model = damped_oscillator(0.1, 2.0, obs_var=0.1) + ornstein_uhlenbeck(
            0.5, process_var=0.3, obs_var=0.0
        )
        return {"t": t, "z": simulate(model, t, rng=rng).z[0]}
    if params["series"] == "levels":
        rng = np.random.default_rng(6)
        ratio = 10.0 ** rng.uniform(-2.0, 0.5, (params["K"], 1))  # process over measurement noise
        steps, noise = rng.standard_normal((2, params["K"], 100))
        z = np.cumsum(np.sqrt(ratio) * steps, axis=1) + noise
        z[rng.random(z.shape) < 0.05] = np.nan
        return {"t": np.arange(100.0), "z": z[..., None]}
    from afafilter import datasets

    series = {"nile": datasets.load_nile, "sunspots": datasets.load_sunspots}[params["series"]]()
    return {"t": np.asarray(series.t, dtype=float), "z": series.z}


def ours(inputs: Arrays, params: Params) -> Run:
    """fit with the family of the series, fit_each for many."""
    from afafilter import families, fit

    def run_each() -> Arrays:
        from afafilter import fit_each

        found = fit_each(families.brownian() + families.noise(), inputs["t"], inputs["z"])
        return {"loglik": found.loglik, "params": found.params, "std_errors": found.std_errors}

    if params["series"] == "levels":
        return run_each
    build = {
        "nile": lambda: families.brownian() + families.noise(),
        "sunspots": lambda: families.constant() + families.cycle() + families.noise(),
        "oscillator": lambda: (
            families.oscillator() + families.ornstein_uhlenbeck() + families.noise()
        ),
    }[params["series"]]

    def run() -> Arrays:
        found = fit(build(), inputs["t"], inputs["z"])
        return {"loglik": np.array([found.loglik])}

    return run


def statsmodels(inputs: Arrays, params: Params) -> Run:
    """UnobservedComponents with the same components and start, its default optimiser.

    Of many series one after the other, as its users do.
    """
    import warnings

    from statsmodels.tsa.statespace.initialization import Initialization
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    many = inputs["z"][..., 0] if params["series"] == "levels" else inputs["z"].T
    options: dict[str, Any] = {
        "nile": {"level": "local level"},
        "levels": {"level": "local level"},
        "sunspots": {
            "exog": np.ones(many.shape[1]),
            "mle_regression": True,
            "irregular": True,
            "cycle": True,
            "damped_cycle": True,
            "stochastic_cycle": True,
            "cycle_period_bounds": (2.0, 50.0),
        },
    }[params["series"]]

    def loglik(z: Array) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = UnobservedComponents(z, use_exact_diffuse=True, **options)
            if "cycle" in options:
                model.ssm.initialize(Initialization(2, "stationary"))
            return float(model.fit(disp=0).llf)

    return lambda: {"loglik": np.array([loglik(z) for z in many])}


TASK = Task(
    "fitting",
    "Maximum likelihood",
    "Agreement is that of the maximised log-likelihoods, relative.",
    (
        Library("statsmodels", statsmodels, "statsmodels", 1e-5),
        Library(OURS, ours, None, 1e-5),
    ),
    (
        Case("Nile, local level", 100, {"series": "nile"}, ("statsmodels", OURS)),
        Case("sunspots, damped cycle", 309, {"series": "sunspots"}, ("statsmodels", OURS)),
        Case(
            "1000 series, local level, 2 threads",
            1000,
            {"series": "levels", "K": 1000},
            ("statsmodels", OURS),
            threads=2,
            rounds=2,
        ),
        Case("irregular N=2000, 6 parameters", 2000, {"series": "oscillator", "N": 2000}, (OURS,)),
    ),
    inputs,
    {"N": 200, "K": 3},
)
