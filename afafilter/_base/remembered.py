"""What was found once is kept: a model is immutable, and calls on the same times recur."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MOST = 32
"""Answers that are kept; then one begins anew."""


def remembered(known: dict[bytes, T], key: bytes, find: Callable[[], T]) -> T:
    """What is known under the key; found and kept where nothing is."""
    found = known.get(key)
    if found is None:
        found = find()
        if len(known) >= MOST:
            known.clear()
        known[key] = found
    return found
