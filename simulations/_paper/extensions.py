"""Extensions, radial-tangential model, approximations (v6 C; v1-v3 sec. 3.9, 4-5, B)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from afafilter import (
    LinearSDE,
    RadialTangentialSDE,
    StructuredNoise,
    adaptive_filter,
    isotropic_attention,
    linear_time_filter,
    radial_range,
    separable_weights,
    simulate,
)
from simulations import hypersphere
from simulations._paper.claims import Found, claim, corrected, holds, when
from simulations._paper.estimator import apart, system

Array = NDArray[np.float64]
PART = "Extensions"


@claim(
    PART,
    "v6 C.1; v1-v3 sec. 3.9",
    "A constant drift u moves a pulled key to :math:`e^{\\Lambda\\tau} (z + u_s/\\Lambda) - "
    "u_s/\\Lambda`. A is taken as stable; :math:`\\psi(\\tau) = \\int_0^\\tau e^{A s} u\\,ds` "
    "needs no inverse and holds for a singular A.",
    "LinearSDE adaptive_filter",
    "extensions",
)
def constant_drift() -> Found:
    model = replace(system(), drift=np.array([0.4, -1.0]))
    values, S = np.linalg.eig(model.A)
    shift = np.linalg.solve(S, model.drift) / values
    worst = 0.0
    for tau in (0.1, 2.0, 9.0):
        psi = (S @ (np.expm1(values * tau) * shift)).real
        worst = max(worst, apart(np.asarray(model.transition(tau)[1]), psi))
    free = LinearSDE(np.zeros((1, 1)), Q=np.eye(1), R=np.eye(1), drift=[2.0], prior="diffuse")
    moved = float(free.transition(3.0)[1][0])
    return when(
        worst < 1e-12 and moved == 6.0,
        f"largest deviation {worst:.0e}; A = 0: shift {moved:g} after 3 units at u = 2",
    )


@claim(
    PART,
    "v6 C.1",
    "The drift can be put into biases of queries, keys and values, "
    ":math:`u/\\lambda`: filter what is left, and take the bias off again.",
    "adaptive_filter isotropic_attention",
    "extensions",
)
def drift_as_bias() -> Found:
    model = LinearSDE.isotropic(0.2, 1.0, process_var=0.3, obs_var=0.5, prior="diffuse")
    drifting = replace(model, drift=np.array([0.4, -1.0]))
    t = 0.3 * np.arange(25)
    z = simulate(drifting, t, rng=1, x0=[2.0, 0.0]).z[0]
    rest = -np.linalg.solve(model.A, drifting.drift)
    wanted = (
        rest
        + isotropic_attention(
            None, None, z - rest, t, decay=0.2, frequency=1.0, process_var=0.3, key_var=0.5
        ).output
    )
    return holds(apart(adaptive_filter(drifting, t, z).mean, wanted), 1e-10)


@claim(
    PART,
    "v6 C.2",
    "Noise that depends on the lag, :math:`q(s) = \\mathrm{Re} \\sum_j c_j e^{\\gamma_j s}`: "
    ":math:`\\mathrm{Re} \\sum_j c_j (e^{\\gamma_j\\tau} - e^{-2\\mu\\tau}) / (2\\mu + "
    "\\gamma_j)`. At :math:`\\gamma_j = -2\\mu` that is 0/0; its limit is :math:`c_j \\tau "
    "e^{-2\\mu\\tau}`.",
    "StructuredNoise isotropic_attention structured_adaptive_filter",
    "extensions",
)
def structured_noise() -> Found:
    mu, t = 0.25, np.array([0.0, 2.0])
    gaps, written = [], []
    for rate in (-2.0, -2 * mu, 0.3j):
        noise = StructuredNoise([1.0, 1.0], [rate, 0.0])
        z = np.array([[1.0, 0.0], [0.0, 0.0]])
        out = isotropic_attention(
            None, None, z, t, decay=mu, process_var=0.6, key_var=0.5, prior="structured",
            structure=noise, return_weights=True,
        ).weights  # fmt: skip
        assert out is not None
        s = np.linspace(0.0, 2.0, 20_001)
        V = 0.6 * np.trapezoid(np.exp(-2 * mu * (2.0 - s)) * noise(s), s)
        P = np.array([1 / (V + 0.5 * np.exp(-4 * mu)), 1 / 0.5])
        gaps.append(apart(out[1], P / P.sum()))
        with np.errstate(invalid="ignore", divide="ignore"):
            top = np.exp(2 * rate) - np.exp(-4 * mu)
            closed = (top / np.complex128(2 * mu + rate)).real
        written.append(not np.isfinite(closed))
    return corrected(
        float(any(written)),
        max(gaps),
        1e-7,
        "against quadrature {right}, resonance included; the "
        "quotient as written is not a number there",
    )


@claim(
    PART,
    "v2 B.1",
    "Separable approximation of the precision kernel, :math:`1/(1 + a e^{-x}) \\approx 1 - "
    "\\frac{a}{1 + a} e^{-x/(1 + a)}`: exact at lag 0 and at infinity.",
    "separable_weights ExponentialSum",
    "efficiency",
)
def separable_kernel() -> Found:
    found = separable_weights(0.1, 0.05, 0.5, 0.3)
    ends = np.array([1 / 0.8, 1 / (0.25 + 0.3)])
    gap = apart(np.asarray(found(np.array([0.0, 1e4]))), ends)
    return holds(gap, 1e-12, f"relative error in between up to {found.bound:.2g}, at the ends")


@claim(
    PART,
    "v2 B.2, v1-v2 sec. 3.8.2",
    "The batch estimate by a recursive filter, :math:`O(1)` a step, with the separable kernel. "
    "Sums of more exponentials make it as exact as wanted.",
    "linear_time_filter separable_weights AdaptiveFilterStream",
    "cost",
)
def recursive_batch_estimate() -> Found:
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.05, obs_var=0.5, prior="diffuse")
    t = np.cumsum(np.random.default_rng(2).exponential(0.3, 300))
    z = simulate(model, t, rng=0, x0=[4.0, 0.0]).z[0]
    batch = adaptive_filter(model, t, z, method="isotropic").mean
    two = linear_time_filter(model, t, z, weights=separable_weights(0.1, 0.05, 0.5)).mean
    return corrected(
        apart(two, batch),
        apart(linear_time_filter(model, t, z).mean, batch),
        1e-8,
        "two exponentials {written} from the batch estimate, as many as wanted {right}",
    )


def radial(dim: int, tangential: float) -> RadialTangentialSDE:
    return RadialTangentialSDE(
        decay=0.1,
        frequency=1.0,
        radial_var=0.25 * tangential,
        tangential_var=tangential,
        obs_radial_var=0.1,
        obs_tangential_var=0.1,
        dim=dim,
    )


@claim(
    PART,
    "v1-v2 sec. 4.2, v2 B.3; v3 sec. 5",
    "Radial-tangential noise along the mean keeps its form, :math:`V(\\tau) = \\frac{1 - "
    "e^{-2\\mu\\tau}}{2\\mu} [s_t^2 (I - u u^T) + s_r^2 u u^T]`. That holds where "
    ":math:`(d - 1) s_t^2 \\tau \\ll |m|^2`; elsewhere the radius drifts outwards.",
    "RadialTangentialSDE radial_range",
    "radial_tangential",
)
def radial_covariance() -> Found:
    near, far = (
        radial_range(radial(dim, 0.3), radius, 1.0, n_paths=4000, rng=3)
        for dim, radius in ((3, 40.0), (16, 3.0))
    )
    error = 4 * near.standard_error
    return corrected(
        abs(far.radial_ratio - 1),
        abs(near.radial_ratio - 1),
        max(error, 0.1),
        f"radial variance over the closed form: {near.radial_ratio:.2f} at :math:`(d-1) s_t^2 "
        f"\\tau / |m|^2` = {near.spread:.1e}, {far.radial_ratio:.2f} at {far.spread:.1e}",
    )


@claim(
    PART,
    "v1-v2 sec. 4.5, v3 sec. 5",
    "On the sphere the maximum-likelihood direction is the normalised precision-weighted sum.",
    "hypersphere_direction",
    "hypersphere",
)
def direction_on_the_sphere() -> Found:
    return holds(hypersphere.likelihood_gap(3), 1e-5, "from a numerical maximum:")


@claim(
    PART,
    "v1-v2 sec. 4.5, v3 sec. 5",
    "Attention, residual step and normalisation of a Transformer block are one step to that "
    "direction. They are; as an estimator it is behind the Kalman filter of the same noises, "
    "normalised, once the state diffuses.",
    "hypersphere_step hypersphere_direction radial_adaptive_filter",
    "hypersphere",
)
def block_as_a_step() -> Found:
    gap = hypersphere.block_gap()
    angle = hypersphere.angles(3, hypersphere.SHOWN_PROCESS, 40)
    return when(
        gap < 1e-12,
        f"block and direction {gap:.0e} apart; rms angle {angle['one block']:.3f} against "
        f"{angle['Kalman, normalised']:.3f} for the normalised Kalman filter",
    )
