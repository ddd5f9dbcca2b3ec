"""What a study says of estimators that never worked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any


def warn_of_failures(outcomes: Iterable[tuple[Any, str, Mapping[str, Any]]]) -> None:
    """A RuntimeWarning with the first error of those that failed in every cell.

    outcomes : place, estimator and what its cell holds, as in `StudyResult`.
    """
    first: dict[str, str] = {}
    worked: set[str] = set()
    for _, name, content in outcomes:
        if content["error"]:
            first.setdefault(name, content["error"])
        else:
            worked.add(name)
    lost = [name for name in first if name not in worked]
    if lost:
        warnings.warn(
            f"{', '.join(lost)} failed in every cell, so that scores are NaN; the first error: "
            f"{first[lost[0]]}. All are in StudyResult.errors; run(..., retry_failed=True) tries "
            "once more",
            RuntimeWarning,
            stacklevel=3,
        )
