"""numba's njit, with a cache on disk wherever one can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.options import DefaultOptions


def njit(counted: bool = True, **options: Any) -> Callable[[Any], Any]:
    """`numba.njit(**options)` that works where no cache can be written.

    numba refuses cache=True where neither the package's directory nor the user's cache is writable
    (a container without a home); here every process then compiles anew.

    counted : whether numba counts references to arrays. Every row that a kernel picks from an
        array is counted up and down, by calls that cost more than the arithmetic of a small
        matrix. A function that neither allocates arrays nor returns any needs no counts.
    """
    if not counted and hasattr(DefaultOptions, "_nrt"):
        options["_nrt"] = False

    def compiled(function: Any) -> Any:
        try:
            kernel = numba.njit(**options)(function)
        except RuntimeError:
            kernel = numba.njit(**{**options, "cache": False})(function)
        return kernel

    return compiled


_KERNEL: dict[str, Any] = {
    "cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}
}  # fmt: skip
jit = njit(**_KERNEL)
"""For recursions: products and sums may be fused, nothing else is reordered."""
bare = njit(counted=False, **_KERNEL)
"""The same for what runs at every node: neither allocates nor returns arrays."""
