"""Calls in the habit of other tools, options that would do nothing, and how frozen dataclasses are
filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from afafilter._base.checks import frozen

T = TypeVar("T")


def rest_by_name(first: str, rest: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: one line of help where more than the first argument comes by position."""

    def decorate(cls: type[T]) -> type[T]:
        construct: Callable[..., None] = cls.__init__

        @wraps(construct)
        def init(self: T, *positional: Any, **named: Any) -> None:
            if len(positional) > 1:
                raise TypeError(
                    f"{cls.__name__} takes {first} alone by position, got {len(positional)} "
                    "arguments; name the others, whose order differs from tool to tool: "
                    f"{cls.__name__}({first}, {rest})"
                )
            construct(self, *positional, **named)

        setattr(cls, "__init__", init)  # noqa: B010
        return cls

    return decorate


def assign(instance: Any, **values: Any) -> None:
    """Set attributes of a frozen dataclass that is being made; arrays become read-only."""
    for name, value in values.items():
        kept = frozen(value) if isinstance(value, np.ndarray) else value
        object.__setattr__(instance, name, kept)


def refuse_idle(weight: object, options: Mapping[str, tuple[Any, Any]]) -> None:
    """ValueError where options (name -> given, usual) of a robust weight come without one."""
    idle = [f"{name}={given!r}" for name, (given, usual) in options.items() if given != usual]
    if weight is None and idle:
        raise ValueError(
            f"{' and '.join(idle)} would change nothing without a robust weight, got weight=None; "
            "give one, for instance weight=StudentT(4.0), or leave the rest out"
        )


def told_type(value: Any) -> str:
    """What was given in place of a model, and what to do about it."""
    if isinstance(value, type):
        return f"the class {value.__name__} (make one: {value.__name__}(...))"
    name = type(value).__name__
    return f"{name} (its .model is one)" if hasattr(value, "model") else name
