"""Adaptive Filter Attention beside the Kalman filter: simulate, estimate, compare, draw.

    from afafilter import spiral, simulate, adaptive_filter, kalman_filter

Everything public is listed in `__all__` and loaded when first used, so that the import is cheap.
What there is, and where, is read from `__init__.pyi`, which tells type checkers and editors the
same; ready-made models are listed where they are written, in `afafilter.models.presets`.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from afafilter._base.shown import offer
from afafilter._version import __version__ as __version__

_STUB = Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
_HOME: dict[str, str] = {
    name: home for home, name in re.findall(r"^from (\S+) import (\w+) as \2$", _STUB, re.M)
}

# Results below the drawing packages ask for them by name; only the face stands above both.
offer("plotting", lambda: importlib.import_module("afafilter.plotting"))
offer("report", lambda: importlib.import_module("afafilter.report"))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        home = importlib.import_module(_HOME[name])
        if home.__name__ == __name__ or not hasattr(home, name):  # a part of the package
            value = importlib.import_module(f"{_HOME[name]}.{name}")
        else:
            value = getattr(home, name)
    elif name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'afafilter' has no attribute {name!r}")
    else:
        presets = importlib.import_module("afafilter.models.presets")
        if name == "__all__":
            value = sorted([*_HOME, *presets.__all__])
        elif name in presets.__all__:
            value = getattr(presets, name)
        else:
            raise AttributeError(f"module 'afafilter' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
