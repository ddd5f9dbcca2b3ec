"""
Your own CSV, with gaps and outliers
====================================

A weather station logs the temperature every half hour, more or less. It lost power for a night, and
now and then the sun hits the sensor. The file looks as loggers write them: a preamble, semicolons,
decimal commas, blanks for what is missing.
"""

# %%
# First such a file, so that this page runs anywhere. With yours, begin at `read_series`.
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
hours = np.sort(rng.uniform(0, 96, 190))
hours = hours[(hours < 40) | (hours > 49)]
truth = 12 + 5 * np.sin(2 * np.pi * (hours - 9) / 24) + 0.03 * hours
shown = truth + 0.5 * rng.standard_normal(len(hours))
struck = rng.choice(len(hours), 9, replace=False)
shown[struck] += rng.uniform(5, 9, len(struck))
stamps = pd.Timestamp("2024-06-01") + pd.to_timedelta(hours, unit="h").round("s")

path = Path(tempfile.mkdtemp()) / "station.csv"
lines = ["station 7, roof", "time;temperature"]
for when, value in zip(stamps, shown, strict=True):
    lines.append(f"{when};{value:.2f}".replace(".", ","))
lines[40] = lines[40].split(";")[0] + ";"
path.write_text("\n".join(lines))
print("\n".join(lines[:5]))

# %%
# Reading finds separator, decimal comma and preamble by itself. Dates become hours.
from afafilter import io

series = io.read_series(path, time_unit="h")
print(series)

# %%
# What is known of a temperature: it swings with the day, and drifts. `fit` finds how much of each.
# Student-t noise keeps the sunny spikes from being taken for noise of the sensor.
from afafilter import fit

result = fit("brownian + seasonal(24) + noise", series.t, series.z, method="student_t")
print(result.summary())

# %%
# The smoother, told that noise has heavy tails, fills the gap, leaves the spikes aside and says how
# sure it is. The weight of each measurement tells the spikes apart.
from afafilter import plotting, rts_smoother

robust = {"weight": "student_t", "anchor": "estimate"}
estimate = rts_smoother(result.model, series.t, series.z, **robust)
at = np.linspace(0, 96, 800)
smooth = rts_smoother(result.model, series.t, series.z, query_times=at, **robust)
doubtful = estimate.info["robust_weights"] < 0.2
print("spikes found:", int(doubtful.sum()), "of", len(struck))

fig, ax = plotting.figure(width=6.5, height=2.6, layout="constrained")
plotting.band(smooth.observed(noise=False), ax=ax, label="temperature, 95 %")
t, z = series.t, series.z[:, 0]
ax.plot(t, z, ".", ms=3, color="0.5", label="measured")
ax.plot(t[doubtful], z[doubtful], "x", ms=5, color="C3", label="left aside")
ax.set(xlabel="hours since the first measurement", ylabel="temperature (°C)", ylim=(4, 32))
ax.legend(ncols=3, loc="upper center")

# %%
# A frame with dates goes in directly, and what comes back has its dates.
frame = pd.DataFrame(series.z, index=series.dates, columns=series.columns)
table = rts_smoother(result.model, frame, **robust).to_pandas()
table.head(3).round(2)

# %%
# The same without Python::
#
#     afafilter fit station.csv --time-unit h --family "brownian + seasonal(24) + noise" \
#         --method student_t -o model.toml
#     afafilter estimate station.csv --model model.toml --estimator irks \
#         -o smooth.csv --figure smooth.png
