"""
A study over a grid, on a cluster
=================================

How much does it cost to misjudge the process noise? A grid of true and assumed values, several
seeds, every estimator on the same paths; finished cells are kept, so that a study that was killed
goes on; and the work goes to dask as it goes to the cores of this machine.
"""

# %%
# A study is models, estimators and scenarios. A model may be a pair: the truth, and what estimators
# assume.
import tempfile

import numpy as np

from afafilter import Scenario, Study, brownian, kalman_filter, rts_smoother

truth = brownian(process_var=0.1, obs_var=1.0)
assumed = {0.1 * factor: factor for factor in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)}
models = {
    f"assumed {factor:g}": (truth, brownian(process_var=value, obs_var=1.0))
    for value, factor in assumed.items()
}
study = Study(
    models,
    {"filter": kalman_filter, "smoother": rts_smoother},
    {"regular": Scenario(np.arange(60.0), n_paths=40, x0=np.zeros(1), burn_in=20)},
    seeds=3,
    columns={f"assumed {factor:g}": {"factor": factor} for factor in assumed.values()},
)
print(len(study.cells), "cells")

# %%
# On dask: a client, and joblib's backend of that name. With ``Client("tcp://scheduler:8786")`` the
# same lines use a cluster. (``n_jobs=4`` without dask uses this machine.) Dask's monitors look at
# every worker up to a hundred times a second; looking less often matters where cells are small.
import dask
from distributed import Client, LocalCluster
from joblib import parallel_config

folder = tempfile.mkdtemp()
seldom = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "1s",
}
with (
    dask.config.set(seldom),
    LocalCluster(n_workers=1, processes=False, dashboard_address=None) as here,
    Client(here),
    parallel_config(backend="dask"),
):
    found = study.run(folder, progress=False)

# %%
# Run again, nothing is computed: the cells are there. Results do not depend on where they were
# made.
again = study.run(folder, progress=False)
assert again.frame["value"].equals(found.frame["value"])

# %%
# Pooled over seeds. Both are best with the true noise.
table = found.table(metric="rmse")
table

# %%
from afafilter import plotting

rmse = found.frame.query("metric == 'rmse' and component == 'all'")
fig, ax = plotting.figure(width=5, height=2.6, layout="constrained")
for name, rows in rmse.groupby("estimator", sort=False):
    mean = rows.groupby("factor")["value"].mean()
    ax.loglog(mean.index, mean, "o-", ms=3, label=name)
ax.axvline(1, color="0.5", lw=0.6)
ax.set(xlabel="assumed / true process noise", ylabel="RMSE")
ax.legend()
