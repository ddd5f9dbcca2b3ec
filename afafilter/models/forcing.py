"""Known inputs: a force that is known to act on the state, constant between the times it changes.

    dx = (A x + drift + M u(t)) dt + B dw,      u(t) = u_k for t_k <= t < t_{k+1}, 0 before t_0

The model is linear, so x = x_0 + x_u with x_0 the model without input and x_u certain:

    x_u(t) = int_{origin}^t e^{A (t - s)} M u(s) ds.

What is estimated from z is x_0, from the observations less C x_u; x_u is added to its mean. So
every estimator and every robust weight honours an input, and none of them knows of it. The origin,
where x_u = 0, is the time at which the prior holds; a stationary prior holds before the input
begins.
(Kalman and Bucy, New results in linear filtering and prediction theory, J. Basic Eng. 83, 1961.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, TypeVar, cast

import numpy as np

from afafilter._base.checks import Array, frozen, observations, real_array, times
from afafilter.linalg import discretiser
from afafilter.models.priors import Prior
from afafilter.results import Estimate

F = TypeVar("F", bound=Callable[..., Estimate])


@dataclass(frozen=True, eq=False)
class Forcing:
    """A known, piecewise constant input.

    Parameters
    ----------
    t : ndarray, shape (K,)
        Increasing times at which the input takes a new value.
    u : ndarray, shape (K, m)
        Values, u[k] from t[k] until t[k + 1], the last one for ever; 0 before t[0]. (K,) for
        one input.
    matrix : ndarray, shape (d, m), optional
        How the inputs drive the state, state/time per unit of input. None: m = d
        inputs, one for each component of the state.

    Raises
    ------
    ValueError, TypeError
        Times that do not increase, wrong shapes, not finite.
    """

    t: Array
    u: Array
    matrix: Array | None = None

    def __post_init__(self) -> None:
        grid = times(self.t, "forcing t")
        if (np.diff(grid) == 0).any():
            raise ValueError("forcing t must increase: two values at one time have no meaning")
        u = real_array(self.u, "forcing u")
        if u.ndim == 1:
            u = u[:, None]
        if u.ndim != 2 or len(u) != len(grid) or u.shape[1] == 0:
            raise ValueError(f"forcing u must have shape ({len(grid)}, m), got {u.shape}")
        if self.matrix is not None:
            M = real_array(self.matrix, "forcing matrix")
            if M.ndim != 2 or M.shape[1] != u.shape[1]:
                raise ValueError(f"forcing matrix must have shape (d, {u.shape[1]}), got {M.shape}")
            object.__setattr__(self, "matrix", frozen(M))
        object.__setattr__(self, "t", frozen(grid))
        object.__setattr__(self, "u", frozen(u))

    def __repr__(self) -> str:
        span = f"{self.t[0]:g} .. {self.t[-1]:g}"
        return f"Forcing({self.u.shape[1]} inputs, {len(self.t)} values, t {span})"

    def rates(self, dim: int) -> Array:
        """M u (K, d), state/time; ValueError if that does not suit `dim` components."""
        rows = self.u.shape[1] if self.matrix is None else len(self.matrix)
        if rows != dim:
            what = "u must have one column" if self.matrix is None else "matrix must have one row"
            raise ValueError(
                f"forcing {what} for each of the {dim} components of the state, got {rows}"
                + ("; give forcing matrix (d, m) for m inputs" if self.matrix is None else "")
            )
        return self.u if self.matrix is None else self.u @ self.matrix.T


def joined_input(
    first: Forcing | None, second: Forcing | None, dim: int, other_dim: int
) -> Forcing | None:
    """The input of two models side by side, with `dim` and `other_dim` states."""
    given = [forcing for forcing in (first, second) if forcing is not None]
    if not given:
        return None
    grid = np.unique(np.concatenate([forcing.t for forcing in given]))
    columns = []
    for forcing, d in ((first, dim), (second, other_dim)):
        rates = np.zeros((len(grid), d))
        if forcing is not None:
            values = np.vstack([np.zeros(d), forcing.rates(d)])
            rates = values[np.searchsorted(forcing.t, grid, side="right")]
        columns.append(rates)
    return Forcing(grid, np.hstack(columns))


def response(A: Array, forcing: Forcing, at: Array, origin: float) -> Array:
    """x_u (T, d) at the sorted times `at`, which may lie before the origin too.

    From one change of the input to the next x_u <- e^{A h} x_u + Gamma(h) M u, Gamma(h) =
    int_0^h e^{A s} ds, exactly; backwards from the origin the same is solved for the earlier x_u.
    """
    d = len(A)
    rates = np.vstack([np.zeros(d), forcing.rates(d)])
    nodes = np.unique(np.concatenate([at, [origin], forcing.t]))
    nodes = nodes[(nodes >= min(at[0], origin)) & (nodes <= max(at[-1], origin))]
    steps, which = np.unique(np.diff(nodes), return_inverse=True)
    acting = rates[np.searchsorted(forcing.t, nodes[:-1], side="right")]
    # exp([[A, I], [0, 0]] h) = [[e^{A h}, Gamma(h)], [0, I]]
    whole = np.zeros((2 * d, 2 * d))
    whole[:d, :d], whole[:d, d:] = A, np.eye(d)
    none = np.zeros((2 * d, 2 * d)), np.zeros(2 * d)
    both = discretiser.transition(whole, *none, steps)[0] if len(steps) else whole[None]
    Phi, Gamma = both[:, :d, :d], both[:, :d, d:]
    x = np.zeros((len(nodes), d))
    start = int(np.searchsorted(nodes, origin))
    for k in range(start, len(nodes) - 1):
        x[k + 1] = Phi[which[k]] @ x[k] + Gamma[which[k]] @ acting[k]
    for k in range(start - 1, -1, -1):
        x[k] = np.linalg.solve(Phi[which[k]], x[k + 1] - Gamma[which[k]] @ acting[k])
    return np.asarray(x[np.searchsorted(nodes, at)])


def origin(model: Any, first: float) -> float:
    """Where x_u = 0: the time of the prior, `first` being that of the first state observed."""
    if model.prior == "stationary":
        return float(model.forcing.t[0])
    held = isinstance(model.prior, Prior) and model.prior.t0 is not None
    return float(model.prior.t0) if held else first


def forced_states(model: Any, at: Array, first: float) -> Array:
    """x_u (T, d) of a model with input at the sorted times `at`."""
    start = origin(model, first)
    if model.prior == "stationary":  # no input, no response before it begins
        out = np.zeros((len(at), model.dim))
        later = at > start
        if later.any():
            out[later] = response(model.A, model.forcing, at[later], start)
        return out
    return response(model.A, model.forcing, at, start)


def honours_forcing(estimator: F) -> F:
    """Decorator of an estimator f(model, t, z, *, query_times): it needs to know no input."""

    @wraps(estimator)
    def forced(model: Any, t: Any, *args: Any, **options: Any) -> Estimate:
        if getattr(model, "forcing", None) is None:
            return estimator(model, t, *args, **options)
        z: Any = args[0] if args else options.pop("z", None)
        grid = times(t)
        if z is None:
            raise TypeError("z is missing: a model with a known input needs both t and z")
        data = observations(z, len(grid), model.obs_dim)
        shown = grid - model.delay
        known = forced_states(model, shown, float(shown[0]))
        free: Any = replace(model, forcing=None)
        found = estimator(free, grid, data - known @ model.C.T, *args[1:], **options)
        return _with(found, forced_states(model, found.t, float(shown[0])))

    return cast(F, forced)


def _with(found: Estimate, known: Array) -> Estimate:
    """The estimate of x_0 + x_u."""
    laws = tuple(law._replace(mean=law.mean + known[law.at]) for law in found.open_laws)
    source = found.source
    if source is not None and source.draw is not None:
        source = replace(source, draw=partial(_drawn, source.draw, known))
    return replace(found, mean=found.mean + known, open_laws=laws, source=source)


def _drawn(draw: Callable[..., Array], known: Array, n: int, rng: np.random.Generator) -> Array:
    return draw(n, rng) + known


def refuse_forcing(model: Any, what: str) -> None:
    """ValueError where a model has a known input that `what` would ignore."""
    if getattr(model, "forcing", None) is not None:
        raise ValueError(f"{what} takes no model with forcing; set forcing=None")
