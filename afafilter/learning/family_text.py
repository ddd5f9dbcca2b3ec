"""Families written in words: "local_linear_trend + seasonal(1, harmonics=2) + noise"."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from afafilter.io.model_toml import near
from afafilter.learning import families
from afafilter.learning.family import NO_STATE, Family
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

FAMILIES = tuple(name for name in families.__all__ if name.islower())
Model = LinearSDE | DiscreteModel | Family
LONGEST = 2000
"""Characters of the longest text that is read."""


def model_or_family(model: Model | str, t: Any) -> Model:
    """What is fitted at times t, words read.

    TypeError, ValueError: No model; no times of one in continuous time; what `parse_family`
    refuses.
    """
    if isinstance(model, str):
        model = parse_family(model)
    if not isinstance(model, (LinearSDE, DiscreteModel, Family)):
        raise TypeError(f"model must be a LinearSDE, DiscreteModel or Family, got {model!r}")
    if t is None and not isinstance(model, DiscreteModel):
        raise TypeError("t is needed for a continuous-time model")
    return model


def parse_family(text: str) -> Family:
    """A sum of families such as "local_linear_trend + seasonal(1, harmonics=2) + noise".

    ValueError: Anything but names of `afafilter.families` with plain arguments, joined by +.
    """
    if len(text) > LONGEST:
        raise ValueError(f"a family must take at most {LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"a family must be names joined by +, got {_short(text)}") from None
    found = _family(tree, text)
    if found.dim == 0:
        raise ValueError(f"family {_short(text)}: {NO_STATE}")
    return found


def _family(node: ast.expr, text: str) -> Family:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _family(node.left, text) + _family(node.right, text)
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not isinstance(name, ast.Name):
        raise ValueError(f"a family must be names joined by +, got {_short(text)}")
    if name.id not in FAMILIES:
        raise ValueError(
            f"unknown family {name.id!r}{near(name.id, FAMILIES)}; known are {', '.join(FAMILIES)}"
        )
    try:
        positional = [ast.literal_eval(a) for a in call.args] if call else []
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords} if call else {}
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"family {name.id!r} takes plain numbers, got {_short(text)}") from None
    function = getattr(families, name.id)
    takes = inspect.signature(function)
    try:
        takes.bind(*positional, **named)
    except TypeError:
        wanted = ", ".join(p.name + _default(p) for p in takes.parameters.values())
        raise ValueError(
            f"family {name.id!r} takes {f'({wanted})' if wanted else 'no arguments'}, "
            f"got {ast.unparse(node)}"
        ) from None
    try:
        found: Family = function(*positional, **named)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"family {name.id!r}: {error}") from None
    return found


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
