"""A study that takes its time, for processes that are to be interrupted: few imports."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

from afafilter import Estimate, LinearSDE, Scenario, Shell, Study

CELLS = 12


def slow(model, t, z, log):
    if len(z) == 20:
        time.sleep(0.05)
        with open(log, "a") as file:
            file.write("x")
    return Estimate(t, z, np.broadcast_to(model.R, (*z.shape[:-1], *model.R.shape)), label="slow")


def run_study(folder: Path, jobs: int = 1):
    """The frame of all cells: 2 models, 2 scenarios, 3 seeds."""
    t, x0 = 0.1 * np.arange(16), Shell(5.0, 1.0)
    study = Study(
        models={
            name: LinearSDE.isotropic(0.1, 1.0, process_var=var, obs_var=1.0)
            for name, var in (("quiet", 0.1), ("loud", 0.5))
        },
        estimators={"slow": partial(slow, log=str(folder / "calls"))},
        scenarios={"long": Scenario(t, 20, x0=x0), "short": Scenario(t[:12], 20, x0=x0)},
        seeds=3,
    )
    return study.run(folder / "cells", n_jobs=jobs, progress=False).frame
