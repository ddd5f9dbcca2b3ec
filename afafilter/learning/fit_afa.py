"""Learning by AFA's own objective: the error of predictions made from AFA estimates.

As the paper does it inside a network, here for the estimator alone: everything that shapes the AFA
estimate (dynamics, noises, scale nu of the robust weight, inverse temperature beta) is moved until
predictions h observations ahead are best. Process noise makes the learned kernel too sharp.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, observations, positive_int, scalar, times
from afafilter._base.containers import takes_tables
from afafilter._base.shown import ShownByFields
from afafilter._base.signatures import refuse_idle
from afafilter.learning.family import Family
from afafilter.learning.parameters.base import Parametrisation
from afafilter.learning.parameters.parametrisation import parametrisation
from afafilter.linalg import discretiser
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

if TYPE_CHECKING:
    from afafilter.weights import Weight

LOSSES = ("squared", "absolute")
SETTINGS = ("anchor_var", "inverse_temperature")
BETA_RANGE = (0.1, 8.0)
"""Beyond 8 the closed-form error of the reference case improves by less than its third digit."""
ANCHOR_RANGE = (1e-4, 1e2)
"""gamma^2 in units of the mean measurement variance; its best value is often 0."""
NU_RANGE = (1e-2, 1e3)


@dataclass(frozen=True, repr=False)
class AFAFit(ShownByFields):
    """What was learned: a model and the settings of the adaptive filter that go with it.

    Attributes
    ----------
    model : LinearSDE
        The learned `LinearSDE`.
    settings : mapping
        Keyword arguments for `adaptive_filter` (weight, anchor, inverse_temperature...).
    params : dict
        Name -> value of everything that moved.
    loss, start_loss : float
        Mean prediction error at the end and at the start.
    horizon, kind
        Steps ahead, and "squared" or "absolute".
    converged, message
        Whether the optimiser finished.
    n_evals : int
        Evaluations of the filter.
    at_bound : tuple of str
        Names that ended at a bound of the search.
    """

    model: LinearSDE
    settings: Mapping[str, Any]
    params: dict[str, float]
    loss: float
    start_loss: float
    horizon: int
    kind: str
    converged: bool
    message: str
    n_evals: int
    at_bound: tuple[str, ...] = field(default=())

    def estimate(self, t: ArrayLike, z: ArrayLike) -> Estimate:
        """AFA estimates with everything as learned."""
        from afafilter.adaptive.estimators import adaptive_filter

        return adaptive_filter(self.model, t, z, **self.settings).relabel("AFA learned")


def prediction_error(
    model: LinearSDE,
    estimate: Estimate,
    z: ArrayLike,
    *,
    horizon: int = 1,
    loss: str = "squared",
    start: int = 0,
) -> float:
    """Mean error of predicting z[k + horizon] from the causal estimate at k.

    Parameters
    ----------
    model : LinearSDE
        Carries the estimate forward and observes it.
    estimate : Estimate
        Causal estimates on the grid of the data (any estimator's).
    z : array_like, shape (..., T, p)
        Data, NaN = missing.
    horizon : int
        Observations ahead, >= 1.
    loss : str
        "squared" (mean over components of the squared error) or "absolute" (mean Euclidean
        length over times: robust where the data themselves hold outliers).
    start : int
        First time index to predict from.

    Returns
    -------
    float
        Undetermined estimates and missing data are left out.

    Raises
    ------
    ValueError
        If nothing can be predicted.
    """
    choice(loss, "loss", LOSSES)
    horizon = positive_int(horizon, "horizon")
    values = observations(z, len(estimate.t), model.obs_dim)
    if horizon + start >= len(estimate.t):
        raise ValueError(f"horizon and start leave no time to predict among {len(estimate.t)}")
    error = _errors(model, estimate.mean, estimate.t, values, horizon)[..., start:, :]
    return _mean(error, loss)


def _errors(model: LinearSDE, mean: Array, t: Array, z: Array, horizon: int) -> Array:
    """Prediction errors (..., T - horizon, p)."""
    Phi, psi, _ = discretiser.transition(model.A, model.Q, model.drift, t[horizon:] - t[:-horizon])
    ahead = np.einsum("tij,...tj->...ti", Phi, mean[..., :-horizon, :]) + psi
    return np.asarray(z[..., horizon:, :] - ahead @ model.C.T - model.offset)


def _mean(error: Array, loss: str) -> float:
    observed = ~np.isnan(error)
    if not observed.any():
        raise ValueError("no observation can be predicted: all missing or undetermined")
    squares = np.where(observed, error, 0.0) ** 2
    if loss == "squared":
        return float(squares.sum() / observed.sum())
    return float(np.sqrt(squares.sum(axis=-1)).sum() / observed.any(axis=-1).sum())


@takes_tables
def fit_afa(
    model: LinearSDE | Family,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    free: Sequence[str] | Mapping[str, ArrayLike | None] | None = None,
    settings: Sequence[str] | None = None,
    weight: Callable[[float], Weight] | None = None,
    nu: float = 10.0,
    anchor: str = "observation",
    iterations: int = 1,
    horizon: int = 1,
    loss: str = "squared",
    max_iter: int = 60,
    tolerance: float = 1e-6,
) -> AFAFit:
    """Learn dynamics and filter settings by the prediction error of AFA estimates.

    Parameters
    ----------
    model : LinearSDE or Family
        Start: a `LinearSDE`, or a `Family` (starting values guessed from the data).
    t, z
        As for `adaptive_filter`; z (..., T, p), NaN = missing.
    free : sequence of str or mapping, optional
        Parameters of the model that move, as for `fit`. None: all of a family but obs_var;
        A, Q and drift of a model; empty: only the settings. One noise level stays because
        predictions depend on ratios only.
    settings : sequence of str, optional
        Of "anchor_var" (gamma^2 of anchor_cov = gamma^2 I; needs an invertible C) and
        "inverse_temperature", those that are learned. None: both where they apply.
    weight : callable, optional
        One-parameter robust weight, e.g. `Exponential` or `lambda nu: Power(nu, 1.5)`; its
        nu is learned, starting from `nu`. None: plain AFA.
    anchor, iterations
        Of the robust weight, see `adaptive_filter`.
    horizon : int
        Predict this many observations ahead.
    loss : str
        "squared" or "absolute", see `prediction_error`.
    max_iter, tolerance
        Of L-BFGS-B; it stops when the loss falls by less than this fraction.

    Returns
    -------
    AFAFit

    Raises
    ------
    ValueError, TypeError
        Bad arguments; a model with delay; nothing to learn; nothing to predict.

    Warns
    -----
    FitWarning
        If the optimiser did not finish.

    Notes
    -----
    Gradients by forward differences: each iteration runs the filter once per parameter. The search
    is bounded: 0.1 <= beta <= 8, gamma^2 within 1e-4 to 100 times the mean measurement variance,
    nu within 0.01 to 1000. arXiv:2509.04154, sec. 5.

    Examples
    --------
    >>> from afafilter import fit_afa, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(20)], rng=0)
    >>> fit_afa(spiral(), data.t, data.z, free=["Q"]).model.dim
    2
    """
    from scipy.optimize import Bounds, minimize

    from afafilter.learning.problem import FitWarning

    grid = times(t)
    choice(loss, "loss", LOSSES)
    horizon = positive_int(horizon, "horizon")
    max_iter = positive_int(max_iter, "max_iter")
    tolerance = scalar(tolerance, "tolerance", low=0.0, strict=True)
    if not isinstance(model, (LinearSDE, Family)):
        raise TypeError(f"model must be a LinearSDE or a Family, got {model!r}")
    if isinstance(model, LinearSDE) and model.delay > 0:
        raise ValueError("fit_afa needs a model without delay; subtract it from the times")
    of_weight = {"nu": (nu, 10.0), "anchor": (anchor, "observation")}
    refuse_idle(weight, of_weight | {"iterations": (iterations, 1)})
    values = observations(z, len(grid), model.obs_dim)
    if len(grid) <= horizon:
        raise ValueError(f"horizon must be below the number of times {len(grid)}, got {horizon}")
    par, base = _parameters(model, grid, values, free)
    noise = float(np.trace(base.R)) / base.obs_dim
    extras = _extras(settings, base, weight, noise, nu)
    space = _SearchSpace(par, base, extras, weight, {"anchor": anchor, "iterations": iterations})

    def errors(x: Array) -> Array:
        return _errors(space.model(x), space.run(x, grid, values), grid, values, horizon)

    first = errors(space.start)
    observed = np.isfinite(first)
    start_loss = _mean(np.where(observed, first, np.nan), loss)

    def objective(x: Array) -> float:
        try:
            error = np.where(observed, errors(x), np.nan)
        except (np.linalg.LinAlgError, ValueError):
            return 1e6 * start_loss
        return _mean(error, loss) if np.isfinite(error[observed]).all() else 1e6 * start_loss

    scale = start_loss or 1.0
    found = minimize(
        lambda u: objective(u * space.typical) / scale,
        space.start / space.typical,
        method="L-BFGS-B",
        bounds=Bounds(space.lower / space.typical, space.upper / space.typical),
        options={"maxiter": max_iter, "ftol": tolerance, "eps": 1e-6},
    )
    x = np.clip(found.x * space.typical, space.lower, space.upper)
    if not found.success:
        warnings.warn(f"fit_afa did not converge: {found.message}", FitWarning, stacklevel=2)
    near = np.minimum(x - space.lower, space.upper - x) < 1e-3 * space.typical
    return AFAFit(
        model=space.model(x),
        settings=space.settings(x),
        params=space.params(x),
        loss=objective(x),
        start_loss=start_loss,
        horizon=horizon,
        kind=loss,
        converged=bool(found.success),
        message=str(found.message),
        n_evals=int(found.nfev),
        at_bound=tuple(name for name, edge in zip(space.params(x), near, strict=True) if edge),
    )


def _parameters(
    model: LinearSDE | Family, t: Array, z: Array, free: Any
) -> tuple[Parametrisation | None, LinearSDE]:
    """What moves of the model, if anything, and the model to start from."""
    if free is None:
        free = ["A", "Q", "drift"]
        if isinstance(model, Family):
            free = [name for name in model.free if name != "obs_var"]
    if not len(free):
        return None, model.model(model.guess(t, z)) if isinstance(model, Family) else model
    par = parametrisation(model, t, z, free)
    start = par.model(par.start())
    assert isinstance(start, LinearSDE)
    return par, start


def _extras(
    settings: Sequence[str] | None, base: LinearSDE, weight: Any, noise: float, nu: float
) -> dict[str, tuple[float, float, float]]:
    """Learned settings: name -> (start, lower, upper), all positive."""
    from afafilter.adaptive.forms import is_invertible

    invertible = is_invertible(base)
    if settings is None:
        settings = SETTINGS if invertible else ("inverse_temperature",)
    out = {}
    for name in settings:
        choice(name, "settings", SETTINGS)
        if name == "anchor_var":
            if not invertible:
                raise ValueError("anchor_var needs a model with an invertible C")
            out[name] = (0.1 * noise, ANCHOR_RANGE[0] * noise, ANCHOR_RANGE[1] * noise)
        else:
            out[name] = (1.0, *BETA_RANGE)
    if weight is not None:
        nu = scalar(nu, "nu", low=0.0, strict=True)
        out["nu"] = (float(np.clip(nu, *NU_RANGE)), *NU_RANGE)
    return out


class _SearchSpace:
    """The vector that is optimised: theta of the model, then logarithms of the settings."""

    def __init__(
        self,
        par: Parametrisation | None,
        base: LinearSDE,
        extras: dict[str, tuple[float, float, float]],
        weight: Callable[[float], Weight] | None,
        fixed: dict[str, Any],
    ) -> None:
        self._par, self._base, self._names = par, base, list(extras)
        self._weight, self._fixed = weight, fixed
        none = np.zeros(0)
        theta, typical = (none, none) if par is None else (par.start(), par.typical)
        self._size = len(theta)
        lower, upper = (none, none) if par is None else par.bounds(theta)
        first, low, high = np.log(np.array(list(extras.values())).reshape(-1, 3)).T
        self.start = np.append(theta, first)
        self.lower, self.upper = np.append(lower, low), np.append(upper, high)
        self.typical = np.append(typical, np.ones(len(extras)))

    def model(self, x: Array) -> LinearSDE:
        model = self._base if self._par is None else self._par.model(x[: self._size])
        assert isinstance(model, LinearSDE)
        return model

    def params(self, x: Array) -> dict[str, float]:
        names = () if self._par is None else self._par.names
        natural = x[:0] if self._par is None else self._par.natural(x[: self._size])
        values = np.append(natural, np.exp(x[self._size :])).tolist()
        return dict(zip([*names, *self._names], values, strict=True))

    def settings(self, x: Array) -> dict[str, Any]:
        learned = dict(zip(self._names, np.exp(x[self._size :]).tolist(), strict=True))
        out: dict[str, Any] = {}
        if "inverse_temperature" in learned:
            out["inverse_temperature"] = learned["inverse_temperature"]
        if "anchor_var" in learned:
            out["anchor_cov"] = learned["anchor_var"] * np.eye(self._base.obs_dim)
        if self._weight is not None:
            out.update(weight=self._weight(learned["nu"]), **self._fixed)
        return out

    def run(self, x: Array, t: Array, z: Array) -> Array:
        """AFA means (..., T, d)."""
        from afafilter.adaptive.estimators import adaptive_filter

        return adaptive_filter(self.model(x), t, z, **self.settings(x)).mean
