"""Import time, and the first call of compiled code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Run, Task

FIRST_CALL = (
    "import numpy as np, afafilter as f; m = f.spiral(); t = np.arange(50.0);"
    "f.rts_smoother(m, t, np.zeros((50, 2)))"
)


def python(code: str) -> Any:
    """A library whose call runs the code in a new interpreter."""

    def make(inputs: Arrays, params: Mapping[str, Any]) -> Run:
        def run() -> Arrays:
            subprocess.run([sys.executable, "-c", code], check=True)
            return {"done": np.ones(1)}

        return run

    return make


TASK = Task(
    "startup",
    "Import, and first call",
    "Time of a new interpreter with the import, or the import and one call, in it.",
    (
        Library("nothing", python("pass"), None),
        Library("numpy", python("import numpy"), None),
        Library(OURS, python("import afafilter"), None),
        Library("afafilter, kalman_filter", python("from afafilter import kalman_filter"), None),
        Library("filterpy", python("import filterpy.kalman"), "filterpy"),
        Library("statsmodels", python("import statsmodels.tsa.api"), "statsmodels"),
        Library("dynamax", python("import dynamax.linear_gaussian_ssm"), "dynamax"),
        Library("torch", python("import torch"), "torch"),
        Library("afafilter, rts_smoother", python(FIRST_CALL), None),
    ),
    (
        Case("import", 1, {}, ("nothing", "numpy", OURS, "afafilter, kalman_filter", "filterpy",
                               "statsmodels", "dynamax", "torch")),
        Case("import and first rts_smoother", 1, {}, ("afafilter, rts_smoother",)),
    ),
    lambda params: {},
)  # fmt: skip
