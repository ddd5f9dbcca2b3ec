"""
Fit, check, forecast
====================

The annual flow of the Nile at Aswan, 1871 to 1970: how variable is the level, do the residuals
object to the model, and what would one have said in 1950 of the next twenty years?
"""

# %%
# A model family in words; variances by maximum likelihood, with standard errors.
from afafilter import datasets, fit

nile = datasets.load_nile()
result = fit("brownian + noise", nile.t, nile.z)
print(result.summary())

# %%
# The variance of the level's steps is known poorly, and not symmetrically. The profile likelihood
# asks the data themselves; the Wald interval trusts a parabola in the logarithm.
print("profile:", [round(end) for end in result.profile("process_var")])
print("Wald:   ", [round(end) for end in result.interval()["process_var"]])

# %%
# Does the level move at all? The same model with still level, by a likelihood ratio.
from afafilter import families, likelihood_ratio

still = fit(families.brownian().fix(process_var=0.0) + families.noise(), nile.t, nile.z)
print(likelihood_ratio(still, result))

# %%
# Under the right model standardised innovations are white and standard normal. Nothing objects.
from afafilter import diagnose, plotting

checks = diagnose(result, nile.t, nile.z, lags=9)
with plotting.paper_style():
    fig, axes = plotting.figure(2, 2, width=6.5, height=4.2, layout="constrained")
    plotting.diagnostics(checks, axes=axes.ravel())
checks.to_pandas()

# %%
# Fitted to the years up to 1950 only, the model forecasts the twenty that follow. The band that a
# measurement should fall into has the noise in it: `observed`.
from afafilter import forecast, rts_smoother

past = nile.t <= 1950
early = fit("brownian + noise", nile.t[past], nile.z[past])
smooth = rts_smoother(early.model, nile.t[past], nile.z[past])
ahead = forecast(early.model, nile.t[past], nile.z[past], horizon_times=nile.t[~past])
low, high = ahead.observed().interval(0.95)
inside = (nile.z[~past] > low) & (nile.z[~past] < high)
print(f"inside the 95 % band: {inside.sum()} of {inside.size} years")

fig, ax = plotting.figure(width=6.5, height=2.6, layout="constrained")
plotting.observations(nile.t, nile.z, ax=ax, markersize=5)
plotting.band(smooth, ax=ax, label="level, 95 %")
plotting.band(ahead.observed(), ax=ax, label="forecast of a measurement, 95 %")
ax.set(xlabel="year", ylabel="flow ($10^8$ m$^3$)", ylim=(350, 1750))
ax.legend(ncols=3, loc="upper center")
