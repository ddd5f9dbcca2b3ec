"""
Fit a model, check it, use it
=============================

The annual flow of the Nile as a local level: variances by maximum likelihood, how sure they are,
whether the residuals object, and what the fitted model says of the level.
"""

# %%
# A family is a sum of components with named parameters; starting values are guessed from the data.
from afafilter import datasets, diagnose, families, fit, likelihood_ratio, plotting, rts_smoother

nile = datasets.load_nile()
result = fit(families.brownian() + families.noise(), nile.t, nile.z)
print(result.summary())

# %%
# The variance of the level's steps is known poorly, and not symmetrically. The profile likelihood
# asks the data themselves; the Wald interval trusts a parabola in the logarithm.
print("profile:", [round(end) for end in result.profile("process_var")])
print("Wald:   ", [round(end) for end in result.interval()["process_var"]])

# %%
# Does the level move at all? The same model with the variance of the steps held at 0.
still = fit(families.brownian().fix(process_var=0.0) + families.noise(), nile.t, nile.z)
print(likelihood_ratio(still, result))

# %%
# The fitted model goes into every estimator.
smoothed = rts_smoother(result.model, nile.t, nile.z)
fig, ax = plotting.figure(height=2.2)
plotting.observations(nile.t, nile.z, ax=ax)
plotting.band(smoothed, ax=ax)
ax.set_ylabel("flow ($10^8$ m$^3$)")
ax.set_xlabel("year")
ax.legend()

# %%
# Under the right model standardised innovations are white and standard normal. Nothing objects.
checks = diagnose(result, nile.t, nile.z, lags=9)
with plotting.paper_style():
    fig, axes = plotting.figure(4, 1, height=6.6)
    plotting.diagnostics(checks, axes=axes)
checks.to_pandas()
