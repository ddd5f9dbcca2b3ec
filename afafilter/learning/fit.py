"""Learning a model from data: maximum likelihood, EM, robust fits.

    result = fit(families.brownian() + families.noise(), t, z)
    result.params, result.interval(), result.model

The likelihood and its gradient are exact (see `afafilter.likelihood`); nothing is differentiated by
finite differences but the gradient itself, once, for the observed information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    choice,
    generator,
    given,
    observations,
    positive_int,
    scalar,
)
from afafilter._base.containers import takes_tables
from afafilter._base.progress import waiting
from afafilter.learning.constraints import Constraints
from afafilter.learning.family import Family
from afafilter.learning.family_text import model_or_family
from afafilter.learning.inputs import InputParameters, first_effect, regressors
from afafilter.learning.optimise_each import Stopping
from afafilter.learning.parameters.base import Parametrisation
from afafilter.learning.parameters.parametrisation import parametrisation
from afafilter.learning.problem import Problem
from afafilter.learning.result import FitResult
from afafilter.learning.solve import solve
from afafilter.learning.student_t import StudentParameters
from afafilter.likelihood.data import Data, prepare
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

METHODS = ("ml", "em", "student_t")
START_DOF = 4.0


@takes_tables
def fit(
    model: LinearSDE | DiscreteModel | Family | str,
    t: ArrayLike | None = None,
    z: ArrayLike | None = None,
    *,
    free: Sequence[str] | Mapping[str, ArrayLike | None] | None = None,
    method: str = "ml",
    starts: int = 1,
    rng: np.random.Generator | int | None = None,
    obs_cov: ArrayLike | None = None,
    inputs: Any = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    priors: Mapping[str, Any] | None = None,
    stable: bool | None = None,
    dof: float | None = None,
    max_iter: int = 500,
    tolerance: float = 1e-6,
) -> FitResult:
    """Fit a model to data.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or Family or str
        A `LinearSDE` or `DiscreteModel` to start from, or a `Family` of models
        (see `afafilter.families`), also in words, such as "brownian + noise", whose starting
        values are guessed unless given.
    t : array_like, shape (T,), optional
        Non-decreasing times. A `DiscreteModel` may leave them out.
    z : array_like, shape (..., T, p), optional
        Observations, NaN = missing, booleans 0 and 1; leading axes are independent paths.
    free : sequence of str or mapping, optional
        What may move. Of a family: parameter names. Of a `LinearSDE`: any of "A", "Q", "R",
        "C", "drift", "offset", "prior mean", "prior cov"; of a `DiscreteModel` "F", "Q", "H", "R",
        "b", "d". A mapping name -> mask frees single entries (of Q, R, prior cov: components).
        None: all of a family; A, Q, R and drift (F, Q, R and b) of a model. C and offset move
        only when named, since they merely change coordinates that A, Q and drift can change too.
    method : str
        "ml" maximum likelihood; "em" expectation-maximisation (same optimum, slower, monotone;
        cannot leave Q = 0); "student_t" heavy-tailed measurement noise (variational).
    starts, rng
        Number of starting points; those after the first are drawn around it by `rng`, a
        generator or the seed of one.
    obs_cov : array_like, shape (T, p, p), optional
        Measurement covariances in place of R.
    inputs : array_like, shape (T, m), or mapping, DataFrame or Forcing, optional
        Regressors u of the observations, z = C x + offset + D u + v, whose coefficients D are
        fitted and named as the columns are ("input" without names). The fitted model has them as
        `forcing`. A `Forcing` without matrices may hold values beyond the data, for forecasts.
        Inputs with known matrices are part of the model (`LinearSDE(forcing=...)`), where "input"
        and "direct" name them in `free`.
    bounds : mapping, optional
        Name -> (low, high) of parameters, None = open.
    priors : mapping, optional
        Name -> density of the parameter with `logpdf`: `families.LogNormal`, `families.Normal` or
        one of scipy.stats. The fit is then the mode of likelihood times densities.
    stable : bool, optional
        Keep A stable by its parametrisation. None: where the prior is stationary and the
        whole of A is free.
    dof : float, optional
        Degrees of freedom for "student_t"; None: estimated.
    max_iter : int
        Limit of iterations of every start.
    tolerance : float
        Converged when the log-likelihood can still rise by no more than this (estimated
        by half the squared Newton decrement).

    Returns
    -------
    FitResult

    Raises
    ------
    ValueError, TypeError
        Bad arguments, inputs with holes; no observations, fewer than parameters, or all equal; a
        start outside the domain, or where the likelihood does not exist.

    Warns
    -----
    FitWarning
        Not converged, parameters that the data do not determine, data far off the mean of a
        stationary model: a constant is missing.

    Notes
    -----
    Gradient: the disturbance-smoother score carried through the exact discretisation, O(T d^3) per
    evaluation like the filter itself; right for Q = 0 and repeated times. A free covariance that is
    singular at the start is first made definite by a small share of each component's variance:
    by its Cholesky factor it could not leave 0. A free R a hundred times the data's variance starts
    at a tenth of it. Units of components change nothing. Durbin & Koopman (2012), ch. 7.

    Examples
    --------
    >>> from afafilter import datasets, families, fit
    >>> nile = datasets.load_nile()
    >>> found = fit(families.brownian() + families.noise(), nile.t, nile.z)
    >>> round(found.loglik, 1)
    -633.5
    """
    choice(method, "method", METHODS)
    max_iter = positive_int(max_iter, "max_iter")
    tolerance = scalar(tolerance, "tolerance", low=0.0, strict=True)
    starts = positive_int(starts, "starts")
    drawn = generator(rng) if starts > 1 or rng is not None else None
    if starts == 1 and rng is not None:
        raise ValueError("rng would change nothing with starts=1: it draws the further ones")
    model = model_or_family(model, t)
    if stable is not None and isinstance(model, Family):
        raise ValueError(f"stable={stable} would change nothing of a family: it is for a LinearSDE")
    if dof is not None:
        if method != "student_t":
            raise ValueError("dof is for method='student_t'")
        dof = scalar(dof, "dof", low=0.0, strict=True)
    if method == "em" and (inputs is not None or getattr(model, "forcing", None) is not None):
        raise ValueError("method 'em' takes no inputs: use 'ml'")
    data = prepare(t, given(z), model.obs_dim, obs_cov)
    values = observations(z, len(data.t), model.obs_dim)
    refuse_degenerate(values, data)
    par = _parameters(model, data, values, inputs, free=free, stable=stable)
    if method == "student_t" and dof is None:
        par = StudentParameters(par, START_DOF)
    constraints = None
    if bounds or priors:
        if method == "em" or (priors and method != "ml"):
            raise ValueError("bounds are for methods 'ml' and 'student_t', priors for 'ml'")
        constraints = Constraints(par, bounds or {}, priors or {})
    problem = Problem(par, data, values, Stopping(max_iter, tolerance), method, dof, constraints)
    n = len(par.names)
    if data.n_obs <= n + model.dim * data.n_paths:
        refuse_few(data, n, _flat_count(par.system(par.start())))
    with waiting(f"fitting {n} parameters to {data.n_obs} values"):
        return solve(problem, par.starts(), starts, drawn)


def _parameters(model: Any, data: Data, z: Array, inputs: Any, **options: Any) -> Parametrisation:
    """What moves: the model's parameters, and the regressors' coefficients."""
    options["obs_cov"] = data.obs_cov is not None
    if inputs is None:
        return parametrisation(model, data.t, z, **options)
    if isinstance(model, DiscreteModel) or getattr(model, "forcing", None) is not None:
        raise ValueError(
            "inputs need a LinearSDE or a family without forcing of its own; a DiscreteModel "
            "takes what is known as b and d, (T, n) and (T, p) by time_varying"
        )
    forcing = regressors(inputs, data.t)
    effect = first_effect(forcing, data.t, z)
    par = parametrisation(model, data.t, z - forcing.values(data.t) @ effect.T, **options)
    sizes = np.ma.masked_invalid(z.reshape(-1, z.shape[-1])).std(axis=0).filled(0.0)
    return InputParameters(par, forcing, effect, np.where(sizes > 0, sizes, 1.0))


def refuse_few(data: Data, n: int, flat: int) -> None:
    """ValueError if there are no more values than n parameters and flat directions."""
    if data.n_obs <= n + flat * data.n_paths:
        raise ValueError(
            f"too few data: {data.n_obs} observed values for {n} parameters"
            + (f" and {flat * data.n_paths} diffuse start components" if flat else "")
        )


def refuse_degenerate(z: Array, data: Data) -> None:
    """ValueError if nothing is observed, or a component never changes."""
    if data.n_obs == 0:
        raise ValueError("z holds no observation: every value is missing")
    for c, column in enumerate(z.reshape(-1, z.shape[-1]).T):
        observed = column[~np.isnan(column)]
        if len(observed) > 1 and (observed == observed[0]).all():
            raise ValueError(
                f"component {c} of z is constant ({observed[0]:g}): the likelihood has no maximum"
            )


def _flat_count(system: Any) -> int:
    prior = system.prior
    if isinstance(prior, str):
        d = (system.A if hasattr(system, "A") else system.F).shape[-1]
        return int(d) if prior == "diffuse" else 0
    return int(prior.flat.shape[1])
