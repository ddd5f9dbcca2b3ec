"""
Your own estimator in the comparison
====================================

An estimator is any function ``f(model, t, z, **options) -> Estimate``. Write one, and it can be
compared, studied and drawn like those that come with the package. Here: the moving average that
everybody begins with, against filters that know the model.
"""

# %%
# z has shape (..., T, p): leading axes are independent paths. The average claims the error of its
# noise; whether that is honest is what the comparison will say.
import numpy as np

from afafilter import Estimate


def moving_average(model, t, z, width=9):
    """The mean of the last `width` observations, for models that observe the state itself."""
    z = np.asarray(z)
    total = np.cumsum(z, axis=-2)
    mean = total / np.arange(1, len(t) + 1)[:, None]
    mean[..., width:, :] = (total[..., width:, :] - total[..., :-width, :]) / width
    used = np.minimum(np.arange(1, len(t) + 1), width)
    cov = np.broadcast_to(model.R / used[:, None, None], (*mean.shape, mean.shape[-1]))
    return Estimate(np.asarray(t), mean, cov, label=f"average of {width}")


# %%
# Everybody sees the same paths, so that differences are paired.
from functools import partial

from afafilter import adaptive_filter, compare, kalman_filter, ornstein_uhlenbeck

model = ornstein_uhlenbeck(rate=0.5, process_var=1.0, obs_var=0.5)
t = 0.1 * np.arange(150)
estimators = {
    "average of 9": moving_average,
    "average of 4": partial(moving_average, width=4),
    "AFA": partial(adaptive_filter, window=20),
    "Kalman": kalman_filter,
}
comparison = compare(estimators, model, t, 200, rng=0, steps=slice(20, None))
print(comparison)

# %%
# Is the difference real? Paired over paths, with intervals.
comparison.differences("Kalman", metrics=["rmse"])

# %%
# NEES is 1 for an estimator that knows its error. The averages claim too much: they count noise,
# and forget that the state has moved on.
ax = comparison.plot("rmse")
ax.figure.set_layout_engine("constrained")

# %%
# In a `Study` it is the same function. Which width is best depends on how fast the state moves:
import tempfile

from afafilter import Scenario, Study

speeds = {
    f"rate {rate:g}": ornstein_uhlenbeck(rate=rate, process_var=2 * rate, obs_var=0.5)
    for rate in (0.1, 0.5, 2.0)
}
study = Study(speeds, estimators, {"regular": Scenario(t, n_paths=50, burn_in=20)}, seeds=2)
found = study.run(tempfile.mkdtemp(), progress=False)
rmse = found.frame.query("metric == 'rmse' and component == 'all'")
rmse.pivot_table(index="estimator", columns="model", values="value", sort=False).round(3)
