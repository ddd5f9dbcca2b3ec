"""The native core: `core` is the build that suits this processor.

`core/` at the top of the repository is compiled once per level of the x86-64 psABI (v2: SSE4.2,
v3: AVX2 and FMA, v4: AVX-512) and once elsewhere. Each package has one module that imports `core`
from here.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from types import ModuleType

PREFERRED = ("v4", "v3", "v2", "generic")
SPECIAL = ("sanitize", "threads")
"""Builds that are loaded only when asked for by name (`make sanitize`)."""


def built() -> tuple[str, ...]:
    """Levels that this installation holds, the highest first."""
    return tuple(level for level in PREFERRED if find_spec(f"{__name__}._{level}"))


def reached() -> int:
    """The level that the processor reaches: 1 to 4 on x86-64, 0 elsewhere."""
    if find_spec(f"{__name__}._probe") is None:
        return 0
    return int(importlib.import_module(f"{__name__}._probe").level)


def _runs(level: str, most: int) -> bool:
    return not level.startswith("v") or int(level[1:]) <= most


def choose(asked: str = "") -> str:
    """The level to load: the one asked for (AFAFILTER_CORE), else the highest that runs.

    Raises
    ------
    ImportError
        Nothing is built, or nothing that this processor can run.
    """
    levels, most = built(), reached()
    if asked:
        if asked not in levels and not (asked in SPECIAL and find_spec(f"{__name__}._{asked}")):
            raise ImportError(
                f"AFAFILTER_CORE asks for the build {asked!r}; this installation has "
                f"{', '.join(levels) or 'none'}"
            )
        if not _runs(asked, most):
            raise ImportError(
                f"AFAFILTER_CORE asks for the build {asked!r}; this processor reaches v{most}"
            )
        return asked
    if not levels:
        raise ImportError(
            "afafilter's native core is not built; install the package (pip install .), or in a "
            "checkout run: python setup.py build_ext --inplace"
        )
    for level in levels:
        if _runs(level, most):
            return level
    raise ImportError(
        f"afafilter was built for x86-64-{levels[-1]}, this processor reaches v{most}; "
        "install it anew on this machine (pip install --force-reinstall --no-deps .)"
    )


core: ModuleType = importlib.import_module(
    f"{__name__}._{choose(os.environ.get('AFAFILTER_CORE', ''))}"
)


def core_info() -> dict[str, str]:
    """What the compiled core is.

    Returns
    -------
    dict
        `level` (v2, v3, v4 or generic), `compiler` with its version, `built` (levels in this
        installation) and `version` of the package.

    Examples
    --------
    >>> from afafilter import core_info
    >>> sorted(core_info())[:2]
    ['built', 'compiler']
    """
    from afafilter._version import __version__

    return {
        "level": core.level,
        "compiler": core.compiler,
        "built": " ".join(built()),
        "version": __version__,
    }
