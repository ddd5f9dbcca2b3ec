"""What a user's function looks up by name: in its module, in other modules, in files it imports."""

from __future__ import annotations

import dis
import hashlib
import re
import sys
import types
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "afafilter"
BY_ANY_NAME = {"globals", "eval", "exec"}
"""Who asks for these, and spells none out, may look up every name of its module."""
BY_NAME = BY_ANY_NAME | {"getattr", "attrgetter", "vars", "__dict__", "modules"}
"""Who asks for these may look up what its text constants name."""


def top(module: str) -> str:
    return module.partition(".")[0]


def is_own(module: str) -> bool:
    return top(module) == PACKAGE


def of_python(module: str) -> bool:
    return top(module) in sys.stdlib_module_names


def is_users(module: str | None) -> bool:
    """Whether a module is one that the user edits: not this package, Python or an installed one."""
    if module is None or is_own(module) or of_python(module):
        return False
    return not _is_installed(Path(getattr(sys.modules.get(module), "__file__", None) or ""))


def _is_installed(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def looked_up(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Names that a function looks up in its module, and in users' modules, and what they are.

    Of what is decorated the inner functions too; nothing of Python, this package or others.
    """
    names, words = _asked(function.__code__)
    held, found = function.__globals__, []
    computed = names & BY_ANY_NAME and not words.intersection(held)
    whole = sorted(name for name in held if not name.startswith("__")) if computed else []
    asked = sorted(names | words if names & BY_NAME else names)
    parts = [(name, held.get(name)) for name in dict.fromkeys([*asked, *whole])]
    for name, part in parts:
        if isinstance(part, types.ModuleType):
            if is_users(part.__name__):
                parts += [(f"{name}.{n}", vars(part)[n]) for n in asked if n in vars(part)]
            continue
        depth = name
        while part is not None:
            makers = (types.FunctionType, types.BuiltinFunctionType, np.ufunc, type)
            if not isinstance(part, makers) or is_users(part.__module__):
                found.append((depth, part))
            part, depth = getattr(part, "__wrapped__", None), f"{depth} within"
    return found


def _asked(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names that code looks up and names in its text constants, of functions inside it too."""
    names, words = set(code.co_names), set[str]()
    for constant in _constants(code.co_consts):
        if isinstance(constant, types.CodeType):
            more, further = _asked(constant)
            names, words = names | more, words | further
        elif isinstance(constant, str):
            words |= {*re.findall(r"[^\W\d]\w*", constant)}
    return names, words


def _constants(values: Any) -> Iterator[Any]:
    """Constants of code, one by one out of tuples and sets."""
    for value in values:
        yield from _constants(value) if isinstance(value, (tuple, frozenset)) else (value,)


def imported(function: types.FunctionType) -> dict[str, str]:
    """Users' files that a function imports when it runs: module -> hash of its text."""
    left, out = [function.__code__], {}
    while left:
        code = left.pop()
        left += [x for x in code.co_consts if isinstance(x, types.CodeType)]
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                out[str(step.argval)] = _text_of(str(step.argval))
    return {name: text for name, text in sorted(out.items()) if text}


def _text_of(module: str) -> str:
    """The hash of the file of a user's module, found without importing it; "" for others."""
    if is_own(module) or of_python(module):
        return ""
    where, spec = None, None
    for name in module.split("."):
        spec = PathFinder.find_spec(name, where)
        where = None if spec is None else spec.submodule_search_locations
        if spec is None:
            return ""
    file = Path(spec.origin or "") if spec is not None else Path()
    if _is_installed(file) or not file.is_file():
        return ""
    return hashlib.sha256(file.read_bytes()).hexdigest()
