"""AFA one observation at a time: plain in O(1) memory, or robust over a window of the newest ones.

Plain weights are a sum of exponentials: a bank of recurrences (`linear_time.bank`) is all that is
kept. A robust weight depends on the newest anchor and is decided anew at every time, so that the
observations of its window are kept instead and one query is answered as `adaptive_filter` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, observations, scalar, stamp
from afafilter._base.patterns import require_whole_rows
from afafilter._base.signatures import told_type
from afafilter._base.steps import not_before
from afafilter._base.unknown import OpenLaw
from afafilter.adaptive.linear_time import bank as core
from afafilter.adaptive.linear_time.filter import require_reach
from afafilter.adaptive.linear_time.sums import plain_weights_exponentials
from afafilter.adaptive.methods import query_noise, require_definite, run_method
from afafilter.adaptive.options import Options, make_spans
from afafilter.models.forcing import refuse_forcing
from afafilter.models.saved import restored, system
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate, Source
from afafilter.weights import Weight, as_weight


class AdaptiveFilterStream:
    """Causal AFA that is fed one observation at a time.

    Without a window: plain weights of an isotropic model in O(1) memory, the numbers of
    `linear_time_filter`. With one: any `LinearSDE`, robust weights and components that are missing,
    the numbers of `adaptive_filter(model, t, z, weight=weight, window=window)` at the newest time.

    Parameters
    ----------
    model : LinearSDE
        Isotropic where there is no window.
    weight, anchor, iterations, correlation
        As for `adaptive_filter`; they need a window.
    window : int, optional
        How many of the newest observations count, rows wholly missing left out; None = all.
    anchor_var : float
        gamma^2 >= 0, state^2 (with a window: anchor_cov = gamma^2 I).
    tolerance : float, optional
        As in `linear_time_estimate`, 1e-9; with a window as in `adaptive_filter`, 1e-10.
    horizon : float, optional
        Longest lag that will occur; without a window. Default: unlimited when mu > 0 (or
        sigma = 0), else 1e9 times the lag at which the weight has halved.

    Attributes
    ----------
    t : float or None
        Time of the last row, None before the first.
    error_bound : float
        As in `PlainEstimate`; 0 with a window.

    Raises
    ------
    TypeError, ValueError
        As `linear_time_estimate` or, with a window, `adaptive_filter`; options that need a window
        without one. `update` and `predict` also for times that go back or pass the horizon, and
        without a window for rows missing in part.

    Notes
    -----
    Time of a call: O(K d) without a window, else that of one query of `adaptive_filter` over the
    window. `update` with a row of NaN only moves the clock.

    Examples
    --------
    >>> from afafilter import AdaptiveFilterStream, LinearSDE, StudentT
    >>> model = LinearSDE.isotropic(0.1, 1.0, process_var=0.1, obs_var=0.2)
    >>> stream = AdaptiveFilterStream(model, weight=StudentT(4.0), window=100)
    >>> estimate = stream.update(0.0, [1.0, 0.0])
    >>> estimate = stream.update(0.5, [0.8, 0.5])
    >>> estimate.mean.shape, estimate.cov.shape
    ((1, 2), (1, 2, 2))
    """

    def __init__(
        self,
        model: LinearSDE,
        *,
        weight: Weight | str | None = None,
        window: int | None = None,
        anchor: str = "observation",
        iterations: int = 1,
        correlation: str = "independent",
        anchor_var: float = 0.0,
        tolerance: float | None = None,
        horizon: float | None = None,
    ) -> None:
        if not isinstance(model, LinearSDE):
            raise TypeError(f"model must be a LinearSDE, got {told_type(model)}")
        refuse_forcing(model, "AdaptiveFilterStream")
        gamma2 = scalar(anchor_var, "anchor_var", low=0.0)
        options = Options(
            True,
            as_weight(weight),
            anchor,
            iterations,
            anchor_cov=gamma2 * np.eye(model.obs_dim) if gamma2 else None,
            correlation=correlation,
            window=window,
            tolerance=1e-10 if tolerance is None else tolerance,
        )
        options.require_use()
        self._model = model
        self._source = Source(model.C, model.offset, model.R)
        self.t: float | None = None
        self._memory: _Bank | _Window
        if window is not None:
            if horizon is not None:
                raise ValueError("horizon has no use with a window: leave one of them out")
            self._memory = _Window(model, options)
        else:
            if options.weight is not None or options.exact:
                raise ValueError(
                    "a robust weight or correlation='exact' decides every observation's weight "
                    "anew at every time, so that the stream must know how many to keep: give "
                    "window, for instance window=100"
                )
            if core.isotropic_parameters(model) is None:
                raise ValueError(
                    "without a window the model must be isotropic (A = -mu I + skew-symmetric with "
                    "mu >= 0, Q and R multiples of the identity, C = identity), since only then a "
                    "few numbers sum up the past: give window, for instance window=100"
                )
            self._memory = _Bank(model, gamma2, 1e-9 if tolerance is None else tolerance, horizon)
        self.error_bound = self._memory.error_bound

    def __repr__(self) -> str:
        now = "nothing seen" if self.t is None else f"t {self.t:g}"
        return f"AdaptiveFilterStream({self._model!r}, {self._memory}, {now})"

    def update(self, t: float, z: ArrayLike) -> Estimate:
        """Take the observation z stamped t.

        Parameters
        ----------
        t : float
            Time, not before the last one.
        z : array_like, shape (p,)
            Observation, or a number for p = 1; NaN = missing (in part: with a window).

        Returns
        -------
        Estimate
            Of the one time t: mean (1, d), NaN where nothing determines it, and cov (1, d, d).

        Raises
        ------
        ValueError, TypeError
            As the class says; the stream is then as before.
        """
        stamp = self._stamp(t)
        p = self._model.obs_dim
        shape = np.shape(z)
        if shape not in ((p,), (1, p)) and not (shape == () and p == 1):
            raise ValueError(f"z must have shape ({p},), got {shape}")
        found = self._estimate(stamp, observations(np.reshape(z, (1, p)), 1, p))
        self.t = stamp
        return found

    def predict(self, t: float) -> Estimate:
        """The estimate at a time t not before the last update, which changes nothing."""
        return self._estimate(self._stamp(t), np.empty((0, self._model.obs_dim)))

    def _estimate(self, stamp: float, row: Array) -> Estimate:
        """At a time, with the row (1, p) or without one (0, p)."""
        mean, cov, open_laws = self._memory.answer(stamp, row)
        law = np.array([stamp]), mean[None], cov[None]
        return Estimate(*law, label="AFA stream", open_laws=tuple(open_laws), source=self._source)

    def state(self) -> dict[str, Array]:
        """Everything that the stream knows, as plain arrays.

        `np.savez(path, **stream.state())` keeps them, and so does JSON of their `.tolist()`;
        `AdaptiveFilterStream.from_state` goes on from there.
        """
        times = np.array([] if self.t is None else [self.t])
        return {"times": times, **self._memory.state()}

    @classmethod
    def from_state(
        cls, model: LinearSDE, state: Mapping[str, Any], **options: Any
    ) -> AdaptiveFilterStream:
        """The stream that `state` was taken from; options as given to it.

        Raises
        ------
        ValueError
            An entry is missing, has a wrong shape or is not finite; the state is that of another
            model or of other options.
        """
        stream = cls(model, **options)
        lengths, gaps = stream._memory.grows()
        found = restored(state, stream.state(), {"times": (0, 1), **lengths}, gaps)
        if len(found["times"]):
            stream.t = float(found["times"][0])
        stream._memory.restore(found)
        return stream

    def _stamp(self, t: float) -> float:
        now = stamp(t)
        return now if self.t is None else not_before(now, self.t)


_Law = tuple[Array, Array, list[OpenLaw]]


def _nothing(d: int) -> _Law:
    return np.full(d, np.nan), np.diag(np.full(d, np.inf)), []


class _Bank:
    """Plain weights: a bank of recurrences."""

    def __repr__(self) -> str:
        return "all observations"

    def __init__(
        self, model: LinearSDE, anchor_var: float, tolerance: float, horizon: float | None
    ) -> None:
        self._model, self._parameters = model, core.require_isotropic(model)
        p = self._parameters
        if horizon is None:
            drifting = p.decay == 0 and p.process_var > 0
            horizon = 1e9 * (p.obs_var + anchor_var) / p.process_var if drifting else np.inf
        weights = plain_weights_exponentials(
            *p.noise, anchor_var, horizon=horizon, tolerance=0.2 * tolerance
        )
        self.error_bound = 2 * weights.bound
        require_reach(self.error_bound)
        self._horizon = horizon
        self._side = core.Side(weights, p.decay, 0.0)
        self._bank: core.Bank | None = None
        self._known = False

    def answer(self, stamp: float, row: Array) -> _Law:
        """The law at a time, after the row (1, d) that is stamped with it, if any."""
        d, p, drift = self._model.dim, self._parameters, self._model.drift
        seen = np.full(len(row), stamp - self._model.delay)
        require_whole_rows(row, core.WHOLE)
        valid = ~np.isnan(row[:, 0])
        if self._bank is None and len(row):
            self._bank = self._started(float(seen[0]))
        if self._bank is None or not (self._known or len(row)):
            return _nothing(d)
        bank, now = self._bank, np.array([stamp])
        lag = now - bank.origin
        if lag[0] > self._horizon:
            raise ValueError(
                f"t = {stamp:g} lies {lag[0]:g} after the first observation, past the horizon "
                f"{self._horizon:g}; start the stream with a longer horizon"
            )
        y = row - self._model.offset - p.drift_path(drift, seen - bank.origin)
        y = p.to_planes(np.where(valid[:, None], y, 0.0))
        sums = bank.run(seen, valid, y[None], now, np.array([len(row)]))
        self._known |= bool(valid.any())
        if not self._known:
            return _nothing(d)
        mean, variance = core.ratio(*sums, np.ones(1, bool))
        return p.from_planes(mean[0, 0]) + p.drift_path(drift, lag)[0], np.eye(d) * variance[0], []

    def state(self) -> dict[str, Array]:
        blank = self._started(0.0)
        rule = (blank.rates, blank.coefs, blank.num_rate, blank.den_rate, self._horizon)
        numbers = np.concatenate([np.atleast_1d(x).view(np.float64) for x in rule])
        bank = self._bank
        clocks = [] if bank is None else [bank.origin, bank.clock, bank.frame]
        known = blank if bank is None else bank
        return {
            "system": np.append(system(self._model), numbers[np.isfinite(numbers)]),
            "clocks": np.array(clocks),
            "known": np.array(float(self._known)),
            "num": known.num.view(np.float64).copy(),
            "den": known.den.view(np.float64).copy(),
        }

    def grows(self) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
        """Allowed lengths of the entries that grow, and names of those that may hold NaN."""
        return {"clocks": (0, 3)}, ()

    def restore(self, found: Mapping[str, Array]) -> None:
        self._known = bool(found["known"])
        if not len(found["clocks"]):
            return
        origin, clock, frame = (float(x) for x in found["clocks"])
        self._bank = bank = self._started(origin)
        bank.clock, bank.frame = clock, frame
        bank.num = np.ascontiguousarray(found["num"]).view(bank.num.dtype)
        bank.den = np.ascontiguousarray(found["den"]).view(bank.den.dtype)

    def _started(self, origin: float) -> core.Bank:
        return core.Bank(self._side, self._parameters.frequency, 1, self._model.dim, origin)


class _Window:
    """Any weights: the rows seen last, one more than the window for the prediction before z."""

    error_bound = 0.0

    def __repr__(self) -> str:
        weight = self._options.weight
        robust = "" if weight is None else f", {weight}"
        return f"window={self._keep - 1}{robust}, {len(self._t)} rows kept"

    def __init__(self, model: LinearSDE, options: Options) -> None:
        assert options.window is not None
        require_definite(model)
        self._model, self._options = model, options
        self._gamma = query_noise(model, options)
        self._keep = options.window + 1
        self._t: list[float] = []
        self._z = np.empty((0, model.obs_dim))

    def answer(self, stamp: float, row: Array) -> _Law:
        """The law at a time, after the row (1, p) that is stamped with it, if any."""
        z, model, options = np.concatenate([self._z, row]), self._model, self._options
        found = _nothing(model.dim)
        if not np.isnan(z).all():
            if len(row):
                spans = make_spans(np.array([*self._t, stamp]), None, model.delay, options).at([-1])
            else:
                spans = make_spans(np.array(self._t), np.array([stamp]), model.delay, options)
            R = np.broadcast_to(model.R, (len(z), *model.R.shape))
            outcome, _ = run_method(model, spans, options, z[None], R, self._gamma)
            found = outcome.mean[0, 0], outcome.cov[0, 0], outcome.open_laws
        if not np.isnan(row).all():
            self._t, self._z = [*self._t, stamp][-self._keep :], z[-self._keep :]
        return found

    def state(self) -> dict[str, Array]:
        return {
            "system": np.append(system(self._model), self._keep),
            "t": np.array(self._t),
            "z": self._z.copy(),
        }

    def grows(self) -> tuple[dict[str, range], tuple[str, ...]]:
        """Allowed lengths of the entries that grow, and names of those that may hold NaN."""
        lengths = range(self._keep + 1)
        return {"t": lengths, "z": lengths}, ("z",)

    def restore(self, found: Mapping[str, Array]) -> None:
        if len(found["t"]) != len(found["z"]):
            raise ValueError(
                f"state 't' and 'z' must have one length, got {len(found['t'])} and "
                f"{len(found['z'])}"
            )
        self._t, self._z = found["t"].tolist(), found["z"]
