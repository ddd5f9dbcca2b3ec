"""Ready-made models. Each is a plain function that returns a `LinearSDE`."""

from __future__ import annotations

import numpy as np

from afafilter.models import LinearSDE


def spiral(
    decay: float = 0.1, frequency: float = 1.0, *, process_var: float = 0.3, obs_var: float = 0.5
) -> LinearSDE:
    """The paper's 2-D system: eigenvalues -decay +- i frequency, isotropic noises."""
    return LinearSDE.isotropic(decay, frequency, process_var=process_var, obs_var=obs_var)


def ornstein_uhlenbeck(
    rate: float = 1.0, *, process_var: float = 1.0, obs_var: float = 1.0
) -> LinearSDE:
    """dx = -rate x dt + sqrt(process_var) dw, observed directly."""
    return LinearSDE(np.array([[-rate]]), np.array([[process_var]]), np.array([[obs_var]]))
