"""What is simulated and scored in a study, apart from the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from afafilter._base.checks import Array, positive_int
from afafilter._base.tables import given_times
from afafilter.results import Trajectories
from afafilter.simulation.contamination import Gaps, probabilities


@dataclass(frozen=True, eq=False)
class Scenario:
    """What is simulated and scored, apart from the model.

    Parameters
    ----------
    t : ndarray, shape (T,)
        Times.
    n_paths : int
        Paths per cell.
    x0, outliers, missing
        As in `simulate`; x0 may be a function (rng, n) -> (n, d).
    burn_in : int
        Number of first steps that are not scored.
    simulator : callable, optional
        Replaces `simulate`, for a truth that is no linear SDE.

    Raises
    ------
    ValueError, TypeError
        Bad times, counts or burn-in.
    """

    t: Array
    n_paths: int = 100
    x0: Any = None
    outliers: Any = None
    missing: ArrayLike | Gaps = 0.0
    burn_in: int = 0
    simulator: Callable[..., Trajectories] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", given_times(self.t))
        positive_int(self.n_paths, "n_paths")
        if not isinstance(self.missing, Gaps):
            probabilities(self.missing, "missing")
        if positive_int(self.burn_in, "burn_in", low=0) >= len(self.t):
            raise ValueError(
                f"burn_in must leave at least one of the {len(self.t)} steps, got {self.burn_in}"
            )
