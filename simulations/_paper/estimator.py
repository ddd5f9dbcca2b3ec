"""Model, propagation of uncertainty, and the estimator (v6 sec. 3.1, A.1-A.3; v1-v3 sec. 2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from afafilter import (
    LinearSDE,
    adaptive_filter,
    adaptive_smoother,
    elliptic_spiral,
    kalman_filter,
    pull_forward,
    rts_smoother,
    simulate,
    spiral,
    theory,
)
from simulations import context, diagonalisation
from simulations._paper.claims import Found, Verdict, claim, corrected, holds

Array = NDArray[np.float64]
PART = "Model and estimator"
LAGS = np.array([1e-3, 0.1, 1.0, 7.0])


def quadrature(model: LinearSDE, tau: float, sign: float = 1.0) -> Array:
    """int_0^tau e^{sign A s} Q e^{sign A^T s} ds by 40 Gauss-Legendre nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    Phi = expm((sign * tau * (nodes + 1) / 2)[:, None, None] * model.A)
    return np.asarray(tau / 2 * np.einsum("k,kab,bc,kdc->ad", weights, Phi, model.Q, Phi))


def apart(found: Array, wanted: Array) -> float:
    """Largest difference over the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def system(process_var: float = 0.3) -> LinearSDE:
    return replace(elliptic_spiral(process_var=process_var), prior="diffuse")


@claim(
    PART,
    "v6 eq. 1; v1-v3 sec. 2.1",
    "A linear SDE :math:`dx = A x\\,dt + B\\,dw` seen through :math:`z_k = C x(t_k) + v_k`; "
    "transitions compose: :math:`V(s + t) = \\Phi(t) V(s) \\Phi(t)^T + V(t)`.",
    "LinearSDE simulate",
)
def transitions_compose() -> Found:
    model = system()
    worst = 0.0
    for s, t in ((0.01, 0.5), (1.0, 2.5), (4.0, 9.0)):
        (A, _, V), (B, _, W), (C, _, U) = (model.transition(x) for x in (s, t, s + t))
        worst = max(worst, apart(B @ A, C), apart(B @ V @ B.T + W, U))
    return holds(worst, 1e-12)


@claim(
    PART,
    "v6 eq. 2, A.1; v1-v3 sec. 2.5",
    "The differential Lyapunov equation in closed form where A and Q share eigenvectors: "
    ":math:`\\lambda_Q (1 - e^{2 \\mathrm{Re}\\lambda\\,\\tau}) / (-2 \\mathrm{Re}\\lambda)` per "
    "mode.",
    "LinearSDE.transition",
    "lyapunov",
)
def closed_form_of_the_lyapunov_equation() -> Found:
    model = system()
    values, S = np.linalg.eig(model.A)
    inner = np.diag(np.linalg.solve(S, np.linalg.solve(S, model.Q).conj().T)).real
    worst = 0.0
    for tau in LAGS:
        mode = inner * -np.expm1(2 * values.real * tau) / (-2 * values.real)
        worst = max(worst, apart((S @ np.diag(mode) @ S.conj().T).real, quadrature(model, tau)))
    return holds(worst, 1e-12, "against quadrature")


@claim(
    PART,
    "v6 sec. 3.1, A.1 (assumption)",
    "A, Q and R are made simultaneously diagonalizable. For noises that are not, dropping what is "
    "off the diagonal of :math:`S^{-1} Q S^{-H}` is wrong; keeping it, "
    ":math:`(S^{-1} Q S^{-H})_{kl} (e^{(\\lambda_k + \\bar\\lambda_l) \\tau} - 1) / (\\lambda_k + "
    "\\bar\\lambda_l)`, is exact for any Q.",
    "LinearSDE.transition theory.error_covariance",
    "diagonalisation",
)
def simultaneous_diagonalisation() -> Found:
    model = elliptic_spiral(noise="data")
    written = float(diagonalisation.covariance_error(model, np.array([0.5]))[0])
    values, S = np.linalg.eig(model.A)
    sums = values[:, None] + values.conj()[None, :]
    inside = np.linalg.solve(S, np.linalg.solve(S, model.Q).conj().T)
    V = (S @ (inside * np.expm1(sums * 0.5) / sums) @ S.conj().T).real
    right = apart(V, quadrature(model, 0.5))
    quiet = diagonalisation.spiral_in_data(diagonalisation.QUIET[-1])
    filters = [
        diagonalisation.rmse(quiet, m, kalman_filter)
        for m in (quiet, diagonalisation.forced(quiet))
    ]
    return corrected(
        written,
        right,
        1e-10,
        "V off by {written} of itself at lag 0.5, exact to {right} with all entries; a Kalman "
        f"filter's RMSE goes from {filters[0]:.3f} to {filters[1]:.3f}",
    )


@claim(
    PART,
    "v6 A.2",
    "The variance of a pulled key stays bounded if and only if :math:`\\mathrm{Re}\\lambda < 0`. "
    "It also does at :math:`\\mathrm{Re}\\lambda = 0` in modes without process noise.",
    "LinearSDE.transition",
)
def bounded_variance() -> Found:
    def growth(decay: float, noise: float) -> float:
        model = LinearSDE.isotropic(decay, 1.0, process_var=noise, obs_var=1.0)
        late, later = (
            float(P[0, 0] ** 2 + P[0, 1] ** 2 + V[0, 0])
            for P, _, V in (model.transition(t) for t in (1e4, 1e6))
        )
        return later / late

    stable, drifting, still = growth(0.1, 1.0), growth(0.0, 1.0), growth(0.0, 0.0)
    iff = stable < 1.01 < drifting
    return corrected(
        float(still < 1.01),
        float(not iff),
        0.5,
        f"growth from lag 1e4 to 1e6: {stable:.3g} with decay, {drifting:.3g} without, "
        f"{still:.3g} without decay and noise",
    )


@claim(
    PART,
    "v6 sec. 3.1, A; v1-v3 sec. 2.2",
    "A key at lag :math:`\\tau` says :math:`\\hat z = e^{A\\tau} z_j` with covariance "
    ":math:`V(\\tau) + \\Phi R \\Phi^T`; one that lies ahead, :math:`V_B(\\tau) + \\Phi^{-1} R "
    "\\Phi^{-T}`, :math:`V_B = \\int_0^\\tau e^{-A s} Q e^{-A^T s} ds`.",
    "pull_forward",
    "pulled_forward",
)
def pulled_keys() -> Found:
    model = system()
    z = np.array([[1.0, -2.0], [0.5, 3.0]])
    found = pull_forward(model, [0.0, 2.0], z, 1.2)
    ahead, behind = expm(1.2 * model.A), expm(-0.8 * model.A)
    worst = max(
        apart(found.mean, np.stack([ahead @ z[0], behind @ z[1]])),
        apart(found.cov[0], quadrature(model, 1.2) + ahead @ model.R @ ahead.T),
        apart(found.cov[1], quadrature(model, 0.8, -1.0) + behind @ model.R @ behind.T),
    )
    return holds(worst, 1e-12)


@claim(
    PART,
    "v6 eq. 3-4, A.3; v1-v3 sec. 2.3",
    ":math:`\\bar z_i = (\\sum_j P_{ij})^{-1} \\sum_j P_{ij} \\hat z_{ij}`, errors of the keys "
    "taken as independent.",
    "adaptive_filter pull_forward",
    "first_figure",
)
def precision_weighted_average() -> Found:
    model, t = system(), np.array([0.0, 0.4, 0.5, 1.3, 2.0])
    z = simulate(model, t, rng=0, x0=[3.0, 1.0]).z[0]
    pulled = pull_forward(model, t, z, t[-1])
    P = np.linalg.inv(pulled.cov)
    wanted = np.linalg.solve(P.sum(axis=0), np.einsum("jab,jb->a", P, pulled.mean))
    return holds(apart(adaptive_filter(model, t, z).mean[-1], wanted), 1e-12)


@claim(
    PART,
    "v6 sec. 3.1, A.3",
    "The independence approximation is exact when Q = 0. With the query-side covariance "
    ":math:`R_\\Gamma > 0` that the paper asks for it is not: the weights are then no longer those "
    "of the maximum likelihood.",
    "adaptive_filter kalman_filter",
    "limits",
)
def exact_without_process_noise() -> Found:
    model, t = system(0.0), 0.3 * np.arange(40)
    z = simulate(model, t, rng=0, x0=[3.0, 1.0]).z[0]
    best = kalman_filter(model, t, z).mean
    plain, anchored = (
        apart(adaptive_filter(model, t, z, anchor_cov=G).mean[5:], best[5:])
        for G in (None, model.R)
    )
    return corrected(
        anchored,
        plain,
        1e-9,
        "from the Kalman filter of a flat prior: {written} with :math:`R_\\Gamma = R`, {right} "
        "with :math:`R_\\Gamma = 0`",
    )


@claim(
    PART,
    "v1-v3 sec. 2.3-2.4; v6 A.3",
    "The estimator under the joint law of the keys' errors is the Kalman filter (flat prior), in "
    "both directions the RTS smoother. The paper says that it takes a dense inverse; a recursion "
    "does it.",
    "adaptive_filter adaptive_smoother kalman_filter rts_smoother",
    "efficiency",
)
def joint_law_gives_the_kalman_filter() -> Found:
    model, t = system(), np.cumsum(np.random.default_rng(1).exponential(0.3, 40))
    z = simulate(model, t, rng=0, x0=[3.0, 1.0]).z[0]
    one = adaptive_filter(model, t, z, correlation="exact").mean
    two = adaptive_smoother(model, t, z, correlation="exact").mean
    filtered, smoothed = (f(model, t, z).mean for f in (kalman_filter, rts_smoother))
    return holds(max(apart(one, filtered), apart(two, smoothed)), 1e-9)


@claim(
    PART,
    "v6 sec. 3.1, A.3, A.5 (remark)",
    "With process noise correlated evidence is counted more than once, and the normaliser "
    ":math:`(\\sum_j P_{ij})^{-1}` is a posterior covariance. The first is true; what the second "
    "claims is too small by as much.",
    "theory.efficiency theory.error_covariance",
    "efficiency",
)
def counted_more_than_once() -> Found:
    model = replace(spiral(decay=0.1, process_var=0.3, obs_var=0.5), prior="diffuse")
    t = 0.1 * np.arange(100)
    efficiency = theory.efficiency(model, t)
    law = theory.error_covariance(model, t, adaptive_filter)
    claimed = float(law.overconfidence[-1])
    still = replace(model, Q=0.0 * model.Q)
    exact = theory.error_covariance(still, t, adaptive_filter)
    right = apart(exact.claimed[-1], exact.mse[-1])
    steps = ", ".join(f"{efficiency[k]:.3f}" for k in (1, 5, 20, 99))
    return corrected(
        claimed - 1.0,
        right,
        1e-9,
        f"efficiency {steps} at steps 1, 5, 20, 99; true over claimed variance {claimed:.1f} at "
        "the last, 1 without process noise (to {right})",
    )


@claim(
    PART,
    "v6 sec. 3.5, 3.7, F.3",
    "Heads with little decay integrate stably over long ranges. As estimators they do not: where "
    "decay and process noise are there, the many keys that know nothing, each drawn to zero, "
    "outvote the few that do.",
    "theory.length_error theory.critical_length LongRecordWarning",
    "context",
)
def long_records() -> Found:
    model = LinearSDE.isotropic(0.1, 1.0, process_var=0.1, obs_var=1.0, prior="diffuse")
    error = theory.length_error(model, 0.1, [64, 200_000])
    nothing = float(np.sqrt(0.1 / (2 * 0.1)))
    best = context.kalman_rmse(model)
    critical = theory.critical_length(model, 0.1)
    stays = error[1] < 1.5 * error[0]
    return Found(
        f"RMSE {error[0]:.3f} at 64 observations, {error[1]:.3f} at 200000 (the estimate 0: "
        f"{nothing:.3f}, Kalman {best:.3f}); critical length {critical:.0f}",
        Verdict.HOLDS if stays else Verdict.FAILS,
    )


@claim(
    PART,
    "v1-v3 sec. 3.10; v2 sec. 2.1",
    "A delay of the measurements and a bias b enter as a shift of the times and of the data.",
    "LinearSDE pull_forward",
    "extensions",
)
def delay_and_bias() -> Found:
    model, bias = system(), np.array([1.0, -2.0])
    late = replace(model, delay=0.3, offset=bias)
    t = 0.4 * np.arange(12)
    z = simulate(model, t, rng=2, x0=[3.0, 1.0]).z[0]
    wanted, found = (
        pull_forward(m, times, data, 5.0)
        for m, times, data in ((model, t, z), (late, t + 0.3, z + bias))
    )
    return holds(max(apart(found.mean, wanted.mean), apart(found.cov, wanted.cov)), 1e-12)
