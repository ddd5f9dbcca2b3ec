"""What is found out once about what never changes (a model, its discretiser) is kept with it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

MOST = 32
"""Answers of one kind that are kept; then one begins anew."""
_KNOWN: WeakKeyDictionary[Any, dict[Hashable, dict[Hashable, Any]]] = WeakKeyDictionary()
_LOCK = Lock()
_NOTHING = object()


def remembered(owner: Any, key: Hashable, make: Callable[[], T]) -> T:
    """make(), or what it gave for this owner and key before; threads may make it twice.

    The kind of answer is the key, or its first part where it is a tuple.
    """
    kinds = _KNOWN.get(owner)
    if kinds is None:
        with _LOCK:
            kinds = _KNOWN.setdefault(owner, {})
    known = kinds.setdefault(key[0] if isinstance(key, tuple) else key, {})
    found: Any = known.get(key, _NOTHING)
    if found is _NOTHING:
        found = make()
        if len(known) >= MOST:
            known.clear()
        known[key] = found
    made: T = found
    return made
