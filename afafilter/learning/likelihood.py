"""The log-likelihood and its gradient, for those with an optimiser or a sampler of their own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, given
from afafilter._base.containers import takes_tables
from afafilter.learning.family import Family
from afafilter.learning.family_text import model_or_family
from afafilter.learning.parameters.parametrisation import FamilyParameters
from afafilter.likelihood.chain import DiscreteSystem, PriorArrays, System, arrays_of
from afafilter.likelihood.data import Data, prepare
from afafilter.likelihood.loglik import evaluate
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


@takes_tables
def loglik(
    model: LinearSDE | DiscreteModel | Family | str,
    t: ArrayLike | None = None,
    z: ArrayLike | None = None,
    *,
    params: Mapping[str, float] | None = None,
    obs_cov: ArrayLike | None = None,
    gradient: bool = False,
) -> float | tuple[float, dict[str, Array | float]]:
    """Log-likelihood of a model, and its exact gradient by named parameter.

    Parameters
    ----------
    model : LinearSDE or DiscreteModel or Family or str
        A `LinearSDE` or `DiscreteModel`, or a `Family` (in words, "brownian + noise", too)
        at the parameter values `params`.
    t : array_like, shape (T,), optional
        Non-decreasing times. A `DiscreteModel` may leave them out.
    z : array_like, shape (..., T, p), optional
        Observations, NaN = missing, booleans 0 and 1; leading axes are independent paths, which
        add up.
    params : mapping, optional
        Name -> value of the free parameters of a family (others: its `start`).
    obs_cov : array_like, shape (T, p, p), optional
        Measurement covariances in place of R.
    gradient : bool
        Whether the gradient is wanted too.

    Returns
    -------
    float, or (float, dict)
        The log-likelihood, 2 pi counted for every observed component, flat starts exact: that of
        `kalman_filter`. With `gradient` also name -> derivative: of a family by each free
        parameter; of a model by each array, of that array's shape: A, Q, drift, C, offset, R (F, Q,
        b, H, d, R), input and direct where it has forcing, prior mean and prior cov where it has a
        `Prior`. Derivatives by covariances are symmetric: the change for a symmetric change E of Q
        is sum(G * E).

    Raises
    ------
    ValueError
        Bad arguments, or a likelihood that does not exist: an observation that the model predicts
        without error.
    TypeError
        If `model` is none of these, or `params` are given for a model.

    Notes
    -----
    Disturbance-smoother score (Koopman & Shephard, 1992; Durbin & Koopman, 2012, sec. 7.3) carried
    through the exact discretisation, at about three times the cost of the filter.

    Examples
    --------
    A Langevin or Hamiltonian sampler, or any optimiser, takes the pair as it is:

    >>> import numpy as np
    >>> from afafilter import families, loglik
    >>> family = families.brownian() + families.noise()
    >>> z = np.array([1.0, 1.4, 0.7, 1.1])
    >>> value, slope = loglik(
    ...     family, np.arange(4.0), z, params={"process_var": 0.1, "obs_var": 0.2}, gradient=True
    ... )
    >>> sorted(slope)
    ['obs_var', 'process_var']
    """
    model = model_or_family(model, t)
    if params is not None and not isinstance(model, Family):
        raise TypeError("params are the values of a Family; a model has its own")
    data = prepare(t, given(z), model.obs_dim, obs_cov)
    try:
        if isinstance(model, Family):
            return _of_family(model, params or {}, data, gradient)
        system: System | DiscreteSystem
        law = None
        if isinstance(model, LinearSDE):
            system = System.of(model)
            if model.prior == "stationary":
                law = model.initial_law(float(data.t[0]))
        else:
            system = DiscreteSystem.of(model)
            if model.prior == "stationary":
                law = model.initial_law()
        value, grad = evaluate(system, data, gradient=gradient, warn=True, law=law)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the likelihood does not exist: {error}") from None
    if not gradient:
        return value
    slopes: dict[str, Array | float] = {
        name: np.array(getattr(grad, name))
        for name in arrays_of(system)
        if not (name == "R" and obs_cov is not None)
    }
    if isinstance(grad, System) and grad.gain is not None and grad.direct is not None:
        slopes["input"], slopes["direct"] = np.array(grad.gain), np.array(grad.direct)
    if isinstance(grad.prior, PriorArrays):
        slopes["prior mean"] = np.array(grad.prior.mean)
        slopes["prior cov"] = np.array(grad.prior.cov)
    return value, slopes


def _of_family(
    family: Family, params: Mapping[str, float], data: Data, gradient: bool
) -> float | tuple[float, dict[str, Array | float]]:
    values = family.at_values(params)
    ones = dict.fromkeys(family.free, 1.0)
    par = FamilyParameters(family, ones, np.ones(family.obs_dim))
    theta = par.theta(values)
    system = par.system(theta)
    value, grad = evaluate(system, data, gradient=gradient, warn=True)
    if not gradient:
        return value
    return value, dict(zip(par.names, par.by_naturals(theta, grad).tolist(), strict=True))
