"""What single observations say about the state at another time: pulled-forward estimates.

With tau = t_target - t_j, y_j = C^-1 (z_j - b) and Ry = C^-1 R C^-T,

    tau >= 0:  zhat_j = Phi(tau) y_j + psi(tau),      Cov = V(tau) + Phi Ry Phi^T
    tau < 0:   zhat_j = Phi(s)^-1 (y_j - psi(s)),     Cov = VB(s) + Phi^-1 Ry Phi^-T,   s = |tau|

in state space (P. Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, sec. 4, which
writes the same in the space of the observations). Averaged with the inverses of these covariances
they are plain AFA; `adaptive_filter` never forms them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, observation_covariances, observations, scalar, times
from afafilter._base.containers import takes_tables
from afafilter._base.patterns import require_whole_rows
from afafilter._base.signatures import told_type
from afafilter.adaptive.forms import is_invertible
from afafilter.linalg import discretiser
from afafilter.linalg.subspaces import rank_of
from afafilter.models.forcing import refuse_forcing
from afafilter.models.sde import LinearSDE


class Pulled(NamedTuple):
    """Estimates `mean` (..., N, d) of one state from N observations, and covariances (N, d, d)."""

    mean: Array
    cov: Array


@takes_tables
def pull_forward(
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike,
    target: float,
    *,
    obs_cov: ArrayLike | None = None,
) -> Pulled:
    """Estimates of x(target) from each observation alone, with their covariances.

    Observations before the target are propagated by e^{A tau} and gain process noise; later ones
    are pulled backward, which for a stable model magnifies value and noise by ``e^{mu |tau|}``.

    Parameters
    ----------
    model : LinearSDE
        C invertible; with a delay, observation j shows x(t_j - delay). Its prior is not used.
    t : array_like, shape (N,)
        Non-decreasing times of the observations.
    z : array_like, shape (..., N, d)
        Observations; a row wholly NaN is missing.
    target : float
        Time of the state wanted.
    obs_cov : array_like, shape (N, d, d), optional
        Noise covariances that replace R, or None.

    Returns
    -------
    Pulled
        mean (..., N, d), state; NaN for missing observations. cov (N, d, d), state^2, the same for
        all paths: that of an observation which is there.

    Raises
    ------
    ValueError, TypeError
        C not square or singular, a row missing in part, an observation so far from the target that
        its pulled value leaves the floating-point range, bad shapes or times.

    Notes
    -----
    O(N d^3) time, O(N d^2) memory. The errors of different observations share process noise: they
    are not independent (see `correlation` in `adaptive_filter`).

    Examples
    --------
    >>> from afafilter import ornstein_uhlenbeck, pull_forward
    >>> model = ornstein_uhlenbeck(rate=1.0, process_var=2.0, obs_var=0.5)
    >>> pulled = pull_forward(model, [0.0, 1.0, 2.0], [1.0, 1.0, 1.0], 1.0)
    >>> pulled.mean[:, 0].round(3), pulled.cov[:, 0, 0].round(3)
    (array([0.368, 1.   , 2.718]), array([ 0.932,  0.5  , 10.084]))
    """
    if not isinstance(model, LinearSDE):
        raise TypeError(f"model must be a LinearSDE, got {told_type(model)}")
    refuse_forcing(model, "pull_forward")
    grid = times(t)
    d = model.dim
    if not is_invertible(model):
        raise ValueError(
            f"C must be invertible, so that one observation determines the state, got shape "
            f"{model.C.shape} and rank {rank_of(model.C)}"
        )
    data = observations(z, len(grid), d)
    require_whole_rows(data, "NaN the whole row")
    R = observation_covariances(obs_cov, len(grid), d, model.R, data, definite=True)
    lag = scalar(target, "target") - (grid - model.delay)
    later = lag < 0
    Phi, psi, V = np.empty((len(grid), d, d)), np.empty((len(grid), d)), np.empty((len(grid), d, d))
    for side, sign in ((~later, 1.0), (later, -1.0)):
        if side.any():
            try:
                Phi[side], psi[side], V[side] = discretiser.transition(
                    sign * model.A, model.Q, sign * model.drift, np.abs(lag[side])
                )
            except ValueError:
                raise ValueError(
                    f"an observation lies too far from target = {float(target):g} (lags up to "
                    f"{np.abs(lag[side]).max():g}): its pulled value exceeds the floating-point "
                    "range; leave it out, or use adaptive_smoother, which weights it without "
                    "forming it"
                ) from None
    y = np.linalg.solve(model.C, (data - model.offset)[..., None])[..., 0]
    back = np.linalg.solve(model.C, np.broadcast_to(np.eye(d), R.shape))
    M = Phi @ back
    cov = V + M @ R @ np.swapaxes(M, -1, -2)
    mean = np.einsum("jab,...jb->...ja", Phi, y) + psi
    return Pulled(mean, 0.5 * (cov + np.swapaxes(cov, -1, -2)))
