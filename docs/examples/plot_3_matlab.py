"""
F, H, Q, R from MATLAB
======================

You have a filter in MATLAB: discrete matrices F, H, Q, R, a start x0, P0, a recording. Save them
with ``save filter.mat F H Q R x0 P0 z``; this page makes such a file, then does what you would do.
"""

# %%
# A boat, position and velocity on two axes, a fix every second, some of them lost (NaN).
import tempfile
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat

dt, q, r = 1.0, 0.05, 4.0
axis = np.array([[1, dt], [0, 1]])
step_noise = q * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
F, Q = np.kron(np.eye(2), axis), np.kron(np.eye(2), step_noise)
H, R = np.kron(np.eye(2), [[1.0, 0.0]]), r * np.eye(2)
x0, P0 = np.array([0.0, 1.0, 0.0, 0.5]), np.diag([10.0, 1.0, 10.0, 1.0])

rng = np.random.default_rng(4)
x, z = x0, []
for _ in range(120):
    z.append(H @ x + rng.multivariate_normal(np.zeros(2), R))
    x = F @ x + rng.multivariate_normal(np.zeros(4), Q)
z = np.array(z)
z[rng.random(120) < 0.15] = np.nan
path = Path(tempfile.mkdtemp()) / "filter.mat"
savemat(path, {"F": F, "H": H, "Q": Q, "R": R, "x0": x0[:, None], "P0": P0, "z": z})

# %%
# `DiscreteModel` takes the matrices as they are. Two conventions matter: the prior is the law of
# the state *at the first measurement*, before that is seen (if your loop predicts before the first
# update, give F x0 and F P0 F' + Q); times run down the rows of z (transpose a 2 x N recording).
from afafilter import DiscreteModel, Prior, kalman_filter, rts_smoother

mat = loadmat(path)
model = DiscreteModel(
    mat["F"], Q=mat["Q"], H=mat["H"], R=mat["R"], prior=Prior(mat["x0"].ravel(), mat["P0"])
)
filtered = kalman_filter(model, mat["z"])
smoothed = rts_smoother(model, mat["z"])

# %%
# The MATLAB loop itself, line by line, to see that the numbers are the same.
m, P = mat["x0"].ravel(), mat["P0"]
for k, zk in enumerate(mat["z"]):
    if k > 0:
        m, P = F @ m, F @ P @ F.T + Q  # x = F*x;  P = F*P*F' + Q;
    if not np.isnan(zk).any():
        K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)  # K = P*H'/(H*P*H' + R);
        m, P = m + K @ (zk - H @ m), P - K @ H @ P  # x = x + K*(z - H*x);  P = P - K*H*P;
    assert np.allclose(m, filtered.mean[k])
    assert np.allclose(P, filtered.cov[k])
print("the same numbers at all", len(mat["z"]), "steps")

# %%
# New for free: lost fixes are just NaN, the smoother, and the likelihood that tells models apart.
from afafilter import plotting

fig, ax = plotting.figure(width=6.5, height=3.2, layout="constrained")
ax.plot(*mat["z"].T, ".", ms=3, color="0.5", label="fixes")
ax.plot(*filtered.mean[:, [0, 2]].T, lw=1, label="filter")
ax.plot(*smoothed.mean[:, [0, 2]].T, lw=1.5, label="smoother")
ax.set(xlabel="east (m)", ylabel="north (m)")
ax.legend()
print("log-likelihood:", round(float(filtered.loglik), 2))

# %%
# If your fixes are not equally spaced, write the model in continuous time instead: `LinearSDE` with
# drift matrix A and diffusion Q per second, or ready-made, `constant_velocity`. Then steps of any
# length are exact, and the matrices of one second are those above.
from afafilter import constant_velocity

continuous = constant_velocity(process_var=q, obs_var=r, dim=2)
Phi, _, V = continuous.transition(dt)
order = [0, 2, 1, 3]  # ours: both positions, then both velocities
assert np.allclose(Phi, F[np.ix_(order, order)])
assert np.allclose(V, Q[np.ix_(order, order)])
