"""How results show themselves: short texts, HTML for notebooks, and pictures drawn elsewhere.

Results know no drawing. `plot` of a result asks for a part of the package by name; the face of the
package, which stands above all parts, says how each is loaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WIDTH = 70
LINES = 15
"""Longest text that a result prints of itself."""

EXTRAS = {"pyarrow": "parquet"}
"""Extras of the package that are not called as what they install."""

_LOADERS: dict[str, Callable[[], Any]] = {}


def offer(name: str, loader: Callable[[], Any]) -> None:
    """Say how the part called `name` is loaded when something below asks for it."""
    _LOADERS[name] = loader


def load(name: str) -> Any:
    """The part called `name`."""
    return _LOADERS[name]()


def shortened(text: str, lines: int = LINES) -> str:
    """At most so many lines: what is left out is counted in the last one."""
    rows = text.splitlines()
    if len(rows) <= lines:
        return text
    left = len(rows) - lines + 1
    return "\n".join([*rows[: lines - 1], f"... and {left} lines more"])


class ShownAsText:
    """A result that prints the text of its `str`, at most `LINES` lines of it."""

    def __repr__(self) -> str:
        return shortened(str(self))

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(shortened(str(self)))}</pre>"


class ShownByFields:
    """A record that prints one short line for each of its fields."""

    def _facts(self) -> dict[str, str]:
        from dataclasses import fields

        return {
            part.name: told(getattr(self, part.name))
            for part in fields(self)  # type: ignore[arg-type]
            if part.repr
        }

    def __repr__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self._facts().items()]
        return shortened("\n  ".join([type(self).__name__, *lines]))

    def _repr_html_(self) -> str:
        from html import escape

        left = "style='text-align:left'"
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        title = escape(type(self).__name__)
        return f"<div><strong>{title}</strong><table>{rows}</table></div>"


def told(value: Any) -> str:
    """One short line about a value: the shape of an array, the names in a mapping."""
    if getattr(value, "ndim", 0):
        return f"array {value.shape}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (Mapping, tuple, list)):
        names = [x if isinstance(x, (str, int)) else told(x) for x in value]
        text = ", ".join(map(str, names)) or "none"
    elif isinstance(value, ShownByFields):
        text = type(value).__name__
    else:
        text = repr(value).partition("\n")[0]
    if len(text) <= WIDTH:
        return text
    count = f" ({len(value)} in all)" if isinstance(value, (Mapping, tuple, list)) else ""
    return f"{text[: WIDTH - 4]} ...{count}"


def optional(package: str, what: str) -> Any:
    """A package that the toolkit does without, or ImportError that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        extra = EXTRAS.get(package, package)
        raise ImportError(f"{what} needs {package}: pip install 'afafilter[{extra}]'") from None


def component_names(d: int, given: Sequence[str] = (), letter: str = "x") -> list[str]:
    """The names of d components: those given, which must be as many, or x0, x1, ..."""
    if isinstance(given, str) or (given and len(given) != d):
        raise ValueError(f"names must be {d} names, one for each component, got {given!r}")
    return list(given) or [f"{letter}{i}" for i in range(d)]
