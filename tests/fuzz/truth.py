"""What is right, and by how much the last bit of the inputs may change it.

An estimate is judged in standard deviations of the exact answer. Where it is off by more than
TOLERANCE the case is asked how well it is posed: the exact answer is taken again with every input
moved by a rounding (2^-53 of itself), and an error of EXCUSED times the change is excused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from flint import arb

from tests.exact_oracle import ExactGaussian, Imprecise, Law, each, exact_balls
from tests.fuzz.cases import Case

TOLERANCE = 1e-6
EXCUSED = 200.0
MOVED = 3
BORDER = (1e-15, 1e-14, 1e-12, 1e-11, 1e-10)
"""Sizes at which rounding may end and information begin: a direction in between is on the border."""

Ask = Callable[[ExactGaussian], Any]


class Verdict(NamedTuple):
    """outcome: "right", "excused", "warned", "refused" or "wrong"; error in standard deviations."""

    law: str
    outcome: str
    error: float
    note: str = ""


@dataclass
class Truth:
    """The exact law of a case and, when asked, of its neighbours."""

    case: Case
    seed: int
    stops: int | None = None
    known: dict[Any, ExactGaussian] = field(default_factory=dict)

    def exact(self, neighbour: int = 0, bits: int = 400) -> ExactGaussian:
        """The case itself, or one with all inputs moved by a rounding."""
        if (neighbour, bits) not in self.known:
            c = self.case
            change = exact_balls if neighbour == 0 else nudge(np.random.default_rng(
                [self.seed, neighbour]))  # fmt: skip
            queries = () if c.queries is None else c.queries
            self.known[neighbour, bits] = ExactGaussian(
                c.model, c.t, c.z, c.obs_cov, queries, change, bits
            )
        return self.known[neighbour, bits]

    def ask(self, what: Ask, neighbour: int = 0) -> Any:
        for bits in (400, 1600):
            try:
                return what(self.exact(neighbour, bits))
            except Imprecise:
                pass
        return what(self.exact(neighbour, 6400))

    def judge(self, name: str, what: Ask, found: Any, apart: Callable[[Any, Any], float]) -> Verdict:
        """Whether `found` is what the exact law says, errors counted by `apart`(found, wanted)."""
        wanted = self.ask(what)
        error = apart(found, wanted)
        if error <= TOLERANCE:
            return Verdict(name, "right", error)
        spread = max(apart(self.ask(what, k), wanted) for k in range(1, MOVED + 1))
        if error <= TOLERANCE + EXCUSED * spread:
            return Verdict(name, "excused", error)
        for border in BORDER:
            def asked(exact: ExactGaussian, border: float = border) -> Any:
                exact = exact.with_rounding(border)
                return what(exact)
            if apart(found, self.ask(asked)) <= TOLERANCE + EXCUSED * spread:
                return Verdict(name, "excused", error, "on the border")
        return Verdict(name, "wrong", error, f"found {found!r}, wanted {wanted!r}, moved {spread:.1e}")


def nudge(rng: np.random.Generator) -> Callable[[str, Any], Any]:
    """Inputs moved by up to a rounding; covariances by congruence, so that they stay ones."""

    def one(x: float) -> Any:
        return None if x != x else arb(float(x)) * (1 + arb(float(rng.uniform(-1, 1))) * arb(2) ** -53)

    def change(name: str, values: Any) -> Any:
        if name not in ("R", "Q", "cov"):
            return each(one, values)
        scale = each(one, np.ones(np.shape(values)[-1]))
        return exact_balls(name, values) * scale * scale[:, None]

    return change


def law_apart(found: Any, wanted: Law) -> float:
    """Largest error of mean and covariance in exact standard deviations; inf where gaps differ."""
    mean, cov = np.asarray(found[0]), np.asarray(found[1])
    if mean.shape != wanted.mean.shape:
        raise AssertionError(f"shape {mean.shape} for {wanted.mean.shape}")
    open_ = np.isnan(wanted.mean)
    if (np.isnan(mean) != open_).any() or (np.isinf(np.diag(cov)) != open_).any():
        return float("inf")
    if open_.all():
        return 0.0
    want, known = wanted.mean[~open_], np.ix_(~open_, ~open_)
    sd = np.sqrt(np.maximum(np.diag(wanted.cov)[~open_], 0.0)) + 1e-9 * np.abs(want) + 1e-200
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(mean[~open_] - want) / sd
        spread = np.abs(cov[known] - wanted.cov[known]) / sd / sd[:, None]
    worst = max(errors.max(), spread.max())
    return float("inf") if np.isnan(worst) else float(worst)


def number_apart(found: Any, wanted: Any) -> float:
    """Error of a log-likelihood, in its own unit: a nat is what one standard deviation costs."""
    error = abs(float(found) - float(wanted))
    return float("inf") if np.isnan(error) else error
