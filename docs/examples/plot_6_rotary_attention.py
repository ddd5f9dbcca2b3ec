"""
Rotary attention as a limit
===========================

You know softmax attention with rotary embeddings. Adaptive filter attention has it as a limit: keys
are carried along a linear SDE to the time of the query (the matrix exponential of a rotation *is*
the rotary embedding), and weighted by a robust function of their distance. This page says which
arguments give which.
"""

# %%
# Rotary attention with value rotation, written out plainly.
import numpy as np

from afafilter import Exponential, isotropic_attention

rng = np.random.default_rng(0)
n, d = 64, 8
q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, n, d)))
v = rng.standard_normal((n, d))
t = np.arange(n, dtype=float)
frequency = 10000.0 ** (-np.arange(d // 2) / (d // 2))


def rotary(q, k, v, t, scale):
    def turn(x):
        return (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(-1j * np.outer(t, frequency))

    logits = scale * (turn(q) @ turn(k).conj().T).real
    logits[np.triu_indices(n, 1)] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    out = (weights @ turn(v)) * np.exp(1j * np.outer(t, frequency))
    return np.stack([out.real, out.imag], axis=-1).reshape(n, d), weights


# %%
# The same from `isotropic_attention`: no decay, no process noise, no prior weight that depends on
# the lag, and a Gaussian kernel of the distance. With queries and keys of length 1,
#
# .. math:: \exp\bigl(-\beta\,|q - e^{\Omega\tau}k|^2 / (\nu\gamma^2)\bigr)
#           \propto \exp\bigl(2\beta\,\langle q, e^{\Omega\tau} k\rangle / (\nu\gamma^2)\bigr),
#
# so that the scale of the logits is :math:`2\beta/(\nu\gamma^2)`. It is exact, not only a limit.
scale = np.sqrt(d)
exact = isotropic_attention(
    q, k, v, t, frequency=frequency, decay=0.0, process_var=0.0, key_var=0.0,
    query_var=2 / scale, weight=Exponential(1.0), prior="flat", return_weights=True,
)  # fmt: skip
wanted, weights = rotary(q, k, v, t, scale)
print("largest difference from rotary attention:", np.abs(exact.output - wanted).max())

# %%
# The robust weight of a Student-t reaches it as a limit: its tails are heavier than those of a
# softmax, until nu grows.
from afafilter import Power

sizes = 10.0 ** np.arange(0, 7)
errors = [
    np.abs(
        isotropic_attention(
            q, k, v, t, frequency=frequency, decay=0.0, process_var=0.0, key_var=0.0,
            query_var=size, weight=Power(nu=1.0, kappa=scale * size / 2),
        ).output - wanted
    ).max()
    for size in sizes
]  # fmt: skip

# %%
# What the SDE adds: process noise and decay make old keys count less, as ALiBi does, but as the
# precision of a filter and not by a slope put in by hand.
sde = isotropic_attention(
    q, k, v, t, frequency=frequency, decay=0.02, process_var=0.05, key_var=0.05,
    query_var=2 / scale, weight=Exponential(1.0), return_weights=True,
)  # fmt: skip

from afafilter import plotting

fig, axes = plotting.figure(1, 3, width=7.0, height=2.3, layout="constrained")
plotting.weight_map(weights, vmax=0.3, ax=axes[0], colorbar=False)
axes[0].set_title("rotary")
plotting.weight_map(sde.weights, vmax=0.3, ax=axes[1])
axes[1].set_title("with decay and noise")
axes[2].loglog(sizes, errors, "o-", ms=3)
axes[2].set(xlabel=r"$\nu\gamma^2$", ylabel="distance to rotary")

# %%
# ============================  ====================================================================
# you want                      arguments
# ============================  ====================================================================
# softmax, no positions         ``frequency=0``, ``prior="flat"``, and as above
# rotary                        as above; ``value_frequency=0`` leaves the values unturned
# ALiBi                         ``prior="linear"``, ``frequency=0``, slope by ``value_process_var``
# a sliding window              ``window=128``
# heads                         a leading axis in q, k, v, one ``decay`` and ``frequency`` a head
# a filter                      ``q = k = v = z``, ``weight=None``: `adaptive_filter`
# ============================  ====================================================================
