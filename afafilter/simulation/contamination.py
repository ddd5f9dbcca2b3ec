"""Contamination of measurements and states: outliers, jumps, shifts, gaps, coloured noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from afafilter._base.checks import (
    Array,
    ObsMask,
    choice,
    covariance,
    positive_int,
    real_array,
    scalar,
    square,
)
from afafilter._base.signatures import assign
from afafilter.simulation.plan import Plan, Tables, covariance_root

OUTLIER_LAWS = ("gaussian", "student_t", "mean_doubling")
DEFAULT_SCALE = 10.0
DEFAULT_DF = 3.0


@dataclass(frozen=True)
class Outliers:
    """Contamination of observations, or of the state's own noise.

    Parameters
    ----------
    rate : float
        Probability in [0, 1] that an observation (all its components at once) is struck.
    scale : float, optional
        > 0, size of the additional noise in units of the measurement noise. None: 10 for the
        laws that have a scale.
    law : {"gaussian", "student_t", "mean_doubling"}
        What a struck observation gets

        - "gaussian": additional noise N(0, scale^2 R);
        - "student_t": additional noise scale * R^{1/2} t, t multivariate Student-t with `df`
          degrees of freedom;
        - "mean_doubling": its mean C x + b is doubled (no scale; Duran-Martin et al. 2024,
          "Outlier-robust Kalman filtering through generalised Bayes", sec. 4).
    df : float, optional
        > 0, only for "student_t". None: 3.
    side : {"both", "above", "below"}
        "both", or "above" or "below": the additional noise of every component has one sign.
    patch : int
        Number of successive observations that are struck together; patches begin
        independently, as often as makes `rate` the share of struck observations after the first
        patch - 1.
    strikes : {"observation", "innovation"}
        "observation", or "innovation": the noise of the step to the struck time is what is
        enlarged, in units of its root, so that the state itself jumps and stays so (an innovation
        outlier of Fox, Outliers in time series, JRSS B 34, 1972).

    Raises
    ------
    ValueError, TypeError
        If a number is outside its range, or given for a law that has no such parameter.
    """

    rate: float
    scale: float | None = None
    law: Literal["gaussian", "student_t", "mean_doubling"] = "gaussian"
    df: float | None = None
    side: Literal["both", "above", "below"] = "both"
    patch: int = 1
    strikes: Literal["observation", "innovation"] = "observation"

    def __post_init__(self) -> None:
        assign(self, rate=_probability(self.rate, "outliers rate"))
        choice(self.law, "outliers law", OUTLIER_LAWS)
        choice(self.side, "outliers side", ("both", "above", "below"))
        choice(self.strikes, "outliers strikes", ("observation", "innovation"))
        positive_int(self.patch, "outliers patch")
        if self.law == "mean_doubling" and (self.side, self.strikes) != ("both", "observation"):
            raise ValueError("outliers side and strikes have no meaning for law 'mean_doubling'")
        for name, wanted, default in (
            ("scale", self.law != "mean_doubling", DEFAULT_SCALE),
            ("df", self.law == "student_t", DEFAULT_DF),
        ):
            value = getattr(self, name)
            if not wanted:
                if value is not None:
                    raise ValueError(f"outliers {name} has no meaning for law {self.law!r}")
                continue
            number = default if value is None else value
            assign(self, **{name: scalar(number, f"outliers {name}", low=0.0, strict=True)})


@dataclass(frozen=True, eq=False)
class Jumps:
    """Jumps of the state at random times: a compound Poisson process beside the Brownian one.

    Parameters
    ----------
    rate : float
        >= 0, jumps per time.
    cov : ndarray, shape (d, d)
        Covariance of a jump, state^2.

    Raises
    ------
    ValueError, TypeError
        A negative rate, a matrix that is no covariance.
    """

    rate: float
    cov: Array

    def __post_init__(self) -> None:
        rate, cov = scalar(self.rate, "jumps rate", low=0.0), square(self.cov, "jumps cov")
        assign(self, rate=rate, cov=covariance(cov, "jumps cov", cov.shape))


@dataclass(frozen=True, eq=False)
class LevelShift:
    """A lasting change of what is measured: from time `t` on, `size` is added.

    Parameters
    ----------
    t : float
        Time.
    size : ndarray, shape (p,)
        Or one number for every component, unit of the observations.

    Raises
    ------
    ValueError, TypeError
        Not finite, not numbers, more than one time.
    """

    t: float
    size: Array

    def __post_init__(self) -> None:
        t, size = scalar(self.t, "level shift t"), real_array(self.size, "level shift size")
        assign(self, t=t, size=size)


@dataclass(frozen=True)
class Gaps:
    """Blocks of missing observations, all components at once.

    Parameters
    ----------
    rate : float
        Probability in [0, 1] that an observation that is there is the last before a gap.
    length : float
        >= 1, mean number of observations in a gap; lengths are geometric.

    Raises
    ------
    ValueError, TypeError
        A number out of range.
    """

    rate: float
    length: float

    def __post_init__(self) -> None:
        rate = _probability(self.rate, "gaps rate")
        assign(self, rate=rate, length=scalar(self.length, "gaps length", low=1.0))

    def draw(self, n: int, n_times: int, stream: np.random.Generator) -> ObsMask:
        """(n, T) True inside a gap: a two-state Markov chain that starts in its stationary law."""
        leave = 1.0 / self.length
        uniform = stream.random((n, n_times))
        lost = np.empty((n, n_times), dtype=bool)
        share = self.rate / (self.rate + leave)
        now = uniform[:, 0] < share
        lost[:, 0] = now
        for k in range(1, n_times):
            now = np.where(now, uniform[:, k] >= leave, uniform[:, k] < self.rate)
            lost[:, k] = now
        return lost


@dataclass(frozen=True, eq=False)
class ColouredNoise:
    """Measurement noise with a memory, beside the white one: a stationary process e with

    ::

        Cov(e(s), e(t)) = cov e^{-|t - s| / time}        (an Ornstein-Uhlenbeck process)

    Parameters
    ----------
    time : float
        > 0, correlation time.
    cov : ndarray, shape (p, p)
        Its covariance at one time.

    Raises
    ------
    ValueError, TypeError
        A time that is not positive, a matrix that is no covariance.
    """

    time: float
    cov: Array

    def __post_init__(self) -> None:
        time = scalar(self.time, "coloured noise time", low=0.0, strict=True)
        cov = square(self.cov, "coloured noise cov")
        assign(self, time=time, cov=covariance(cov, "coloured noise cov", cov.shape))

    def draw(self, n: int, t: Array, stream: np.random.Generator) -> Array:
        """e (n, T, p) at times t: e_k = a e_{k-1} + sqrt(1 - a^2) N(0, cov), a = e^{-h/time}."""
        order = np.argsort(t, kind="stable")
        e = stream.standard_normal((n, len(t), len(self.cov))) @ covariance_root(self.cov).T
        for h, last, k in zip(np.diff(t[order]), order, order[1:], strict=False):
            fresh = np.sqrt(-np.expm1(-2 * h / self.time))
            e[:, k] = np.exp(-h / self.time) * e[:, last] + fresh * e[:, k]
        return e


def _probability(value: Any, name: str) -> float:
    x = scalar(value, name, low=0.0)
    if x > 1:
        raise ValueError(f"{name} must be a probability, at most 1, got {x:g}")
    return x


def struck_by(outliers: Outliers, n: int, n_times: int, stream: np.random.Generator) -> ObsMask:
    """Which observations (n, T) are struck."""
    uniform = stream.random((n, n_times))
    if outliers.patch == 1:
        return np.asarray(uniform < outliers.rate)
    # An observation is spared if no patch began at it or at the patch - 1 before it.
    begin = uniform < 1 - (1 - outliers.rate) ** (1 / outliers.patch)
    struck = begin.copy()
    for back in range(1, min(outliers.patch, n_times)):
        struck[:, back:] |= begin[:, :-back]
    return np.asarray(struck)


def additional_noise(
    outliers: Outliers, table: Tables, struck: ObsMask, streams: list[np.random.Generator]
) -> Array:
    """Additional noise of struck entries (number, rows), by the covariance roots in `table`."""
    n, T = struck.shape
    rows = table.root.shape[-1]
    _, k = np.nonzero(struck)
    draws = streams[0].standard_normal((n, T, rows))[struck]
    if outliers.df is not None:
        chi2 = streams[1].chisquare(outliers.df, size=(n, T))[struck]
        draws /= np.sqrt(chi2 / outliers.df)[:, None]
    assert outliers.scale is not None
    noise = outliers.scale * np.einsum("kij,kj->ki", table.root[table.which[k]], draws)
    if outliers.side != "both":
        noise = np.abs(noise) if outliers.side == "above" else -np.abs(noise)
    return np.asarray(noise)


def contaminate(
    z: Array, states: Array, plan: Plan, outliers: Outliers, streams: list[np.random.Generator]
) -> ObsMask:
    """Strike observations in place; returns the mask (n, T)."""
    struck = struck_by(outliers, z.shape[0], z.shape[1], streams[0])
    path, k = np.nonzero(struck)
    table = plan.observation
    if outliers.law == "mean_doubling":
        at = table.which[k]
        shown = states[path, plan.seen[k]]
        z[path, k] += np.einsum("kij,kj->ki", table.mean[at], shown) + table.shift[at]
        return struck
    if not table.root.any():
        raise ValueError("R must not be zero: the size of outliers is given in units of R")
    z[path, k] += additional_noise(outliers, table, struck, streams[1:])
    return struck


def innovation_outliers(
    shape: tuple[int, int, int], plan: Plan, outliers: Outliers, streams: list[np.random.Generator]
) -> tuple[Array, ObsMask]:
    """Additional state noise of struck steps (n, S, d), and their mask (n, S); never the start."""
    struck = struck_by(outliers, *shape[:2], streams[0])
    struck[:, 0] = False
    if not plan.step.root.any():
        raise ValueError("Q must not be zero: innovation outliers are in units of the step's noise")
    increments = np.zeros(shape)
    increments[struck] = additional_noise(outliers, plan.step, struck, streams[1:])
    return increments, struck


def jump_increments(
    jumps: Jumps, model: Any, plan: Plan, n: int, stream: np.random.Generator
) -> Array:
    """Jumps J at times s, propagated to the end of their steps: sum e^{A (t_k - s)} J (n, S, d)."""
    d = model.dim
    if jumps.cov.shape != (d, d):
        raise ValueError(f"jumps cov must have shape {(d, d)}, got {jumps.cov.shape}")
    gaps = np.diff(plan.times, prepend=plan.times[0])
    counts = stream.poisson(jumps.rate * gaps, size=(n, len(gaps)))
    path, k = (np.repeat(index, counts[counts > 0]) for index in np.nonzero(counts))
    increments = np.zeros((n, len(gaps), d))
    if len(path):
        sizes = stream.standard_normal((len(path), d)) @ covariance_root(jumps.cov).T
        left = stream.random(len(path)) * gaps[k]
        np.add.at(increments, (path, k), np.einsum("kij,kj->ki", model.transition(left)[0], sizes))
    return increments


def propagated(increments: Array, plan: Plan) -> Array:
    """Response of the states to increments (n, S, d): x_k = Phi_k x_{k-1} + increment_k."""
    out = increments.copy()
    Phi, which = plan.step.mean, plan.step.which
    for k in range(1, out.shape[1]):
        out[:, k] += out[:, k - 1] @ Phi[which[k]].T
    return out


def probabilities(value: Any, name: str) -> Array:
    """Numbers in [0, 1]; a mask, but no single boolean, counts as such."""
    p = real_array(value, name, booleans=np.ndim(value) > 0)
    if (p < 0).any() or (p > 1).any():
        raise ValueError(f"{name} must be probabilities in [0, 1], got {p.min():g}..{p.max():g}")
    return p


def missing_probability(missing: Any, n_times: int, p: int) -> Array | None:
    probability = probabilities(missing, "missing")
    if probability.shape not in ((), (p,), (n_times, p)):
        raise ValueError(
            f"missing must be a number or have shape (p,) = ({p},) or (T, p) = ({n_times}, {p}), "
            f"got {probability.shape}"
        )
    return probability if probability.any() else None
