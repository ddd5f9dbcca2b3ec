"""Regimes, limits and the spectral coupling (v6 sec. 3.5-3.7, B.3.5-B.5, Fig. 1, 3-6, 12-15)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afafilter import Exponential, Power, elliptic_spiral, isotropic_attention, spectral_bank
from simulations import head_bank
from simulations._paper.claims import Found, Verdict, claim, corrected, holds, when
from simulations._paper.estimator import apart

Array = NDArray[np.float64]
PART = "Regimes and limits"
TAU = np.linspace(0.0, 40.0, 400)
MU, GAMMA2 = 0.1, 0.3


def variance(sigma2: float, eta2: float, mu: float = MU) -> Array:
    """Sigma over the lags, in floor and measurement noise."""
    E2 = np.exp(-2 * mu * TAU)
    return np.asarray(sigma2 / (2 * mu) * (1 - E2) + eta2 * E2 + GAMMA2)


@claim(
    PART,
    "v6 Fig. 1 (2-D system) against B.3.1",
    "The system of the figures, :math:`S\\,\\mathrm{diag}(-0.1 \\pm i) S^{-1}` with S not unitary, "
    "is isotropic in its eigenbasis. Isotropic decay as B.3.1 writes it, :math:`A = -\\mu I + "
    "\\Omega` with :math:`\\Omega` skew, does not contain it; after whitening by :math:`S S^H` it "
    "does.",
    "elliptic_spiral spiral",
    "embedding",
)
def the_two_dimensional_system() -> Found:
    model = elliptic_spiral()
    L = np.linalg.cholesky(model.R)

    def off(A: Array) -> float:
        return float(np.abs((A + A.T) / 2 + 0.1 * np.eye(2)).max())

    written, right = off(model.A), off(np.linalg.solve(L, model.A @ L))
    found = corrected(
        written,
        right,
        1e-12,
        f"symmetric part of A + 0.1 I: {{written}}, {{right}} after whitening; A = "
        f"{np.round(model.A, 3).tolist()}",
    )
    return found._replace(verdict=Verdict.CONTRADICTS) if written > 1e-12 else found


@claim(
    PART,
    "v6 sec. 3.2, 3.5, Fig. 3",
    "The sign of :math:`\\alpha = \\eta^2 - \\sigma^2/2\\mu` decides: precision falls with the lag "
    "(diffusive, :math:`\\alpha < 0`) or rises (integrative).",
    "isotropic_attention theory.equivalent_weights",
    "precision_kernel",
)
def two_regimes() -> Found:
    falls, rises = (np.diff(1 / variance(s, 0.5)) for s in (0.3, 0.05))
    return when(
        bool((falls < 0).all() and (rises > 0).all()),
        f"from lag 0 to 40 precision changes by {falls.sum():+.3f} where "
        f":math:`\\alpha = -1` and by {rises.sum():+.3f} where :math:`\\alpha = 0.25`",
    )


@claim(
    PART,
    "v6 B.4",
    "Bias and gate in closed form: :math:`-\\log\\beta - \\log(1 - \\frac{\\alpha'}{\\beta} "
    "e^{-2\\mu\\tau})` where diffusive, :math:`-\\log\\beta - \\mathrm{softplus}(\\ln "
    "\\frac{\\alpha}{\\beta} - 2\\mu\\tau)` and a sigmoid where integrative.",
    "isotropic_attention",
    "precision_kernel",
)
def bias_and_gate() -> Found:
    worst = 0.0
    for sigma2 in (0.3, 0.05):
        floor = sigma2 / (2 * MU)
        alpha, beta = 0.5 - floor, GAMMA2 + floor
        if alpha < 0:
            bias = -np.log(beta) - np.log1p(alpha / beta * np.exp(-2 * MU * TAU))
        else:
            x = np.log(alpha / beta) - 2 * MU * TAU
            bias = -np.log(beta) - np.logaddexp(0.0, x)
            worst = max(worst, apart(1 / (beta * (1 + np.exp(x))), 1 / variance(sigma2, 0.5)))
        worst = max(worst, float(np.abs(bias + np.log(variance(sigma2, 0.5))).max()))
    return holds(worst, 1e-12)


@claim(
    PART,
    "v6 Fig. 4 (caption), B.3.5",
    "For :math:`\\mu \\to 0` precision drops linearly with time. The variance grows linearly; "
    "precision is its inverse, a hyperbola.",
    "isotropic_attention",
    "precision_kernel",
)
def precision_without_decay() -> Found:
    grown = variance(0.3, 0.5, mu=1e-10)

    def bent(y: Array) -> float:
        line = y[0] + (y[-1] - y[0]) * TAU / TAU[-1]
        return float(np.abs(y - line).max() / np.ptp(y))

    return corrected(
        bent(1 / grown),
        bent(grown),
        1e-6,
        "from a straight line over lags 0 to 40: precision {written} of its range, variance "
        "{right}",
    )


@claim(
    PART,
    "v6 sec. 3.6, B.3.5",
    "ALiBi: at short lags without decay the bias is :math:`-\\log(\\eta^2 + \\gamma^2) - \\sigma^2 "
    "\\tau / (\\eta^2 + \\gamma^2)`. At long ones it is logarithmic, not linear.",
    "isotropic_attention",
    "limits",
)
def linear_bias() -> Found:
    x = np.array([0.01, 0.1, 10.0])
    gap = x - np.log1p(x)
    return when(
        bool((gap[:2] <= x[:2] ** 2 / 2).all()),
        f"error of the tangent {gap[0]:.0e}, {gap[1]:.1e} and {gap[2]:.2g} where "
        ":math:`\\sigma^2 \\tau / (\\eta^2 + \\gamma^2)` is 0.01, 0.1 and 10",
    )


def rotary(weight: object, gamma2: float, scale: float) -> tuple[Array, Array]:
    """Weights of noiseless attention, and softmax of rotary inner products."""
    rng = np.random.default_rng(4)
    q, k = rng.standard_normal((2, 10, 4)) + 1j * rng.standard_normal((2, 10, 4))
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    t, omega = np.arange(10.0), 100.0 ** (-np.arange(4) / 4)
    found = isotropic_attention(
        q, k, k, t, decay=0.0, frequency=omega, process_var=0.0, key_var=0.0, query_var=gamma2,
        weight=weight, value_frequency=0.0, return_weights=True,  # type: ignore[arg-type]
    ).weights  # fmt: skip
    assert found is not None
    turn = np.exp(-1j * omega * t[:, None])
    logits = scale * ((q * turn).conj() @ (k * turn).T).real
    logits[np.triu_indices(10, 1)] = -np.inf
    wanted = np.exp(logits - logits.max(1, keepdims=True))
    return found, wanted / wanted.sum(1, keepdims=True)


@claim(
    PART,
    "v6 sec. 3.6, B.3.5, abstract; v1-v3 sec. 3.7-3.8",
    "RoPE: without decay and noise and with normalised queries and keys, attention is softmax of "
    "rotary inner products; with :math:`\\Omega = 0` ordinary attention.",
    "isotropic_attention",
    "limits",
)
def rotary_limit() -> Found:
    exact = apart(*rotary(Exponential(4.0), 0.5, 2 / (4.0 * 0.5)))
    scale = 2.0
    rates = []
    for gamma2 in (1e2, 1e4):
        kappa = scale * 4.0 * gamma2 / 2
        rates.append(apart(*rotary(Power(4.0, kappa=kappa), gamma2, scale)))
    return when(
        exact < 1e-12 and rates[1] < 0.02 * rates[0],
        f"exponential weight: {exact:.0e}; power law at query variances of 1e2 and 1e4: "
        f"{rates[0]:.1e} and {rates[1]:.1e}",
    )


@claim(
    PART,
    "v6 sec. 3.7, B.5",
    ":math:`\\mu_h = b\\,\\omega_{h,\\max}`; over one period a signal is attenuated by "
    ":math:`e^{-b}`. A period lasts :math:`2\\pi/\\omega`: by :math:`e^{-2\\pi b}`; :math:`e^{-b}` "
    "is a radian's.",
    "spectral_bank",
    "head_bank",
)
def decay_per_period() -> Found:
    b, omega = 0.05, np.array([[1.0, 0.5], [0.25, 0.125]])
    decay = np.asarray(spectral_bank(omega, b).decay)
    assert apart(decay, b * omega.max(axis=1)) < 1e-12
    kept = np.exp(-decay * 2 * np.pi / omega.max(axis=1))
    written, right = (float(np.abs(kept - np.exp(-x)).max()) for x in (b, 2 * np.pi * b))
    return corrected(
        written,
        right,
        1e-12,
        f"kept over a period at b = {b:g}: {kept[0]:.3f}, not {np.exp(-b):.3f}",
    )


@claim(
    PART,
    "v6 Fig. 6 (caption)",
    "In double logarithmic scale the boundary :math:`\\mu = b\\,\\omega` is a line of slope b. Its "
    "slope is 1, log b its height.",
    "spectral_bank",
    "head_bank",
)
def slope_of_the_boundary() -> Found:
    b, omega = 0.05, np.geomspace(1.0, 1e-4, 8)[:, None]
    decay = np.asarray(spectral_bank(omega, b).decay)
    slope, height = np.polyfit(np.log(omega[:, 0]), np.log(decay), 1)
    return corrected(
        abs(slope - b),
        max(abs(slope - 1.0), abs(height - np.log(b))),
        1e-9,
        f"slope {slope:.3f}, height {height:.3f} = log b at b = {b:g}",
    )


@claim(
    PART,
    "v6 sec. 3.7",
    "In the integrative regime the decayed weight :math:`e^{-\\mu\\tau} / (\\alpha e^{-2\\mu\\tau} "
    "+ \\beta)` peaks at :math:`\\tau^* = \\log(\\alpha/\\beta) / 2\\mu`. That takes "
    ":math:`\\alpha > \\beta`, not only :math:`\\alpha > 0`.",
    "spectral_bank isotropic_attention",
    "head_bank",
)
def lag_of_the_peak() -> Found:
    tau = np.linspace(0.0, 100.0, 200_001)

    def peak(alpha: float, beta: float) -> tuple[float, float]:
        share = np.exp(-MU * tau) / (alpha * np.exp(-2 * MU * tau) + beta)
        return float(tau[share.argmax()]), float(np.log(alpha / beta) / (2 * MU))

    (there, law), (weak, weak_law) = peak(2.0, 0.3), peak(0.1, 0.3)
    return corrected(
        abs(weak - weak_law),
        abs(there - law) + abs(weak - max(weak_law, 0.0)),
        1e-3,
        f"measured {there:.3f}, law {law:.3f} at 2 against 0.3; {weak:.3g} and {weak_law:.3f} at "
        "0.1 against 0.3",
    )


@claim(
    PART,
    "v6 F.3, Fig. 12-13",
    "At 4096 keys rotary attention keeps listening to far ones, in periodic patterns; a linear "
    "bias (ALiBi) stays at the diagonal.",
    "isotropic_attention",
    "attention_maps",
)
def maps_at_long_context() -> Found:
    n, scale, slope = 4096, 4.0, 0.05
    omega = 1e4 ** (-np.arange(16) / 16)
    ones = np.ones((n, 16), complex) / 4.0
    t = np.arange(float(n))
    still = {"decay": 0.0, "process_var": 0.0, "key_var": 0.0, "query_var": 1.0}

    def far(**more: object) -> float:
        weights = isotropic_attention(
            ones[-1:],
            ones,
            ones,
            t,
            t_query=t[-1:],
            weight=Exponential(2 / scale),
            return_weights=True,
            **{**still, **more},  # type: ignore[arg-type]
        ).weights
        assert weights is not None
        return float(weights[0, : n - 512].sum())

    rotary_far = far(frequency=omega, prior="flat")
    linear_far = far(frequency=0.0, prior="linear", value_process_var=slope, value_query_var=1.0)
    return when(
        rotary_far > 0.5 and linear_far < 0.01,
        f"equal keys: {rotary_far:.2f} of the weight beyond 512 keys with rotations, "
        f"{linear_far:.0e} with a slope of {slope:g}",
    )


@claim(
    PART,
    "v6 sec. 3.7, F.3, Fig. 14-15",
    "Heads peak at lags proportional to :math:`1/\\mu_h`: a bank of lag-selective filters.",
    "spectral_bank HeadBank",
    "head_bank",
)
def peaks_of_the_bank() -> Found:
    found = head_bank.peaks()
    gap = float((found["measured"] / found["law"] - 1).abs().max())
    lags = ", ".join(f"{x:.0f}" for x in found["measured"])
    return Found(
        f"measured lags {lags}, from the law by {gap:.0e} at most",
        Verdict.HOLDS if gap < 1e-3 else Verdict.FAILS,
    )
