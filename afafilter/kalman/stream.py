"""The Kalman filter one observation at a time: the same numbers as `kalman_filter`, in O(1) memory.

The steps are the compiled ones of reweighting (core/flat_steps.h), for one path: a root of the
covariance, and beside it what a flat start leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, isinf, isnan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, is_definite, observation_covariances, real_array, stamp
from afafilter._base.doubts import MAGNIFIED, Doubts, warn_of_move
from afafilter._base.signatures import told_type
from afafilter._base.steps import not_before
from afafilter._base.tables import warn_of_calendar
from afafilter._base.unknown import OpenLaw, barely_known
from afafilter.kalman import recursions
from afafilter.kalman.flat_start import add_delta, raise_singular, start_paths
from afafilter.kalman.inputs import Reweighting
from afafilter.kalman.last_digits import Twin, step_moves, twins
from afafilter.kalman.recursions import Paths
from afafilter.kalman.robust import reweight
from afafilter.linalg.subspaces import ROUNDING
from afafilter.linalg.transitions import by_columns, transitions
from afafilter.models.forcing import refuse_forcing
from afafilter.models.nudged import VISIBLE
from afafilter.models.priors import Prior, prior_time
from afafilter.models.saved import restored, system
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate, Source
from afafilter.weights import Weight

REMEMBERED = 256
"""Lengths of steps whose transitions are kept."""
ACCOMPANIED = 256
"""Observations of a flat start that are taken again with other last digits."""


class KalmanStream:
    """Kalman filter that is fed one observation at a time.

    Parameters
    ----------
    model : LinearSDE
    weight, anchor, metric, iterations
        Robust weights as for `kalman_filter`.

    Attributes
    ----------
    t : float or None
        Time of the last observation, None before the first.
    loglik : float
        Log-likelihood of all observations so far.

    Raises
    ------
    TypeError, ValueError
        Not a LinearSDE; options that `kalman_filter` refuses.

    Notes
    -----
    Estimates, likelihood and innovations are those of `kalman_filter` on the same data. O(d^3 +
    p d^2) time a step, O(d^2) memory; a step of a length not met before costs its discretisation.
    """

    def __init__(
        self,
        model: LinearSDE,
        *,
        weight: Weight | None = None,
        anchor: str = "prediction",
        metric: str = "R",
        iterations: int = 50,
    ) -> None:
        if not isinstance(model, LinearSDE):
            raise TypeError(f"model must be a LinearSDE, got {told_type(model)}")
        refuse_forcing(model, "KalmanStream")
        self._robust = Reweighting(weight, anchor, metric, iterations).checked()
        if weight is not None and metric == "R" and not is_definite(model.R[None]).all():
            raise ValueError("R must be positive definite for metric 'R'; use metric 'raw'")
        self.model = model
        self.t: float | None = None
        self._steps_told = False
        self.loglik = 0.0
        self._shows = model.C[None].copy(), model.offset[None].copy()
        self._noise = model.R[None].copy()
        self._doubts, self._said = np.zeros(4), False
        self._steps: dict[float, tuple[Array, Array, Array]] = {}
        self._sizes = model.component_sizes
        self._norm = float(np.abs(model.A).sum(axis=0).max())
        self._node: float | None = None
        self._state = _begin(model, 0.0, self._noise)
        self._source = Source(model.C, model.offset, model.R)
        self._looked, self._fed = MAGNIFIED, 0
        self._beside: list[Twin] | None = [] if self._state.rank[0] >= 0 else None

    def __repr__(self) -> str:
        now = "nothing seen" if self.t is None else f"t {self.t:g}, loglik {self.loglik:.6g}"
        robust = "" if self._robust.weight is None else f", {self._robust.weight}"
        return f"KalmanStream({self.model!r}{robust}, {now})"

    def update(self, t: float, z: ArrayLike, *, obs_cov: ArrayLike | None = None) -> Estimate:
        """The state at time t from the observations so far and z, which is the next one.

        Parameters
        ----------
        t : float
            Time, not before the last one.
        z : array_like, shape (p,)
            Observation, or a number for p = 1; NaN = missing component, booleans 0 and 1.
        obs_cov : array_like, shape (p, p), optional
            Noise covariance of this observation instead of the model's R.

        Returns
        -------
        Estimate
            Of the one time t: mean (1, d), cov (1, d, d), loglik of this observation,
            loglik_steps (1,), innovation (1, p), innovation_cov (1, p, p); under a weight
            `info["robust_weights"]` (1,).

        Raises
        ------
        ValueError, TypeError
            A time that is not finite or before the last one; a wrong shape; infinite values. The
            stream is then as before.
        """
        now, row = self._time(t), self._row(z)
        R = self._noise
        if obs_cov is not None:
            given = real_array(obs_cov, "obs_cov", allow_nan=True, booleans=False)[None]
            R = observation_covariances(given, 1, row.shape[2], self._noise[0], row[0]).copy()
        node = now - self.model.delay
        before, begin = self._state, self._node
        if begin is not None and self._robust.weight is None and before.rank[0] < 0:
            found = self._step(now, node, row, R)
        else:
            found = self._open_step(now, node, row, R)
        if self._beside is not None or max(self._doubts[2], self._doubts[3]) > self._looked:
            self._look(found, before, begin, row, R)
        return found

    def _open_step(self, now: float, node: float, row: Array, R: Array) -> Estimate:
        """`update` where directions may be open and observations be weighed."""
        if self._node is None:
            prior = self.model.prior
            begin = prior_time(prior.t0, node) if isinstance(prior, Prior) else node
            state = _begin(self.model, begin, np.concatenate([self._noise, R]))
        else:
            begin, state = self._node, _copied(self._state)
        chain = self._move(state, begin, node, R)
        p = row.shape[2]
        v, S, known = np.empty((1, p)), np.empty((1, p, p)), np.empty((1, p), bool)
        recursions.innovations_all(chain, 0, row, state, v, S, known)
        seen = row[:, 0] == row[:, 0]
        w, info = 1.0, {}
        if self._robust.weight is not None:
            weights = reweight(self._robust, v, S, R[0], known & seen)[0]
            w, info = float(weights[0]), {"robust_weights": weights}
        used = seen & (w > 0)
        loglik, scale = np.zeros(1), np.array([1.0 / w if w > 0 else 1.0])
        if used.any() and recursions.update_all(
            chain, 0, row, used, scale, self._sizes, state, loglik, self._doubts[:3]
        ):
            raise_singular(chain, 0)
        self._state, self._node, self.t = state, node, now
        shown = S + R * scale
        if not known.all():
            open_ = ~known[0]
            shown[:, open_[:, None] | open_] = 0.0
            shown[0, open_, open_] = np.inf
        v = np.where(known & used, v, np.nan)
        return self._estimate(now, self._law(state, now), loglik, v, shown, R, info)

    def _step(self, now: float, node: float, row: Array, R: Array) -> Estimate:
        """`update` where no direction is open and nothing is weighed: one call of the core."""
        assert self._node is not None
        dt = node - self._node
        F, b, root = self._transition(dt)
        L, m, (H, off) = self._state.L.copy(), self._state.m.copy(), self._shows
        v, S, cov = np.empty(row.shape[1:]), np.empty(R.shape), np.empty(L.shape)
        into = L[0], m[0], cov[0], v[0], S[0], self._doubts[2:]
        loglik = recursions.step_filter(
            dt > 0, F[0], b[0], root[0], H[0], off[0], R[0], row[0, 0], *into
        )
        if isnan(loglik):
            raise_singular(self._chain(dt, R), 0)
        self._state, self._node, self.t = self._state._replace(L=L, m=m), node, now
        law = self._law(self._state, now) if now > node else (m.copy(), cov, ())
        return self._estimate(now, law, np.array([loglik]), v, S, R, {})

    def _estimate(
        self,
        now: float,
        law: tuple[Array, Array, tuple[OpenLaw, ...]],
        loglik: Array,
        v: Array,
        S: Array,
        R: Array,
        info: dict[str, Any],
    ) -> Estimate:
        """What an observation with noise R and log-likelihood (1,) leaves, and its innovation."""
        self.loglik += float(loglik[0])
        mean, cov, open_laws = law
        return Estimate(
            np.array([now]),
            mean,
            cov,
            loglik[0],
            loglik,
            v,
            S,
            label="Kalman stream",
            info=info,
            open_laws=open_laws,
            source=self._source if R is self._noise else self._source._replace(R=R[0]),
        )

    def _look(
        self, found: Estimate, before: Paths, begin: float | None, row: Array, R: Array
    ) -> None:
        """Say once where rounding shows in what a step from `before`, at `begin`, found."""
        known = barely_known(found.open_laws, self.model.C)
        doubts = Doubts(*self._doubts.tolist())._replace(known=known)
        self._looked = max(self._looked, 4.0 * doubts.lost, 4.0 * doubts.far)
        self._said = self._said or doubts.warn(4)
        flat = before.rank[0] >= 0
        if self._said or (flat and not self._beside and begin is not None):
            self._beside = None
            return

        def start(model: LinearSDE, unit: float) -> KalmanStream:
            stream = KalmanStream(model, **self._robust._asdict())
            stream._said = stream._steps_told = True
            stream._node = begin
            if begin is not None:
                stream._state = before._replace(L=before.L * unit, m=before.m * unit)
            return stream

        beside = self._beside or twins(self.model, start)
        noise = None if R is self._noise else R[0]
        moved = step_moves(found, before.m, beside, row[0, 0], noise, 0 in np.diagonal(R[0]))
        if moved > VISIBLE:
            self._said = True
            warn_of_move(moved, "", "a shorter record", 4)
        self._fed += 1
        accompanied = flat and self._state.rank[0] >= 0 and self._fed < ACCOMPANIED
        self._beside = beside if accompanied else None

    def predict(self, t: float) -> Estimate:
        """The state at a time t >= the last one, from the observations so far.

        Raises
        ------
        ValueError
            No observation yet; t not finite or before the last observation.
        """
        if self._node is None:
            raise ValueError("no observation yet: call update before predict")
        now = self._time(t)
        mean, cov, laws = self._law(self._state, now)
        return Estimate(
            np.array([now]),
            mean,
            cov,
            label="Kalman stream",
            open_laws=laws,
            source=self._source,
        )

    def state(self) -> dict[str, Array]:
        """Everything that the stream knows, as plain arrays.

        `np.savez(path, **stream.state())` keeps them, and so does JSON of their `.tolist()`;
        `KalmanStream.from_state` goes on from there.
        """
        times = [] if self.t is None else [self.t, self._node]
        return {
            "system": system(self.model),
            "times": np.array(times, dtype=np.float64),
            "loglik": np.array(self.loglik),
            **{name: np.array(part) for name, part in self._state._asdict().items()},
        }

    @classmethod
    def from_state(cls, model: LinearSDE, state: Mapping[str, Any], **options: Any) -> KalmanStream:
        """The stream that `state` was taken from; options as given to it.

        Raises
        ------
        ValueError
            An entry is missing, has a wrong shape or is not finite; the state is that of another
            model.
        """
        stream = cls(model, **options)
        own = stream.state()
        younger = {name: own[name] for name in ("doubt", "late", "start")}
        found = restored(younger | dict(state), own, {"times": (0, 2)})
        if len(found["times"]):
            stream.t, stream._node = (float(x) for x in found["times"])
        stream.loglik = float(found["loglik"])
        parts: Any = (found[name] for name in Paths._fields)
        stream._state = Paths(*parts)
        if stream._node is not None:
            stream._beside = None
        return stream

    def _time(self, t: float) -> float:
        now = t if type(t) is float and isfinite(t) else stamp(t)
        if self.t is None:
            return now
        if not self._steps_told:
            self._steps_told = True
            warn_of_calendar(np.array([self.t, now]), "t", stacklevel=4)
        return not_before(now, self.t)

    def _row(self, z: ArrayLike) -> Array:
        """(1, 1, p), the data of one path and one time."""
        plain = type(z) is np.ndarray or type(z) is float
        row = np.array(z, np.float64) if plain else real_array(z, "z", allow_nan=True, check=False)
        p = self._noise.shape[1]
        if row.shape != (p,) and not (row.ndim == 0 and p == 1):
            raise ValueError(f"z must have shape ({p},), got {row.shape}")
        if any(isinf(x) for x in row.flat):
            raise ValueError("z must be finite or NaN (missing), got an infinite value")
        return row.reshape(1, 1, p)

    def _move(self, state: Paths, begin: float, end: float, R: Array) -> recursions.Chain:
        """Carry the state, in place, from `begin` to `end`."""
        dt = end - begin
        chain = self._chain(dt, R)
        if dt > 0:
            stamp = max(abs(begin), abs(end))
            recursions.predict_all(chain, 0, dt, stamp, self._sizes, state)
        return chain

    def _chain(self, dt: float, R: Array) -> recursions.Chain:
        """One step of length dt into the observation 0."""
        none = np.zeros(1, np.int64)
        return recursions.Chain(none, *self._transition(dt), none, none, *self._shows, R)

    def _transition(self, dt: float) -> tuple[Array, Array, Array]:
        """Columns of Phi, psi, and columns of the root of V over dt, remembered."""
        known = self._steps.get(dt)
        if known is None:
            if len(self._steps) == REMEMBERED:
                self._steps.pop(next(iter(self._steps)))
            m, lag = self.model, np.array([dt])
            if self._norm * dt <= 1.0:  # a Taylor series is as exact, and twenty times as fast
                known = by_columns(*transitions(m.A, m.Q, m.drift, lag))
            else:
                known = m.discretiser.roots(lag)
            self._steps[dt] = known
        return known

    def _law(self, state: Paths, t: float) -> tuple[Array, Array, tuple[OpenLaw, ...]]:
        """mean (1, d), cov (1, d, d) at time t, after the node, and what is open there."""
        assert self._node is not None
        if t > self._node:
            state = _copied(state)
            self._move(state, self._node, t, self._noise)
        root = state.L[0]
        mean, cov, count = state.m.copy(), (root.T @ root)[None], int(state.rank[0])
        if count < 0:
            return mean, cov, ()
        some, cov = add_delta(state.M, state.T, state.s[None], state.rank, mean[None], cov)
        directions, errors = state.M[:, count:], state.error[0, count:]
        size = np.sqrt(np.maximum(np.einsum("jii->ji", errors), 0.0))
        where = np.zeros(1, np.intp)
        size = size + np.abs(directions)
        late = np.finfo(float).eps * np.abs(state.late[:, count:])
        law = OpenLaw(where, where, some, cov, directions, ROUNDING * size + late)
        some, cov = law.report()
        return some[0], cov, (law,) if law.moved().any() else ()


def _begin(model: LinearSDE, t: float, R: Array) -> Paths:
    """The prior at t, before observations with noise R (k, p, p)."""
    law = model.prior.law if isinstance(model.prior, Prior) else model.initial_law(t)
    return start_paths(law, 1, R)


def _copied(state: Paths) -> Paths:
    parts: Any = (part.copy() for part in state)
    return Paths(*parts)
