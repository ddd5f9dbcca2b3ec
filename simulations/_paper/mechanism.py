"""The attention mechanism (v6 sec. 3.2-3.3, B.1-B.3, D; v1-v3 sec. 3)."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from afafilter import LinearSDE, Power, isotropic_attention, pull_forward, tensor_attention
from simulations._paper.claims import Found, Verdict, claim, contradiction, corrected, holds, when
from simulations._paper.estimator import apart

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
PART = "Attention mechanism"
MU, SIGMA2, ETA2, GAMMA2, NU, BETA = 0.2, 0.3, 0.5, 0.4, 4.0, 1.5
OMEGA = np.array([0.7, 1.9, 0.3])
T = np.arange(14.0)
NOISES = {"process_var": SIGMA2, "key_var": ETA2, "query_var": GAMMA2}


def draws(shape: tuple[int, ...] = (3, 14, 3)) -> Complex:
    rng = np.random.default_rng(11)
    return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def algorithm(q: Complex, k: Complex, v: Complex) -> Complex:
    """Algorithm 1 of v6 with N x N matrices: the value estimate."""
    lag = T[:, None] - T[None, :]
    E, turn = np.exp(-MU * np.abs(lag)), np.exp(-1j * OMEGA * T[:, None])
    Sigma = SIGMA2 / (2 * MU) * (1 - E**2) + ETA2 * E**2 + GAMMA2
    Q, K, V = q * turn, k * turn, v * turn
    square = (
        (np.abs(Q) ** 2).sum(-1)[:, None]
        + E**2 * (np.abs(K) ** 2).sum(-1)
        - 2 * E * (Q.conj() @ K.T).real
    )
    d = 2 * q.shape[-1]
    logits = BETA * (-np.log(Sigma) - (NU + d) / d * np.log1p(square / (NU * Sigma)))
    logits[lag < 0] = -np.inf
    A = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(((A / A.sum(axis=1, keepdims=True)) * E) @ V / turn)


def attention(q: Complex, k: Complex, v: Complex, **more: object) -> Complex:
    given = {
        "decay": MU,
        "frequency": OMEGA,
        "weight": Power(NU),
        "inverse_temperature": BETA,
        **NOISES,
        **more,
    }
    return np.asarray(isotropic_attention(q, k, v, T, **given).output)  # type: ignore[arg-type]


@claim(
    PART,
    "v6 eq. 6, B.3.1; v1-v3 sec. 3.6",
    "Isotropic decay and noise: :math:`\\Sigma(\\tau) = \\frac{\\sigma^2}{2\\mu} (1 - e^{-2\\mu"
    "\\tau}) + \\eta^2 e^{-2\\mu\\tau} + \\gamma^2`, one number for all channels.",
    "LinearSDE.isotropic pull_forward",
    "precision_kernel",
)
def isotropic_variance() -> Found:
    model = LinearSDE.isotropic(MU, OMEGA[:1], process_var=SIGMA2, obs_var=ETA2)
    cov = pull_forward(model, T, np.zeros((14, 2)), T[-1]).cov
    E2 = np.exp(-2 * MU * (T[-1] - T))
    wanted = SIGMA2 / (2 * MU) * (1 - E2) + ETA2 * E2
    return holds(apart(cov, wanted[:, None, None] * np.eye(2)), 1e-12)


@claim(
    PART,
    "v6 eq. 7, B.3.2; v1-v3 sec. 3.5",
    ":math:`|R_{ij}|^2 = |q_i|^2 + E_{ij}^2 |k_j|^2 - 2 E_{ij} \\mathrm{Re}(\\tilde q_i^H \\tilde "
    "k_j)`: one matrix product.",
    "isotropic_attention",
)
def squared_residuals() -> Found:
    q, k, _ = draws()
    lag = T[:, None] - T[None, :]
    turn = np.exp(-1j * OMEGA * T[:, None])
    E = np.exp(-MU * lag)
    product = ((q * turn).conj() @ (k * turn).T).real
    found = (np.abs(q) ** 2).sum(-1)[:, None] + E**2 * (np.abs(k) ** 2).sum(-1) - 2 * E * product
    moved = np.exp((-MU + 1j * OMEGA) * lag[..., None]) * k[None]
    return holds(apart(found, (np.abs(q[:, None] - moved) ** 2).sum(-1)), 1e-12)


@claim(
    PART,
    "v6 eq. 8, Algorithm 1, B.3.3; v1-v3 sec. 3.6, 4",
    "Isotropic robust filter attention, as the pseudocode says: rotate, score, softmax, decay, "
    "aggregate, rotate back.",
    "isotropic_attention Power",
    "attention_maps",
)
def algorithm_one() -> Found:
    q, k, v = draws()
    return holds(apart(attention(q, k, v), algorithm(q, k, v)), 1e-12)


@claim(
    PART,
    "v6 sec. 3.2, B.3.4, Algorithm 1",
    "The innovation step moves the values: :math:`V^+ = V + \\alpha (\\bar V - V)`.",
    "isotropic_attention",
)
def innovation_step() -> Found:
    q, k, v = draws()
    return holds(
        apart(attention(q, k, v, residual_step=0.3), v + 0.3 * (algorithm(q, k, v) - v)), 1e-12
    )


@claim(
    PART,
    "v6 B.1; v1-v3 sec. 3.1",
    "Tensor form: every channel its own dynamics, noise and precision, one robust weight of the "
    "distance summed over channels.",
    "tensor_attention",
)
def tensor_form() -> Found:
    q, k, v = draws()
    mu, noise = np.array([0.1, 0.4, 0.0]), np.array([0.3, 0.1, 0.2])
    signed = (T[:, None] - T[None, :])[..., None]
    lag = np.maximum(signed, 0.0)
    E2 = np.exp(-2 * mu * lag)
    gained = np.where(mu > 0, noise * (1 - E2) / (2 * np.where(mu > 0, mu, 1.0)), noise * lag)
    P = 1 / (gained + ETA2 * E2 + GAMMA2)
    pull = np.exp((-mu + 1j * OMEGA) * lag)
    d2 = (P * np.abs(q[:, None] - pull * k) ** 2).sum(-1)
    A = P * ((1 + d2 / NU) ** -((NU + 6) / 6))[..., None] * (signed >= 0)
    wanted = (A * pull * v).sum(1) / A.sum(1)
    found = tensor_attention(
        q, k, v, T, decay=mu, frequency=OMEGA, process_var=noise, key_var=ETA2, query_var=GAMMA2,
        weight=Power(NU),
    ).output  # fmt: skip
    return holds(apart(found, wanted), 1e-12)


@claim(
    PART,
    "v6 B.2.1, B.3.1, Algorithm 1",
    "On a regular grid the precision depends on :math:`|i - j|`. That is right for past keys; a "
    "future key is pulled back, :math:`e^{+\\mu|\\tau|}`, and its variance is "
    ":math:`e^{2\\mu|\\tau|} (V + \\eta^2) + \\gamma^2`.",
    "isotropic_attention pull_forward",
)
def toeplitz_kernel() -> Found:
    model = LinearSDE.isotropic(MU, OMEGA[:1], process_var=SIGMA2, obs_var=ETA2)
    lag = 3.0
    ahead, behind = (
        float(pull_forward(model, [t], np.zeros((1, 2)), lag).cov[0, 0, 0]) for t in (0.0, 2 * lag)
    )
    E2 = np.exp(-2 * MU * lag)
    formula = (SIGMA2 / (2 * MU) * (1 - E2) + ETA2) / E2
    assert abs(ahead / (SIGMA2 / (2 * MU) * (1 - E2) + ETA2 * E2) - 1) < 1e-12
    return corrected(
        behind / ahead - 1.0,
        abs(formula / behind - 1),
        1e-9,
        f"variances {ahead:.3f} and {behind:.3f} of a past and a future key at lag {lag:g}, "
        "corrected to {right}",
    )


@claim(
    PART,
    "v6 B.2.2-B.2.3",
    "Factors :math:`e^{\\lambda t_i}`, :math:`e^{-\\lambda t_j}` apart overflow on long records; "
    "with one decay per head the rotations factor and the decay stays a function of the lag.",
    "isotropic_attention linear_time_filter",
    "cost",
)
def factors_overflow() -> Found:
    with np.errstate(over="ignore"):
        lost = bool(np.isinf(np.exp(MU * 1e4)))
    q, k, v = draws()
    early, late = attention(q, k, v), np.asarray(
        isotropic_attention(
            q, k, v, T + 2.0**40, decay=MU, frequency=OMEGA, weight=Power(NU),
            inverse_temperature=BETA, **NOISES,
        ).output
    )  # fmt: skip
    gap = apart(late, early)
    return when(
        lost and gap < 1e-9,
        "the factor alone is infinite from a time of 3549 on; outputs of the "
        f"same data {2.0**40:.0e} later differ by {gap:.0e}",
    )


@claim(
    PART,
    "v6 abstract, sec. 3.2; v1-v3 sec. 3.2",
    "The memory of standard attention, :math:`O(N^2 + N d)`. In tiles with running sums it is "
    ":math:`O(N d)`.",
    "isotropic_attention",
    "cost",
)
def memory_of_attention() -> Found:
    n = 6000
    z = np.random.default_rng(0).standard_normal((n, 4))
    given = {"decay": MU, "frequency": OMEGA[:2], "weight": Power(NU, kappa=1.0), **NOISES}
    before = peak()
    isotropic_attention(z, z, z, 0.1 * np.arange(n), **given)
    grown = peak() - before
    return when(
        grown < 0.5 * 8 * n**2 / 2**20,
        f"less than half of the {8 * n**2 / 2**20:.0f} MiB that a "
        f"matrix of {n} by {n} takes (the process did not grow by as much)",
    )


def peak() -> float:
    """Largest memory that the process has had so far, MiB; 0 on systems that do not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@claim(
    PART,
    "v6 sec. 3.3, D.1",
    "Complex channels are pairs of real ones; a rotation is RoPE's, the inner product one real "
    "matrix product.",
    "isotropic_attention",
)
def real_channels() -> Found:
    q, k, v = draws()
    pairs = (x.view(np.float64) for x in map(np.ascontiguousarray, (q, k, v)))
    real = isotropic_attention(
        *pairs, T, decay=MU, frequency=OMEGA, weight=Power(NU), inverse_temperature=BETA, **NOISES
    ).output
    return holds(apart(np.ascontiguousarray(real).view(np.complex128), attention(q, k, v)), 1e-12)


@claim(
    PART,
    "v6 Fig. 2, B.3.3",
    "Rotate, aggregate, rotate back: the output depends on lags only, not on where time begins.",
    "isotropic_attention",
)
def output_depends_on_lags() -> Found:
    q, k, v = draws()
    given = {"decay": MU, "frequency": OMEGA, "weight": Power(NU), **NOISES}
    one, other = (np.asarray(isotropic_attention(q, k, v, T + s, **given).output) for s in (0, 64))
    return holds(apart(other, one), 1e-12)


@claim(
    PART,
    "v6 D.2 against D.2, E.2",
    "Setting :math:`\\sigma = 0.1 \\mu` makes the steady-state uncertainty :math:`\\sigma^2 / "
    "2\\mu` the same in every head. It makes it :math:`0.005 \\mu`; E.2 sets :math:`\\tilde"
    "\\sigma = 0.1 \\mu` instead.",
    "spectral_bank",
    "head_bank",
)
def initial_noise_of_heads() -> Found:
    decay = np.array([0.01, 0.1, 1.0])
    floor = (0.1 * decay) ** 2 / (2 * decay)
    other = (0.1 * decay) ** 2
    ratio = float(floor.max() / floor.min())
    return contradiction(
        ratio - 1.0,
        1e-9,
        f"largest over smallest of heads with decays 0.01 to 1: {ratio:.3g}, "
        f"with E.2's choice {other.max() / other.min():.3g}",
    )


@claim(
    PART,
    "v6 Algorithm 1, E.2 (M1) against B.3.5",
    "Heads without decay, learned by :math:`\\tilde\\sigma^2 = \\sigma^2 / 2\\mu`: then "
    ":math:`\\tilde\\sigma^2 (1 - E^2) = 0` at every lag, while the limit of B.3.5 has "
    ":math:`\\sigma^2 \\tau`.",
    "isotropic_attention",
    "precision_kernel",
)
def heads_without_decay() -> Found:
    tau, mu = 10.0, 1e-9
    fixed_floor = 0.3 * -np.expm1(-2 * mu * tau)
    model = LinearSDE.isotropic(0.0, 1.0, process_var=0.3, obs_var=0.0)
    diffusing = float(model.transition(tau)[2][0, 0])
    return contradiction(
        diffusing - fixed_floor,
        1e-6,
        f"process noise at lag 10: {fixed_floor:.0e} with :math:`\\tilde\\sigma^2 = 0.3` kept, "
        f"{diffusing:.3g} with :math:`\\sigma^2 = 0.3`",
    )


__all__ = ["PART", "Verdict"]
