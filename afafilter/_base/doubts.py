"""When rounding shows in an answer: measures that the recursions return, and their warnings.

Of a run (core/rank.h): barely, the largest relative rounding of what determines a flat direction;
hidden, by how many standard deviations an observation is off that counted as showing nothing of
one, or by which rows that determine directions cancel; lost, the largest variance of a
prediction over that of its observation.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

DOUBTFUL = 1e-5
"""Relative rounding, or standard deviations, from which flat directions are barely determined."""
LOST = 1e20
"""Variance of a prediction over that of its observation from which an update keeps six digits."""


class BarelyDetermined(RuntimeWarning):
    """Flat directions are seen so weakly that rounding shows in the result."""


class LostDigits(BarelyDetermined):
    """Predictions are so much less certain than observations that rounding shows in the result."""


BARELY = (
    "the data determine some flat directions of the start only through what rounding leaves of "
    "them (relative error about {:.0e}); give a proper prior, or observations that tell them apart"
)
HIDDEN = (
    "rounding hides from an observation a flat direction of the start that later ones determine "
    "(an error of about {:.0e} standard deviations); give a proper prior, or times that count from "
    "the first one"
)
VAGUE = (
    "an observation is {:.0e} times as precise as what predicts it: rounding shows in the results "
    "after it; give a flat start in place of a vague prior, or split the record where a state "
    "grows without data"
)


def warn_of_rounding(measures: Sequence[float], stacklevel: int = 3) -> bool:
    """Warn where barely, hidden or lost, the doubts of a run, are too large; whether any is."""
    barely, hidden, lost = measures
    if not (barely > DOUBTFUL or hidden > DOUBTFUL or lost > LOST):
        return False
    said = [
        (text.format(size), kind)
        for text, kind, size, limit in (
            (BARELY, BarelyDetermined, barely, DOUBTFUL),
            (HIDDEN, BarelyDetermined, hidden, DOUBTFUL),
            (VAGUE, LostDigits, lost**0.5, LOST**0.5),
        )
        if size > limit
    ]
    for text, kind in said:
        warnings.warn(text, kind, stacklevel=stacklevel)
    return bool(said)
