"""When rounding shows in an answer: measures that the recursions return, and their warnings.

Of a run (core/rank.h): barely, the largest relative rounding of what determines a flat direction;
hidden, by how many standard deviations an observation is off that counted as showing nothing of
one, or by which rows that determine directions cancel; lost, the largest variance of a
prediction over that of its observation; far, the largest square of a number that is observed over
that variance. Of an answer (`_base.unknown`): known, by how many standard deviations rounding may
leave off what counts as known beside directions that stay open.

Where they are not small the answer is taken again with other last digits of all inputs, and the
two are compared.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

DOUBTFUL = 1e-5
"""Standard deviations from which what is hidden, or counts as known, is said."""
LOST = 1e20
"""Variance of a prediction over that of its observation from which an update keeps six digits."""
UNSURE = 1e-12
"""Relative rounding of what determines flat directions from which an answer is taken again."""
HIDES = 1e-10
"""Standard deviations, likewise."""
MAGNIFIED = 5e16
"""Variance of a prediction, or square of a number, over that of its observation, likewise."""


class BarelyDetermined(RuntimeWarning):
    """Flat directions are seen so weakly that rounding shows in the result."""


class LostDigits(BarelyDetermined):
    """Predictions are so much less certain than observations that rounding shows in the result."""


class Doubts(NamedTuple):
    """What rounding may have done to an answer."""

    barely: float = 0.0
    hidden: float = 0.0
    lost: float = 0.0
    far: float = 0.0
    known: float = 0.0

    def unsure(self) -> bool:
        """Whether the answer had better be taken again."""
        barely, hidden, lost, far, known = self
        magnified = lost > MAGNIFIED or far > MAGNIFIED
        return barely > UNSURE or hidden > HIDES or magnified or known > DOUBTFUL

    def warn(self, stacklevel: int = 3) -> bool:
        """Warn where it is too much; whether it is."""
        _, hidden, lost, _, known = self
        said = [
            (text.format(size), kind)
            for text, kind, size, limit in (
                (HIDDEN, BarelyDetermined, hidden, DOUBTFUL),
                (KNOWN, BarelyDetermined, known, DOUBTFUL),
                (VAGUE, LostDigits, lost**0.5, LOST**0.5),
            )
            if size > limit
        ]
        for text, kind in said:
            warnings.warn(text, kind, stacklevel=stacklevel)
        return bool(said)


HIDDEN = (
    "rounding hides from an observation a flat direction of the start that later ones determine "
    "(an error of about {:.0e} standard deviations); give a proper prior, or times that count from "
    "the first one"
)
KNOWN = (
    "only rounding tells that a state is known beside a flat direction of the start that stays "
    "open (an error of about {:.0e} standard deviations); give a proper prior, or times that count "
    "from the first one"
)
VAGUE = (
    "an observation is {:.0e} times as precise as what predicts it: rounding shows in the results "
    "after it; give a flat start in place of a vague prior, or split the record where a state "
    "grows without data"
)
MOVES = (
    "{} with the last digit of the model's numbers{}: rounding shows in the result; give "
    "observations that tell the states apart, {}, or units and an origin that keep the data small"
)


def largest(doubts: list[Doubts]) -> Doubts:
    """The largest of each."""
    return Doubts(*map(max, *doubts)) if len(doubts) > 1 else doubts[0]


def warn_of_move(moved: float, where: str, remedy: str, stacklevel: int) -> None:
    """Say by how many standard deviations an answer moves; inf: what is determined changes."""
    what = "what is determined changes"
    if np.isfinite(moved):
        what = f"the estimate moves by {moved:.0e} standard deviations"
    warnings.warn(MOVES.format(what, where, remedy), LostDigits, stacklevel=stacklevel)
