"""Import time, the first call of compiled code, and a command."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
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


ESTIMATE = "afafilter estimate, 1000 rows"
COMMAND = "from afafilter.cli import main; main()"
MODEL = '[model]\npreset = "constant_velocity"\nprocess_var = 1.0\nobs_var = 1.0\n'


def estimate(inputs: Arrays, params: Mapping[str, Any]) -> Run:
    """The command on a table of 1000 rows, as a whole process."""
    folder = tempfile.TemporaryDirectory()
    data, model = (Path(folder.name, name) for name in ("z.csv", "model.toml"))
    rows = (f"{0.1 * k:.1f},{np.sin(0.1 * k):.6f}" for k in range(1000))
    data.write_text("\n".join(["t,z", *rows]) + "\n")
    model.write_text(MODEL)

    def run() -> Arrays:
        out = Path(folder.name, "out.csv")
        told = ["estimate", str(data), "--model", str(model), "-o", str(out), "--force"]
        subprocess.run([sys.executable, "-c", COMMAND, *told], check=True)
        return {"lines": np.array([len(out.read_text().splitlines())])}

    return run


IMPORTS = (
    "nothing",
    "numpy",
    OURS,
    "afafilter, kalman_filter",
    "filterpy",
    "statsmodels",
    "dynamax",
    "torch",
)

TASK = Task(
    "startup",
    "Import, first call, and a command",
    "Time of a new interpreter with the import, or the import and one call, in it; and of a "
    "command from its start to its end.",
    (
        Library("nothing", python("pass"), None),
        Library("numpy", python("import numpy"), "numpy"),
        Library(OURS, python("import afafilter"), None),
        Library("afafilter, kalman_filter", python("from afafilter import kalman_filter"), None),
        Library("filterpy", python("import filterpy.kalman"), "filterpy"),
        Library("statsmodels", python("import statsmodels.tsa.api"), "statsmodels"),
        Library("dynamax", python("import dynamax.linear_gaussian_ssm"), "dynamax"),
        Library("torch", python("import torch"), "torch"),
        Library("afafilter, rts_smoother", python(FIRST_CALL), None),
        Library(ESTIMATE, estimate, None),
    ),
    tuple(
        Case(name, size, {}, libraries, memory=False)
        for name, size, libraries in (
            ("import", 1, IMPORTS),
            ("import and first rts_smoother", 1, ("afafilter, rts_smoother",)),
            (ESTIMATE, 1000, (ESTIMATE,)),
        )
    ),
    lambda params: {},
)
