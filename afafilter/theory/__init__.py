"""What a linear estimator really does: its weights on the data, and its exact error law.

Every non-robust estimator here is an affine map of the observations,
xhat_i = c_i + sum_j W_ij z_j. Its weights follow from unit impulses, and the covariance of its
error under the true model follows from the weights without simulation.
"""

from __future__ import annotations

from afafilter.adaptive.linear_map import LinearMap, linear_map
from afafilter.adaptive.record_length import critical_length, length_error
from afafilter.theory.laws import (
    TUNABLE,
    ErrorCovariance,
    TunedAFA,
    calibrated,
    efficiency,
    equivalent_weights,
    error_covariance,
    isotropic_mse,
    tune,
)

__all__ = [
    "TUNABLE",
    "ErrorCovariance",
    "LinearMap",
    "TunedAFA",
    "calibrated",
    "critical_length",
    "efficiency",
    "equivalent_weights",
    "error_covariance",
    "isotropic_mse",
    "length_error",
    "linear_map",
    "tune",
]
