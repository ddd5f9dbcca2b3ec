"""numba's njit, with a cache on disk wherever one can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Any], Any]:
    """`numba.njit(**options)` that works where no cache can be written.

    numba refuses cache=True where neither the package's directory nor the user's cache is writable
    (a container without a home); here every process then compiles anew.
    """

    def compiled(function: Any) -> Any:
        try:
            kernel = numba.njit(**options)(function)
        except RuntimeError:
            kernel = numba.njit(**{**options, "cache": False})(function)
        return kernel

    return compiled
