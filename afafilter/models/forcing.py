"""Known inputs: a force that is known to act on the state, constant between the times it changes.

    dx = (A x + drift + M u(t)) dt + B dw,      u(t) = u_k for t_k <= t < t_{k+1}, 0 before t_0
    z  = C x + offset + D u(t) + v

D, `direct`, is what regressors of the observations have. The model is linear, so x = x_0 + x_u with
x_0 the model without input and x_u certain:

    x_u(t) = int_{origin}^t e^{A (t - s)} M u(s) ds.

What is estimated from z is x_0, from the observations less C x_u + D u; x_u is added to its mean.
So every estimator and every robust weight honours an input, and none of them knows of it. The
origin, where x_u = 0, is the time at which the prior holds; a stationary prior holds before the
input begins.
(Kalman and Bucy, New results in linear filtering and prediction theory, J. Basic Eng. 83, 1961.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial, wraps
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, observations, real_array, times
from afafilter._base.labels import refuse_other_times
from afafilter._base.signatures import assign
from afafilter._base.steps import distinct_steps, on_stamps
from afafilter.linalg import discretiser
from afafilter.linalg.integrals import augmented
from afafilter.models.priors import Prior, prior_time
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
        M: how the inputs drive the state, state/time per unit of input. None: m = d inputs, one
        for each component of the state; with `direct`, none drives it.
    direct : ndarray, shape (p, m), optional
        D: what the inputs add to the observations, per unit of input. None: nothing.
    names : sequence of str
        What the inputs are called, so that a file knows which columns they are; () = not said.
    start : datetime64 (or ISO text) or int, optional
        The stamp that t counts from, in the model's unit of time, where data come with dates or
        whole numbers beyond 2^53. None: from the first stamp of whatever data.

    Raises
    ------
    ValueError, TypeError
        Times that do not increase, wrong shapes, not finite.

    Notes
    -----
    A model from a file may know its inputs by name only, without values (t of shape (0,)): give
    them by `at`.
    """

    t: Array
    u: Array
    matrix: Array | None = None
    direct: Array | None = None
    names: tuple[str, ...] = ()
    start: Any = None

    def __post_init__(self) -> None:
        given: Any = self.names
        names = (given,) if isinstance(given, str) else tuple(map(str, given))
        refuse_other_times(self.u, self.t, self.u, "forcing u")
        u = real_array(_named(self.u, names), "forcing u", booleans=True)
        if u.ndim == 1:
            u = u[:, None]
        grid = np.zeros(0) if u.ndim == 2 and len(u) == 0 else times(self.t, "forcing t")
        if (np.diff(grid) == 0).any():
            raise ValueError("forcing t must increase: two values at one time have no meaning")
        if u.ndim != 2 or len(u) != len(grid) or u.shape[1] == 0:
            raise ValueError(f"forcing u must have shape ({len(grid)}, m), got {u.shape}")
        for name, rows in (("matrix", "d"), ("direct", "p")):
            value = getattr(self, name)
            if value is not None:
                M = real_array(value, f"forcing {name}")
                if M.ndim != 2 or M.shape[1] != u.shape[1]:
                    raise ValueError(
                        f"forcing {name} must have shape ({rows}, {u.shape[1]}), got {M.shape}"
                    )
                assign(self, **{name: M})
        if names and len(names) != u.shape[1]:
            raise ValueError(f"forcing names must name {u.shape[1]} inputs, got {names}")
        start = np.datetime64(self.start) if isinstance(self.start, (str, date)) else self.start
        assign(self, t=grid, u=u, names=names, start=start)

    def __repr__(self) -> str:
        span = f"t {self.t[0]:g} .. {self.t[-1]:g}" if len(self.t) else "no values yet"
        return f"Forcing({self.u.shape[1]} inputs, {len(self.t)} values, {span})"

    def at(self, t: ArrayLike, u: ArrayLike) -> Forcing:
        """The same inputs with these values: t (K,), u (K, m)."""
        return replace(self, t=cast(Array, t), u=cast(Array, u), start=None)

    def check(self, dim: int, obs_dim: int) -> None:
        """ValueError if the matrices do not suit a model of `dim` states, `obs_dim` observed."""
        if self.direct is not None and len(self.direct) != obs_dim:
            raise ValueError(
                f"forcing direct must have one row for each of the {obs_dim} observed components, "
                f"got {len(self.direct)}"
            )
        driven = self.matrix is not None or self.direct is None
        rows = self.u.shape[1] if self.matrix is None else len(self.matrix)
        if driven and rows != dim:
            what = "u must have one column" if self.matrix is None else "matrix must have one row"
            raise ValueError(
                f"forcing {what} for each of the {dim} components of the state, got {rows}"
                + ("; give forcing matrix (d, m) for m inputs" if self.matrix is None else "")
            )

    def gain(self, dim: int) -> Array:
        """M (d, m)."""
        m = self.u.shape[1]
        if self.matrix is not None:
            return self.matrix
        return np.eye(dim, m) if self.direct is None else np.zeros((dim, m))

    def rates(self, dim: int) -> Array:
        """M u (K, d), state/time."""
        return np.asarray(self.u @ self.gain(dim).T)

    def values(self, t: Array) -> Array:
        """u (T, m) at these times.

        Raises
        ------
        ValueError
            If the inputs have no values yet.
        """
        if not len(self.t):
            what = f" ({', '.join(self.names)})" if self.names else ""
            raise ValueError(
                f"the model's inputs{what} have no values yet: replace(model, "
                "forcing=model.forcing.at(t, u)); in the command they are columns of the data"
            )
        padded = np.vstack([np.zeros(self.u.shape[1]), self.u])
        return np.asarray(padded[np.searchsorted(self.t, on_stamps(t, self.t), side="right")])

    def shown(self, t: Array, obs_dim: int) -> Array:
        """D u (T, p): what the inputs add to observations at these times."""
        u = self.values(t)
        return np.zeros((len(u), obs_dim)) if self.direct is None else u @ self.direct.T


def _named(u: Any, names: tuple[str, ...]) -> Any:
    """Columns of a table or mapping in the order of the names, where they are called like them."""
    columns = getattr(u, "column_names", None) or getattr(u, "columns", u)
    if (columns is u and not isinstance(u, Mapping)) or {*columns} != {*names}:
        return u
    each = [real_array(u[name], f"forcing u {name!r}", booleans=True) for name in names]
    return np.stack(each, axis=-1)


def joined_input(first: Any, second: Any) -> Forcing | None:
    """The input of two models side by side: each drives its own states, both the observations."""
    if first.forcing is None and second.forcing is None:
        return None
    given = [model.forcing for model in (first, second) if model.forcing is not None]
    grid = np.unique(np.concatenate([forcing.t for forcing in given]))
    d, p = first.dim + second.dim, first.obs_dim
    u, M, D, names = [], [np.zeros((d, 0))], [np.zeros((p, 0))], []
    for before, model in ((0, first), (first.dim, second)):
        forcing = model.forcing
        if forcing is None:
            continue
        u.append(forcing.values(grid))
        m = u[-1].shape[1]
        M.append(np.zeros((d, m)))
        M[-1][before : before + model.dim] = forcing.gain(model.dim)
        D.append(np.zeros((p, m)) if forcing.direct is None else forcing.direct)
        names += forcing.names
    starts = {forcing.start for forcing in given}
    if len(starts) > 1:
        raise ValueError(f"inputs of both models must count from one start, got {starts}")
    whole = np.hstack(u)
    named = tuple(names) if len(names) == whole.shape[1] else ()
    return Forcing(grid, whole, np.hstack(M), np.hstack(D), named, starts.pop())


class InputNodes(NamedTuple):
    """When inputs change and states are asked for: nodes, their distinct steps, inputs between."""

    start: int  # the node where x_u = 0
    steps: Array  # (K,) distinct steps
    which: Any  # (N - 1,) the step after each node
    inputs: Array  # (N - 1, m) the input after each node
    asked: Any  # (T,) the node of each time that is asked for


def input_nodes(forcing: Forcing, at: Array, origin: float) -> InputNodes:
    """The nodes of x_u at the sorted times `at`, x_u = 0 at `origin`."""
    nodes = np.unique(np.concatenate([at, [origin], forcing.t]))
    nodes = nodes[(nodes >= min(at[0], origin)) & (nodes <= max(at[-1], origin))]
    steps, which = distinct_steps(np.diff(nodes), nodes[1:])
    return InputNodes(
        int(np.searchsorted(nodes, origin)),
        steps,
        which,
        forcing.values(nodes[:-1]),
        np.searchsorted(nodes, at),
    )


def response(A: Array, forcing: Forcing, at: Array, origin: float) -> Array:
    """x_u (T, d) at the sorted times `at`, which may lie before the origin too.

    From one change of the input to the next x_u <- e^{A h} x_u + Gamma(h) M u, Gamma(h) =
    int_0^h e^{A s} ds, exactly; backwards from the origin the same is solved for the earlier x_u.
    """
    nodes = input_nodes(forcing, at, origin)
    x, Phi, pushed = driven_nodes(A, forcing.gain(len(A)), nodes)[:3]
    for k in range(nodes.start - 1, -1, -1):
        x[k] = np.linalg.solve(Phi[nodes.which[k]], x[k + 1] - pushed[k])
    return np.asarray(x[nodes.asked])


def driven_nodes(A: Array, gain: Array, nodes: InputNodes) -> tuple[Array, Array, Array, Array]:
    """x_u (N, d) at the nodes from the origin on, 0 before; Phi and Gamma (K, d, d) of the steps,
    Gamma M u (N - 1, d) after each node: x, Phi, Gamma M u, Gamma.
    """
    d = len(A)
    both = discretiser.transition(*augmented(A), nodes.steps)[0]
    Phi, Gamma = both[:, :d, :d], both[:, :d, d:]
    pushed = np.einsum("kij,kj->ki", Gamma[nodes.which], nodes.inputs @ gain.T)
    x = np.zeros((len(pushed) + 1, d))
    for k in range(nodes.start, len(pushed)):
        x[k + 1] = Phi[nodes.which[k]] @ x[k] + pushed[k]
    return x, Phi, pushed, Gamma


def origin(model: Any, first: float) -> float:
    """Where x_u = 0: the time of the prior, `first` being that of the first state observed."""
    if model.prior == "stationary":
        return float(model.forcing.t[0]) if len(model.forcing.t) else first
    return prior_time(model.prior.t0, first) if isinstance(model.prior, Prior) else first


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
        direct = model.forcing.shown(grid, model.obs_dim)
        less = data - (known @ model.C.T + direct)
        found = estimator(free, grid, less, *args[1:], **options)
        direct = model.forcing.shown(found.t, model.obs_dim)
        return _with(found, forced_states(model, found.t, float(shown[0])), direct)

    return cast(F, forced)


def shown_offset(model: Any, t: Array) -> Array:
    """offset + D u: what observations at these times show beside C x; (p,) without an input."""
    if getattr(model, "forcing", None) is None:
        return np.asarray(model.offset)
    return np.asarray(model.offset + model.forcing.shown(t, model.obs_dim))


def observation_map(model: Any, t: Array) -> tuple[Array, Array]:
    """H and offset: what states at these times show, of models in continuous time and in steps."""
    if hasattr(model, "H"):
        return model.H, model.d
    return model.C, shown_offset(model, t)


def signal(model: Any, estimate: Estimate) -> tuple[Array, Array]:
    """Mean (..., T, p) and covariance of what measurements without noise would show: H x + d."""
    H, offset = observation_map(model, estimate.t)
    mean, cov = estimate.through(H)
    return np.asarray(mean + offset), cov


def _with(found: Estimate, known: Array, direct: Array) -> Estimate:
    """The estimate of x_0 + x_u, observed with D u."""
    laws = tuple(law._replace(mean=law.mean + known[law.at]) for law in found.open_laws)
    source = found.source
    if source is not None:
        draw = None if source.draw is None else partial(_drawn, source.draw, known)
        source = source._replace(offset=source.offset + direct, draw=draw)
    return replace(found, mean=found.mean + known, open_laws=laws, source=source)


def _drawn(draw: Callable[..., Array], known: Array, n: int, rng: np.random.Generator) -> Array:
    return draw(n, rng) + known


def refuse_forcing(model: Any, what: str) -> None:
    """ValueError where a model has a known input that `what` would ignore."""
    if getattr(model, "forcing", None) is not None:
        raise ValueError(f"{what} takes no model with forcing; set forcing=None")
