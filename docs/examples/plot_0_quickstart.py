"""
Simulate, estimate, compare
===========================

A noisy spiral, seen by plain AFA, a Kalman filter and an RTS smoother.
"""

# %%
# The model is data: the paper's two-dimensional system, with a flat prior for everybody.
from dataclasses import replace

import numpy as np

from afafilter import adaptive_filter, kalman_filter, plotting, rts_smoother, simulate, spiral

model = replace(spiral(process_var=0.05, obs_var=1.0), prior="diffuse")
t = 0.1 * np.arange(128)
data = simulate(model, t, n_paths=1, rng=np.random.default_rng(1), x0=np.array([20.0, 0.0]))

# %%
# Swapping the estimator is one word.
estimates = [f(model, t, data.z[0]) for f in (adaptive_filter, kalman_filter, rts_smoother)]

fig, axes = plotting.figure(3, 1, height=4.5, sharex=True, layout="constrained")
for ax, estimate in zip(axes, estimates, strict=True):
    plotting.observations(t, data.z[0], ax=ax)
    plotting.band(estimate, ax=ax)
    ax.plot(t, data.x[0, :, 0], "k-", lw=0.7, label="truth")
    ax.legend(loc="upper right")
axes[-1].set_xlabel("time")

# %%
# AFA claims too much: it counts shared process noise once per observation. The exact error law
# says by how much, without a single simulated path.
from afafilter import theory

law = theory.error_covariance(model, t, adaptive_filter)
print("true over claimed mean squared error at the last step:", law.overconfidence[-1].round(2))
print("efficiency against the Kalman filter:", theory.efficiency(model, t)[[1, 20, 127]].round(3))
