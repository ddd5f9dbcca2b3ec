"""Models drawn at random, for tests and studies over many systems."""

from __future__ import annotations

import math

import numpy as np

from afafilter._base.checks import LARGEST_DIM, generator, positive_int, scalar
from afafilter.models.priors import PriorLike
from afafilter.models.sde import LinearSDE


def random_stable(
    dim: int,
    obs_dim: int | None = None,
    *,
    rng: np.random.Generator | int,
    slowest: float = 0.3,
    process_var: float = 1.0,
    obs_var: float = 1.0,
    prior: PriorLike = None,
) -> LinearSDE:
    """A random stable model with full A, Q, R and C, for tests and studies.

    A is a Gaussian matrix with eigenvalues in a disc of radius about 1, shifted so that the slowest
    mode decays at `slowest`. Q and R are Wishart-like with mean variances process_var and obs_var.

    Parameters
    ----------
    dim : int
        d >= 1.
    obs_dim : int, optional
        p >= 1; None: d observations through C = identity.
    rng : Generator or int
        Source of randomness: a Generator, or the seed of one.
    slowest : float
        > 0, 1/time.
    process_var : float
        >= 0, state^2/time.
    obs_var : float
        >= 0.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or rng is neither a Generator nor a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from afafilter import random_stable
    >>> bool((np.linalg.eigvals(random_stable(4, rng=0).A).real < 0).all())
    True
    """
    rng = generator(rng)
    d = positive_int(dim, "dim", high=LARGEST_DIM)
    p = d if obs_dim is None else positive_int(obs_dim, "obs_dim", high=LARGEST_DIM)
    rate = scalar(slowest, "slowest", low=0.0, strict=True)
    q, r = scalar(process_var, "process_var", low=0.0), scalar(obs_var, "obs_var", low=0.0)
    A = rng.standard_normal((d, d)) / math.sqrt(d)
    A -= (np.linalg.eigvals(A).real.max() + rate) * np.eye(d)
    B = rng.standard_normal((d, d))
    E = rng.standard_normal((p, p))
    C = None if obs_dim is None else rng.standard_normal((p, d))
    noise = 0.5 * r * (E @ E.T / p + np.eye(p))
    return LinearSDE(A, Q=q * B @ B.T / d, R=noise, C=C, prior=prior)
