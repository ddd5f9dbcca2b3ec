"""
One measurement at a time
=========================

A drone's height arrives from a barometer, one value now and then, and must be estimated at once.
`KalmanStream` is the Kalman filter fed step by step; it survives a restart of the program.
"""

# %%
# The model: height and vertical speed, white acceleration. Times in seconds.
import json

import numpy as np

from afafilter import KalmanStream, constant_velocity, kalman_filter, simulate

model = constant_velocity(process_var=0.5, obs_var=0.8, prior="diffuse")
rng = np.random.default_rng(2)
t = np.cumsum(rng.exponential(0.25, 120))
data = simulate(model, t, x0=np.array([30.0, 0.5]), rng=rng)
z = data.z[0]
z[50:62] = np.nan  # the barometer is silent for a while

# %%
# In the loop: feed what arrives, ask for what is needed, also ahead of time.
stream = KalmanStream(model)
now, ahead = [], []
for time, value in zip(t[:60], z[:60], strict=True):
    estimate = stream.update(time, value)
    now.append(estimate.mean[..., 0].item())
    ahead.append(stream.predict(time + 0.5).mean[..., 0].item())
print(f"at {time:.1f} s: {now[-1]:.1f} m, in half a second {ahead[-1]:.1f} m")

# %%
# The program stops. What the stream knows is a few numbers: plain arrays, saved as you like.
saved = json.dumps({key: np.asarray(value).tolist() for key, value in stream.state().items()})
print(saved[:120], "...")
stream = KalmanStream.from_state(model, json.loads(saved))
for time, value in zip(t[60:], z[60:], strict=True):
    now.append(stream.update(time, value).mean[..., 0].item())

# %%
# Nothing was lost by it: the stream gives what the filter gives of the whole record.
whole = kalman_filter(model, t, z)
print("largest difference:", np.nanmax(np.abs(now - whole.mean[:, 0])))

from afafilter import plotting

fig, ax = plotting.figure(width=6.5, height=2.6, layout="constrained")
plotting.observations(t, z, ax=ax, markersize=4)
plotting.band(whole, ax=ax, label="stream, 95 %")
ax.axvline(t[60], color="0.5", lw=0.8, ls=":")
ax.set(xlabel="time (s)", ylabel="height (m)")
ax.legend()
