"""Adaptive Filter Attention beside the Kalman filter: simulate, estimate, compare, draw.

    from afafilter import spiral, simulate, adaptive_filter, kalman_filter

Everything public is listed in `__all__` and loaded when first used, so that the import is cheap.
Ready-made models are listed where they are written, in `afafilter.models.presets`.
"""

from __future__ import annotations

import importlib
from typing import Any

from afafilter._base.shown import offer
from afafilter._version import __version__ as __version__

_HOME = {
    "_core": ("core_info",),
    "adaptive.estimators": ("adaptive_filter", "adaptive_smoother"),
    "adaptive.extensions": (
        "Gated",
        "HeadBank",
        "adaptive_forecast",
        "confidence_gate",
        "spectral_bank",
    ),
    "adaptive.linear_time.filter": ("linear_time_filter",),
    "adaptive.linear_time.layer": ("StateSpaceLayer", "state_space_layer"),
    "adaptive.linear_time.sums": ("ExponentialSum", "separable_weights"),
    "adaptive.pulling": ("Pulled", "pull_forward"),
    "adaptive.radial": ("hypersphere_direction", "hypersphere_step", "radial_adaptive_filter"),
    "adaptive.record_length": ("LongRecordWarning",),
    "adaptive.stream": ("AdaptiveFilterStream",),
    "adaptive.structured": ("structured_adaptive_filter",),
    "attention.functions": ("isotropic_attention", "tensor_attention"),
    "attention.heads": ("AttentionResult",),
    "baselines": ("filterpy_filter", "filterpy_smoother", "raw_observation"),
    "kalman.estimators": ("forecast", "kalman_filter", "rts_smoother"),
    "kalman.mixture": ("mixture_filter",),
    "kalman.radial": ("radial_kalman_filter",),
    "kalman.stream": ("KalmanStream",),
    "kalman.switching": ("imm_filter", "particle_filter"),
    "learning.diagnostics": ("Diagnostics", "diagnose"),
    "learning.fit": ("fit",),
    "learning.fit_afa": ("AFAFit", "fit_afa"),
    "learning.fit_each": ("FitResults", "fit_each"),
    "learning.likelihood": ("loglik",),
    "learning.model_choice": ("RatioTest", "held_out_score", "likelihood_ratio"),
    "learning.problem": ("FitWarning",),
    "learning.result": ("FitResult",),
    "models.discrete": ("DiscreteModel",),
    "models.forcing": ("Forcing",),
    "models.priors": ("InitialLaw", "Prior"),
    "models.radial": ("RadialTangentialSDE",),
    "models.sde": ("LinearSDE",),
    "models.structured_noise": ("StructuredNoise",),
    "models.switching": ("SwitchingModel", "contaminated"),
    "results": ("Estimate", "Trajectories"),
    "scoring.influence": ("breakdown_curve", "influence_curve"),
    "scoring.score": ("Score", "score"),
    "scoring.tally": ("Ratio",),
    "simulation.contamination": ("ColouredNoise", "Gaps", "Jumps", "LevelShift", "Outliers"),
    "simulation.radial": ("RadialRange", "radial_range", "simulate_radial"),
    "simulation.scenarios": (
        "DriftSDE",
        "coupled_van_der_pol",
        "lorenz",
        "simulate_drift",
        "spiral_3d",
        "strong_error",
    ),
    "simulation.simulate": ("sampling_times", "simulate"),
    "studies.batch": ("Shell",),
    "studies.compare": ("compare",),
    "studies.comparison": ("Comparison",),
    "studies.hold_out": ("HoldOut", "hold_out"),
    "studies.scenario": ("Scenario",),
    "studies.plan": ("StudyPlan",),
    "studies.result": ("StudyResult",),
    "studies.study": ("Study",),
    "weights": ("Exponential", "Huber", "IMQ", "Power", "Rational", "StudentT", "Threshold"),
}
_MODULES = {
    "catalog": "catalog",
    "datasets": "datasets",
    "families": "learning.families",
    "io": "io",
    "plotting": "plotting",
    "theory": "theory",
}
_OWNER = {name: module for module, names in _HOME.items() for name in names}

# Results below the drawing packages ask for them by name; only the face stands above both.
offer("plotting", lambda: importlib.import_module("afafilter.plotting"))
offer("report", lambda: importlib.import_module("afafilter.report"))

_HERE = ["__version__", *sorted(_OWNER), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = importlib.import_module(f"afafilter.{_MODULES[name]}")
    elif name in _OWNER:
        value = getattr(importlib.import_module(f"afafilter.{_OWNER[name]}"), name)
    elif name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'afafilter' has no attribute {name!r}")
    else:
        presets = importlib.import_module("afafilter.models.presets")
        if name == "__all__":
            value = sorted([*_HERE, *presets.__all__])
        elif name in presets.__all__:
            value = getattr(presets, name)
        else:
            raise AttributeError(f"module 'afafilter' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
