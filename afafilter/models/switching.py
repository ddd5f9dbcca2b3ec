"""Linear Gaussian models whose matrices switch: a hidden Markov chain chooses among them.

    P(r_k = j | r_{k-1} = i) = p_ij          from one observation to the next, whatever the time
    x_k, z_k given x_{k-1}                   by model r_k

(Jump Markov linear systems; Bar-Shalom, Li & Kirubarajan, Estimation with Applications to Tracking
and Navigation, 2001, sec. 11.6.1.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, scalar, shaped
from afafilter._base.signatures import assign
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

TOLERANCE = 1e-9
"""Up to where probabilities that should sum to one may miss it."""


@dataclass(frozen=True, eq=False)
class SwitchingModel:
    """Models of one kind and size among which a hidden Markov chain chooses at every observation.

    Parameters
    ----------
    models : sequence of LinearSDE or of DiscreteModel
        M of them, of one kind and size; the prior is that of the first.
    switching : array_like
        (M, M) probability p_ij of going from mode i to mode j between one observation and the next;
        rows sum to one.
    initial : array_like, optional
        (M,) probabilities of the modes at the first observation. None: the stationary law of the
        chain.

    Raises
    ------
    ValueError, TypeError
        No model, models of different kind or size, with a delay or a known input; what are no
        probabilities.

    Examples
    --------
    A target that cruises or manoeuvres:

    >>> from afafilter import SwitchingModel, constant_velocity
    >>> calm, wild = (constant_velocity(process_var=q, obs_var=1.0) for q in (0.01, 10.0))
    >>> SwitchingModel([calm, wild], [[0.95, 0.05], [0.2, 0.8]]).initial.round(2).tolist()
    [0.8, 0.2]
    """

    models: tuple[LinearSDE, ...] | tuple[DiscreteModel, ...]
    switching: Array
    initial: Array = None  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(
            self,
            models: Sequence[LinearSDE] | Sequence[DiscreteModel],
            switching: ArrayLike,
            initial: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        models: tuple[LinearSDE | DiscreteModel, ...] = tuple(self.models)
        if not models:
            raise ValueError("models must hold at least one model, got none")
        first = models[0]
        kind = LinearSDE if isinstance(first, LinearSDE) else DiscreteModel
        for model in models:
            if not isinstance(model, kind):
                raise TypeError(
                    "models must all be LinearSDE or all DiscreteModel, got "
                    + ", ".join(type(m).__name__ for m in models)
                )
            if (model.dim, model.obs_dim) != (first.dim, first.obs_dim):
                raise ValueError(
                    f"models must have the same sizes, got {first.dim} states and {first.obs_dim} "
                    f"observed components, and {model.dim} and {model.obs_dim}"
                )
            if isinstance(model, LinearSDE) and (model.delay or model.forcing is not None):
                raise ValueError("models that switch must have delay=0 and forcing=None")
        M = len(models)
        P = _probabilities(self.switching, "switching", (M, M))
        law = _stationary(P) if self.initial is None else self.initial
        assign(self, models=models, switching=P, initial=_probabilities(law, "initial", (M,)))

    def __repr__(self) -> str:
        return f"SwitchingModel({len(self.models)} modes, dim={self.dim}, obs_dim={self.obs_dim})"

    @property
    def dim(self) -> int:
        """Number of state components d."""
        return self.models[0].dim

    @property
    def obs_dim(self) -> int:
        """Number of observed components p."""
        return self.models[0].obs_dim


def contaminated(
    model: LinearSDE | DiscreteModel,
    outlier_rate: float,
    outlier_scale: float,
    *,
    outlier_length: float | None = None,
) -> SwitchingModel:
    """The model with outliers: mode 0 has noise R, mode 1 has outlier_scale times that.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel
        Model with the ordinary noise.
    outlier_rate : float
        Share of outliers, in [0, 1).
    outlier_scale : float
        >= 1, their noise covariance in units of the ordinary one.
    outlier_length : float, optional
        >= 1, mean number of successive outliers. None: outliers are independent, so that runs of
        them are 1 / (1 - outlier_rate) long.

    Returns
    -------
    SwitchingModel
        Of two modes.

    Raises
    ------
    ValueError, TypeError
        A number out of range; outliers too long or too short for their rate.

    Examples
    --------
    >>> from afafilter import contaminated, spiral
    >>> contaminated(spiral(), 0.1, 100.0).switching.round(3).tolist()
    [[0.9, 0.1], [0.9, 0.1]]
    """
    rate = scalar(outlier_rate, "outlier_rate", low=0.0)
    scale = scalar(outlier_scale, "outlier_scale", low=1.0)
    if rate >= 1:
        raise ValueError(f"outlier_rate must be a probability below 1, got {rate:g}")
    leave, enter = 1.0 - rate, rate
    if outlier_length is not None:
        leave = 1.0 / scalar(outlier_length, "outlier_length", low=1.0)
        enter = rate / (1.0 - rate) * leave
        if enter > 1:
            raise ValueError(
                f"outlier_length must be at least rate / (1 - rate) = {rate / (1 - rate):g}, got "
                f"{outlier_length:g}"
            )
    pair: Any = [model, replace(model, R=scale * model.R)]
    return SwitchingModel(pair, [[1.0 - enter, enter], [leave, 1.0 - leave]], [1.0 - rate, rate])


def _stationary(P: Array) -> Array:
    """pi = pi P, sum 1; of several the one that a uniform start leads to."""
    M = len(P)
    # lim of the averages of P^k: (I + P) / 2 has the same stationary laws and no period.
    lazy = np.linalg.matrix_power(0.5 * (np.eye(M) + P), 1 << 40)
    law = lazy.mean(axis=0)
    return np.asarray(law / law.sum())


def _probabilities(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    p = shaped(value, name, shape)
    if (p < 0).any() or (np.abs(p.sum(axis=-1) - 1.0) > TOLERANCE).any():
        raise ValueError(f"{name} must hold probabilities >= 0 that sum to one, got {p.tolist()}")
    return p
