"""A statement of the paper, what checks it, and how a number becomes a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """What a check says of a statement."""

    HOLDS = "holds"
    CORRECTED = "holds with a correction"
    FAILS = "does not hold"
    CONTRADICTS = "contradicts itself"


class Found(NamedTuple):
    """What a check found, in words with numbers of the run, and what follows."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """One row of the page.

    key : name of the row's anchor and of its command.
    where : version, section, number in the paper.
    says : the statement in this project's notation, reStructuredText.
    functions : public names that do it here; experiment : the one that shows it.
    """

    key: str
    part: str
    where: str
    says: str
    functions: tuple[str, ...]
    experiment: str
    check: Callable[[], Found]


CLAIMS: list[Claim] = []


def claim(
    part: str, where: str, says: str, functions: str, experiment: str = ""
) -> Callable[[Callable[[], Found]], Callable[[], Found]]:
    """Register a check as a row; its name is the row's key."""

    def register(check: Callable[[], Found]) -> Callable[[], Found]:
        key = check.__name__.replace("_", "-")
        CLAIMS.append(Claim(key, part, where, says, tuple(functions.split()), experiment, check))
        return check

    return register


def size(x: float) -> str:
    """A number as it is printed."""
    return f"{x:.3g}" if abs(x) >= 1e-3 or x == 0 else f"{x:.0e}"


def holds(error: float, tolerance: float, what: str = "largest deviation") -> Found:
    """A statement that is exact, or a number that a tolerance bounds."""
    verdict = Verdict.HOLDS if error <= tolerance else Verdict.FAILS
    return Found(f"{what} {size(error)}", verdict)


def corrected(written: float, right: float, tolerance: float, text: str) -> Found:
    """Errors of a statement as it is written and as it is corrected."""
    if written <= tolerance:
        verdict = Verdict.HOLDS
    else:
        verdict = Verdict.CORRECTED if right <= tolerance else Verdict.FAILS
    return Found(text.format(written=size(written), right=size(right)), verdict)


def contradiction(gap: float, tolerance: float, text: str) -> Found:
    """How far two statements of the paper are apart."""
    verdict = Verdict.CONTRADICTS if gap > tolerance else Verdict.HOLDS
    return Found(text.format(gap=size(gap)), verdict)


def when(true: bool, text: str) -> Found:
    """A statement that is true or not."""
    return Found(text, Verdict.HOLDS if true else Verdict.FAILS)
