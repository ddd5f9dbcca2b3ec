"""Adaptive Filter Attention beside the Kalman filter: simulate, estimate, compare, draw.

    from afafilter import spiral, simulate, adaptive_filter, kalman_filter

Everything public is listed in `__all__` and loaded when first used, so that the import is cheap.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from afafilter._version import __version__ as __version__

_HOME = {
    "models": ("DiscreteModel", "LinearSDE", "Prior"),
    "presets": (
        "brownian", "constant_velocity", "damped_oscillator", "matern", "ornstein_uhlenbeck",
        "random_stable", "seasonal", "spiral",
    ),
    "results": ("Estimate", "Trajectories"),
    "simulate": ("Outliers", "simulate"),
    "kalman": ("forecast", "kalman_filter", "rts_smoother"),
    "estimators": ("filterpy_filter", "filterpy_smoother", "raw_observation"),
    "adaptive": ("adaptive_filter", "adaptive_smoother"),
    "attention": ("isotropic_attention", "tensor_attention"),
    "weights": ("IMQ", "Exponential", "Huber", "Power", "Rational", "StudentT", "Threshold"),
    "pulling": ("pull_forward",),
    "exponentials": (
        "AdaptiveFilterStream", "linear_time_filter", "separable_weights", "state_space_layer",
    ),
    "radial": ("RadialTangentialSDE", "radial_range", "simulate_radial"),
    "radial_filter": ("hypersphere_direction", "hypersphere_step", "radial_adaptive_filter"),
    "structured_noise": ("StructuredNoise", "structured_adaptive_filter"),
    "extensions": ("adaptive_forecast", "confidence_gate", "spectral_bank"),
    "score": ("Score", "score"),
    "compare": ("Comparison", "Shell", "compare"),
    "study": ("Scenario", "Study", "StudyResult"),
    "fit": ("FitResult", "FitWarning", "fit", "held_out_score", "likelihood_ratio"),
    "fit_afa": ("fit_afa",),
    "diagnostics": ("diagnose",),
}  # fmt: skip
_MODULES = ("catalog", "datasets", "families", "io", "plotting", "theory")
_OWNER = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_OWNER), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"afafilter.{name}")
    if name in _OWNER:
        value = getattr(importlib.import_module(f"afafilter.{_OWNER[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'afafilter' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `afafilter.score` the function when the submodule of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _OWNER and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
