"""What is right, and by how much the last bit of the inputs may change it.

An estimate is judged in standard deviations of the exact answer, in as many of them as the data
themselves are off the model. Where it is off by more than TOLERANCE the case is asked how well it
is posed: the exact answer is taken again with every input moved by a rounding (2^-53 of itself),
and an error of EXCUSED times the change is excused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from flint import arb

from tests.exact_oracle import FORGOTTEN, ExactGaussian, Imprecise, Law, Singular, each, exact_balls
from tests.fuzz.cases import Case

BITS = (200, 400, 1600, 6400)
"""Of the arithmetic: more where the error bounds of an answer are too wide, or all looks singular
with the fewest."""

TOLERANCE = 1e-6
EXCUSED = 200.0
MOVED = 3
BORDER = (1e-200, 1e-30, 1e-15, 1e-14, 1e-12, 1e-11, 1e-10)
"""Sizes at which rounding may end and information begin: what lies in between is on the border.

The first takes the numbers of the model literally.
"""

GONE = (FORGOTTEN, 1e4 * FORGOTTEN, 1e-4 * FORGOTTEN)
"""Sizes from which on what has decayed may be forgotten."""

NOTHING = 1e-150
"""What has decayed to this is gone: adaptive estimators carry factors down to e^-300."""

Ask = Callable[[ExactGaussian], Any]


class Verdict(NamedTuple):
    """What one law says of one answer; error in standard deviations.

    outcome: "right"; "excused" by the condition; "warned" that it may be wrong; "needless" where
    that was said of answers that are all right; "refused" without need; "unasked" where there is no
    exact answer; "wrong".
    """

    law: str
    outcome: str
    error: float
    note: str = ""


@dataclass
class Truth:
    """The exact law of a case and, when asked, of its neighbours."""

    case: Case
    seed: int
    known: dict[Any, ExactGaussian] = field(default_factory=dict)

    def exact(self, neighbour: int, bits: int) -> ExactGaussian:
        """The case itself, or one with all inputs moved by a rounding."""
        if (neighbour, bits) not in self.known:
            c = self.case
            change = exact_balls if neighbour == 0 else nudge(self.seed, neighbour)
            queries = () if c.queries is None else c.queries
            self.known[neighbour, bits] = ExactGaussian(
                c.model, c.t, c.z, c.obs_cov, queries, change, bits
            )
        return self.known[neighbour, bits]

    def ask(self, what: Ask, neighbour: int = 0) -> Any:
        for bits in BITS[:-1]:
            try:
                return what(self.exact(neighbour, bits))
            except Imprecise:
                pass
            except Singular:
                if bits > BITS[0]:
                    raise
        return what(self.exact(neighbour, BITS[-1]))

    @cached_property
    def stretch(self) -> float:
        """By how many standard deviations the data are off the model, at least 1."""
        return float(self.ask(ExactGaussian.stretch))

    def judge(self, name: str, *answer: Any) -> Verdict:
        """Whether an answer is right; "unasked" where no number of bits tells."""
        try:
            return self._judge(name, *answer)
        except (Imprecise, Singular):
            return Verdict(name, "unasked", 0.0)

    def _judge(
        self, name: str, what: Ask, found: Any, distance: Callable[[Any, Any, float], float]
    ) -> Verdict:
        """Whether `found` is what the exact law says, errors counted by `distance`."""
        wanted = self.ask(what)
        stretch = self.stretch

        def apart(found: Any, wanted: Any) -> float:
            return distance(found, wanted, stretch)

        error = apart(found, wanted)
        if error <= TOLERANCE:
            return Verdict(name, "right", error)
        spread = max(apart(self.ask(what, k), wanted) for k in range(1, MOVED + 1))
        if error <= TOLERANCE + EXCUSED * spread:
            return Verdict(name, "excused", error)
        neighbours: list[Ask] = [lambda e, gone=gone: what(e.forgetful(gone)) for gone in GONE]
        neighbours += [lambda e, size=size: what(e.with_rounding(size)) for size in BORDER]
        neighbours.append(lambda e: what(e.forgetful().with_rounding(BORDER[0])))
        neighbours.append(lambda e: what(e.again(uncoupled(e.put))))
        laws = [wanted]
        for other in neighbours:
            laws.append(self.ask(other))
            if apart(found, laws[-1]) <= TOLERANCE + EXCUSED * spread:
                return Verdict(name, "excused", error, "on the border")
        if isinstance(wanted, Law) and on_border(found, laws):
            mine = [bordering(found, law) for law in laws]
            if (
                min((apart(*pair) for pair in mine if pair), default=np.inf)
                <= TOLERANCE + EXCUSED * spread
            ):
                return Verdict(name, "excused", error, "on the border, part by part")
        return Verdict(
            name, "wrong", error, f"moved {spread:.1e}, found {found!r}, wanted {wanted!r}"
        )


def nudge(*seed: int) -> Callable[[str, Any], Any]:
    """Inputs, and what discretises them, moved by up to a rounding of each entry.

    A covariance is moved by congruence and by what is as large as a rounding beside its diagonal,
    so that it stays one. The same numbers are always moved alike.
    """
    eps = arb(2) ** -53

    def change(name: str, values: Any) -> Any:
        digits = each(lambda x: np.nan if x is None else float(x), values).astype(float).tobytes()
        rng = np.random.default_rng([*seed, crc32(name.encode() + digits)])

        def one(x: Any) -> Any:
            return None if x != x else arb(x) * (1 + arb(float(rng.uniform(-1, 1))) * eps)

        if name not in ("R", "Q", "cov", "V"):
            return each(one, values)
        cov = exact_balls(name, values)
        sd = each(lambda x: x.sqrt() if x > 0 else arb(0), np.einsum("...ii->...i", cov))
        scale = each(one, np.ones(cov.shape[-1]))
        v = sd * each(lambda x: arb(float(x)), rng.uniform(-1, 1, cov.shape[-1]))
        fresh = eps * v[..., :, None] * v[..., None, :]
        return cov * scale * scale[:, None] + (fresh if name != "R" else 0)

    return change


def uncoupled(put: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """Dynamics without the entries of pairs that drive each other by less than a rounding.

    Of their rates, in any units: what is left of 0 in another basis.
    """

    def change(name: str, values: Any) -> Any:
        balls = put(name, values)
        if name != "A":
            return balls
        rate = np.abs(np.diag(values))
        both = np.abs(values * values.T) <= (1e-15 * (rate + rate[:, None])) ** 2
        np.fill_diagonal(both, False)
        return np.where(both & (values != 0) & (values.T != 0), arb(0), balls)

    return change


def law_apart(found: Any, wanted: Law, stretch: float) -> float:
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
    sd = np.sqrt(np.maximum(np.diag(wanted.cov)[~open_], 0.0)) + 1e-9 * np.abs(want) + NOTHING
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.abs(mean[~open_] - want) / sd / stretch
        spread = np.abs(cov[known] - wanted.cov[known]) / sd / sd[:, None]
    worst = max(errors.max(), spread.max())
    return float("inf") if np.isnan(worst) else float(worst)


def on_border(found: Any, laws: list[Law]) -> bool:
    """Whether each component is open, or known, by one of the laws."""
    open_ = np.array([np.isnan(law.mean) for law in laws])
    mine = np.isnan(np.asarray(found[0]))
    return bool(np.where(mine, open_.any(axis=0), ~open_.all(axis=0)).all())


def bordering(found: Any, law: Law) -> tuple[Any, Law] | None:
    """What is found and a law that knows all of it, the law without what is open there."""
    open_ = np.isnan(np.asarray(found[0]))
    if np.isnan(law.mean[~open_]).any():
        return None
    cov = np.where(np.outer(open_, open_) & np.eye(len(open_), dtype=bool), np.inf, law.cov)
    cov[np.logical_xor.outer(open_, open_) | (np.outer(open_, open_) & np.isfinite(cov))] = 0.0
    return found, Law(np.where(open_, np.nan, law.mean), cov)


def number_apart(found: Any, wanted: Any, stretch: float) -> float:
    """Error of a log-likelihood, in its own unit: a nat is what one standard deviation costs."""
    error = abs(float(found) - float(wanted)) / (stretch**2 + 1e-9 * abs(float(wanted)))
    return float("inf") if np.isnan(error) else error
