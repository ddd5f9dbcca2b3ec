"""Learning models from data: maximum likelihood with its exact gradient, expectation-maximisation,
Student-t noise, AFA's own objective; intervals, bootstrap, likelihood ratios and residual checks.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "loglik":
        raise AttributeError(f"module 'afafilter.learning' has no attribute {name!r}")
    from afafilter.learning.likelihood import loglik

    return loglik
