"""Robust weights and what is iterated (v6 sec. 3.1, 3.4, A.4-A.5.1, C.3; v1-v3 sec. 2.6)."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from afafilter import (
    Exponential,
    LinearSDE,
    Power,
    StudentT,
    adaptive_filter,
    isotropic_attention,
    kalman_filter,
    ornstein_uhlenbeck,
    simulate,
    tensor_attention,
)
from simulations import _setups, stacking
from simulations._paper.claims import Found, Verdict, claim, contradiction, corrected, holds, when

Array = NDArray[np.float64]
PART = "Robust weights"
D2 = np.geomspace(0.01, 100.0, 60)


@claim(
    PART,
    "v6 eq. 5, A.4; v1-v3 sec. 2.6.1",
    "The robust weight of a key is the derivative of its penalty, :math:`w \\propto \\partial "
    "\\rho / \\partial d^2`: exponential :math:`e^{-d^2/\\nu}` or power law "
    ":math:`(1 + d^2/\\nu)^{-\\kappa}`.",
    "Exponential Power",
)
def weight_is_the_derivative() -> Found:
    step, worst, d2 = 1e-5, 0.0, D2[D2 < 10]
    for weight in (Exponential(4.0), Power(4.0), Power(4.0, kappa=2.0)):
        slope = (weight.rho(d2 + step, 2) - weight.rho(d2 - step, 2)) / (2 * step)
        ratio = slope / weight(d2, 2)
        worst = max(worst, float(np.abs(ratio / ratio[0] - 1).max()))
    return holds(worst, 1e-4, "from proportionality, by differences:")


@claim(
    PART,
    "v6 A.4",
    "The exponential weight belongs to a Gaussian likelihood. By eq. 5 it does not: "
    ":math:`\\rho = d^2/2` has the derivative 1/2, a constant weight; :math:`e^{-d^2/\\nu}` is "
    "Welsch's, bounded, penalty.",
    "Exponential",
)
def exponential_weight_is_not_gaussian() -> Found:
    weight = Exponential(4.0)(D2, 2)
    spread = float(weight.max() / weight.min())
    return when(
        spread < 1.01, f"largest over smallest weight for d² from 0.01 to 100: {spread:.1e}, not 1"
    )


@claim(
    PART,
    "v6 eq. 5 and A.4 against eq. 8 and A.5.1",
    "The power law belongs to a Student-t likelihood, with :math:`\\kappa = (\\nu + d)/d`. By eq. "
    "5 that likelihood has the weight :math:`(\\nu + d)/(\\nu + d^2)`, :math:`\\kappa = 1`; with "
    ":math:`(\\nu + d)/d` the weight is the density itself, to the power 2/d.",
    "StudentT Power",
)
def student_weight_or_density() -> Found:
    derivative, density = StudentT(4.0)(D2, 2), Power(4.0)(D2, 2)
    slopes = [np.polyfit(np.log(1 + D2 / 4.0), np.log(w), 1)[0] for w in (derivative, density)]
    return contradiction(
        abs(slopes[0] - slopes[1]),
        1e-6,
        f"exponents {slopes[0]:.3g} and {slopes[1]:.3g} at :math:`\\nu = 4`, d = 2: {{gap}} apart",
    )


@claim(
    PART,
    "v6 A.5.1, eq. 8",
    "With :math:`\\kappa = (\\nu + d)/d` the logit :math:`-\\log\\Sigma - \\kappa \\log(1 + d^2 / "
    "\\nu)` is the Student-t log density times 2/d, up to a constant.",
    "Power isotropic_attention",
)
def logit_is_a_scaled_log_density() -> Found:
    from scipy.stats import multivariate_t

    gaps = []
    for variance in (0.3, 2.0):
        for r in (0.0, 0.7, 5.0):
            x = np.array([r, 0.0, 0.0])
            logit = -np.log(variance) + np.log(Power(4.0)(r**2 / variance, 3))
            density = multivariate_t(np.zeros(3), variance * np.eye(3), df=4.0).logpdf(x)
            gaps.append(float(logit - 2.0 / 3.0 * density))
    return holds(float(np.ptp(gaps)), 1e-12, "spread of the difference:")


@claim(
    PART,
    "v6 A.5.1, displays 1 against 2 and 3",
    "The same logit is written with :math:`-\\kappa \\log(1 + d^2/\\nu)` and, twice, with a plus "
    "sign, under which a key weighs the more the worse it fits. Eq. 8 and Algorithm 1 have the "
    "minus.",
    "Power isotropic_attention",
)
def sign_of_the_logit() -> Found:
    minus, plus = (sign * 3.0 * np.log1p(10.0 / 4.0) for sign in (-1.0, 1.0))
    return contradiction(
        abs(plus - minus), 1e-6, "logits of a key at d² = 10 are {gap} apart (:math:`\\nu = 4`)"
    )


@claim(
    PART,
    "v6 A.5 against A.5, B.1",
    "Weights :math:`w(d^2_{ij})` of the distance summed over channels, and a few lines on logits "
    "of each channel's own residual: different estimators unless there is one channel. Here B.1 "
    "is followed.",
    "tensor_attention isotropic_attention",
    "channel_logits",
)
def per_channel_or_summed() -> Found:
    def gap(n: int) -> float:
        rng = np.random.default_rng(3)
        z = rng.standard_normal((12, n)) + 1j * rng.standard_normal((12, n))
        given = {
            "decay": 0.1,
            "process_var": 0.3,
            "key_var": 1.0,
            "query_var": 1.0,
            "weight": Power(4.0, kappa=1.5),
        }
        t, omega = 0.1 * np.arange(12), np.linspace(0.5, 1.5, n)
        summed = tensor_attention(z, z, z, t, frequency=omega, **given).output
        heads = z.T[..., None]
        each = isotropic_attention(heads, heads, heads, t, frequency=omega[:, None], **given)
        return float(np.abs(summed - each.output[..., 0].T).max())

    one, many = gap(1), gap(8)
    assert one < 1e-12
    return contradiction(
        many, 1e-9, f"outputs {{gap}} apart for 8 channels, {one:.0e} for one, data of size 1"
    )


@claim(
    PART,
    "v6 sec. 3.1, A.4; v1-v3 sec. 2.6",
    "Weighing keys by their distance from the query's own observation makes the estimate robust. "
    "One outlier at the query rejects everybody but itself; with the estimate as anchor it is "
    "robust.",
    "adaptive_filter",
    "robust_rivals",
)
def observation_as_anchor() -> Found:
    model, rng = _setups.paper_spiral(0.0), np.random.default_rng(5)
    data = simulate(
        model,
        _setups.TIMES,
        40,
        rng=rng,
        x0=_setups.ring_start(rng, 40),
        outliers=_setups.OUTLIERS(rate=0.1),
    )
    forms = {
        "kalman": kalman_filter,
        "written": _setups.observation_anchor,
        "right": partial(adaptive_filter, weight=StudentT(4.0), anchor="estimate", iterations=5),
    }
    rmse = {
        name: float(np.sqrt(stacking.squared(f(model, data.t, data.z).mean, data).mean()))
        for name, f in forms.items()
    }
    return corrected(
        rmse["written"] / rmse["kalman"],
        rmse["right"] / rmse["kalman"],
        1.0,
        f"RMSE with 10 % outliers: {rmse['written']:.3f} with the observation as anchor, "
        f"{rmse['right']:.3f} with the estimate, {rmse['kalman']:.3f} for the Kalman filter",
    )


@claim(
    PART,
    "v6 sec. 3.4, A.4; v1-v3 sec. 2.6.2",
    "Reweighting by the distance from the estimate and averaging again is iteratively reweighted "
    "least squares: every round lowers :math:`\\sum_j \\rho(d^2_{ij})`.",
    "adaptive_filter",
    "iterated",
)
def every_round_lowers_the_penalty() -> Found:
    model = LinearSDE.isotropic(0.0, 0.0, process_var=0.0, obs_var=1.0, prior="diffuse")
    t, weight = np.arange(30.0), StudentT(4.0)
    rng = np.random.default_rng(7)
    z = rng.standard_normal((30, 2)) + 8.0 * (rng.uniform(size=(30, 1)) < 0.3)
    values = []
    for rounds in range(1, 9):
        mean = adaptive_filter(
            model, t, z, weight=weight, anchor="estimate", iterations=rounds
        ).mean[-1]
        values.append(float(weight.rho(((z - mean) ** 2).sum(axis=-1), 2).sum()))
    rises = float(np.diff(values).max())
    return when(
        rises <= 1e-10,
        f"penalty {values[0]:.4g} after one round, {values[-1]:.4g} after eight, "
        f"largest change {rises:.1e}",
    )


@claim(
    PART,
    "v1-v3 sec. 2.6.3, 4.3",
    "The same reweighting inside a Kalman filter (IRKF): R is divided by the weight of the "
    "residual, and the update repeated.",
    "kalman_filter rts_smoother",
    "robust_rivals",
)
def reweighted_kalman_filter() -> Found:
    model = ornstein_uhlenbeck(0.5, process_var=1.0, obs_var=0.4)
    t, z = np.arange(6.0), np.array([0.2, -0.1, 9.0, 0.3, -0.4, 0.1])[:, None]
    found = kalman_filter(
        model, t, z, weight=StudentT(4.0), anchor="estimate", iterations=200
    ).mean[:, 0]
    (phi,), V = model.transition(1.0)[0][0], float(model.transition(1.0)[2][0, 0])
    m, P, R, wanted = 0.0, float(model.stationary_covariance()[0, 0]), float(model.R[0, 0]), []
    for k, (value,) in enumerate(z):
        if k:
            m, P = phi * m, phi * P * phi + V
        estimate = m
        for _ in range(500):
            noise = R / float(StudentT(4.0)((value - estimate) ** 2 / R, 1))
            estimate = m + P / (P + noise) * (value - m)
        m, P = estimate, P * noise / (P + noise)
        wanted.append(m)
    return holds(float(np.abs(found - wanted).max()), 1e-6, "from the textbook's loop:")


@claim(
    PART,
    "v6 C.3 against sec. 3.4, A.4",
    "Stacked layers are steps of the reweighting. As C.3 writes it, every layer carries the "
    "*estimates* of the layer below to the query, not the observations: that is another recursion, "
    "which smooths more with every layer.",
    "isotropic_attention",
    "stacking",
)
def stacked_layers() -> Found:
    table = stacking.errors(0.0, 0.0, 30)
    kalman = float(table["kalman"].iloc[0])
    by = table.pivot(index="layer", columns="form", values="rmse")
    literal, kept = by["keys from the layer below"], by["keys stay observations"]
    grows = bool((literal.diff().iloc[2:] > 0).all())
    verdict = Verdict.CONTRADICTS if grows and kept.iloc[-1] < 1.1 * kept.min() else Verdict.HOLDS
    return Found(
        f"RMSE {literal.iloc[1]:.3f} after two layers and {literal.iloc[-1]:.3f} after eight as "
        f"written, {kept.iloc[-1]:.3f} with observations as keys (Kalman filter {kalman:.3f})",
        verdict,
    )
