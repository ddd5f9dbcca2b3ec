"""
Your own irregular, gappy measurements
======================================

Weekly carbon dioxide at Mauna Loa has 59 missing weeks; blanks are simply NaN.
"""

# %%
import numpy as np

from afafilter import datasets, kalman_filter, plotting, rts_smoother

series = datasets.load_co2()
model = datasets.co2_model()
print(series.name, series.z.shape, "missing:", int(np.isnan(series.z).sum()))

# %%
# The smoother fills the gaps and says how sure it is; `query_times` asks for any other time.
filtered = kalman_filter(model, series.t, series.z)
smoothed = rts_smoother(model, series.t, series.z)
print("log-likelihood:", round(float(filtered.loglik), 2))

fig, ax = plotting.figure(height=2.2)
plotting.observations(series.t, series.z, ax=ax)
plotting.band(smoothed, 0, ax=ax)
ax.set_ylabel("CO2, trend (ppm)")
ax.set_xlabel("time")
