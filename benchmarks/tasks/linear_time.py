"""Plain AFA in linear time and by FFT, streams, and windowed robust AFA on a million samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import Arrays, Case, Library, Run, Task, estimates

Params = Mapping[str, Any]
CHECKED = 24
WINDOW = 512
NU = 4.0
OMEGA = 1.0

LAWS = {
    "r=-0.67": {"mu": 0.1, "sigma2": 0.3, "eta2": 0.5},
    "r=10": {"mu": 1.0, "sigma2": 0.2, "eta2": 1.1},
    "r=1000": {"mu": 1.0, "sigma2": 2e-3, "eta2": 1.001},
}
"""Named by r = (eta^2 - s2) / (s2 + gamma^2), s2 = sigma^2 / (2 mu), on which the fit depends."""


def inputs(params: Params) -> Arrays:
    """Isotropic data (N, d) at irregular or regular times."""
    from afafilter import LinearSDE, simulate

    rng = np.random.default_rng(params["seed"])
    N, d = params["N"], params["d"]
    t = 0.1 * np.arange(N) if params["regular"] else np.cumsum(rng.exponential(0.1, N))
    law = LAWS[params["law"]]
    A = np.kron(np.eye(d // 2), [[-law["mu"], -OMEGA], [OMEGA, -law["mu"]]])
    model = LinearSDE(A, Q=law["sigma2"] * np.eye(d), R=law["eta2"] * np.eye(d))
    return {"A": A, "Q": model.Q, "R": model.R, "t": t, "z": simulate(model, t, rng=rng).z[0]}


def estimator(inputs: Arrays, params: Params, **options: Any) -> Run:
    """adaptive_filter or adaptive_smoother with the options."""
    from afafilter import LinearSDE, adaptive_filter, adaptive_smoother

    model = LinearSDE(inputs["A"], Q=inputs["Q"], R=inputs["R"])
    estimate = adaptive_smoother if params["two_sided"] else adaptive_filter
    return estimates(lambda: estimate(model, inputs["t"], inputs["z"], **options))


def linear(inputs: Arrays, params: Params) -> Run:
    """Sum of exponentials."""
    return estimator(inputs, params, method="linear")


def fft(inputs: Arrays, params: Params) -> Run:
    """Convolution by FFT."""
    return estimator(inputs, params, method="fft")


def automatic(inputs: Arrays, params: Params) -> Run:
    """What method="auto" takes."""
    return estimator(inputs, params)


def tiles(inputs: Arrays, params: Params) -> Run:
    """All pairs, in tiles."""
    return estimator(inputs, params, method="isotropic")


def windowed(inputs: Arrays, params: Params) -> Run:
    """Robust AFA over the last WINDOW observations."""
    from afafilter import Power

    return estimator(inputs, params, weight=Power(NU), window=params["window"])


def stream(inputs: Arrays, params: Params) -> Run:
    """AdaptiveFilterStream, one update per sample."""
    from afafilter import AdaptiveFilterStream, LinearSDE

    model = LinearSDE(inputs["A"], Q=inputs["Q"], R=inputs["R"])

    def run() -> Arrays:
        state = AdaptiveFilterStream(model)
        found = [state.update(t, z) for t, z in zip(inputs["t"], inputs["z"])]
        return {
            "mean": np.array([e.mean[0] for e in found]),
            "cov": np.array([e.cov[0] for e in found]),
        }

    return run


def checked_queries(params: Params) -> Any:
    """Some queries, first and last among them."""
    return np.unique(np.linspace(0, params["N"] - 1, CHECKED).astype(int))


def reduce(result: Arrays, inputs: Arrays, params: Params) -> Arrays:
    """The checked queries of a result."""
    at = checked_queries(params)
    return {"mean": result["mean"][at], "cov": result["cov"][at]}


def expected(inputs: Arrays, params: Params) -> Arrays:
    """Estimates and claimed covariances of single queries, summed as the paper writes them."""
    z = np.ascontiguousarray(inputs["z"]).view(complex)
    t, law = inputs["t"], LAWS[params["law"]]
    mu, d = law["mu"], inputs["z"].shape[1]
    means, covs = [], []
    for i in checked_queries(params):
        first = max(0, i + 1 - params["window"]) if params["window"] else 0
        tau = t[i] - t[first : i + 1]
        pulled = np.exp((-mu + 1j * OMEGA) * tau)[:, None] * z[first : i + 1]
        V = law["sigma2"] * -np.expm1(-2 * mu * tau) / (2 * mu)
        P = 1 / (V + law["eta2"] * np.exp(-2 * mu * tau))
        if params["two_sided"]:
            # Later observations are pulled back; those beyond e^700 weigh nothing.
            back = t[i + 1 :] - t[i]
            back = back[mu * back < 300]
            later = z[i + 1 : i + 1 + len(back)]
            pulled = np.vstack([pulled, np.exp((mu - 1j * OMEGA) * back)[:, None] * later])
            V = law["sigma2"] * np.expm1(2 * mu * back) / (2 * mu)
            P = np.append(P, 1 / (V + law["eta2"] * np.exp(2 * mu * back)))
        if params["window"]:
            d2 = P * (np.abs(z[i] - pulled) ** 2).sum(axis=1)
            P = P * (1 + d2 / NU) ** -((NU + d) / d)
        means.append(P @ pulled / P.sum())
        covs.append(np.eye(d) / P.sum())
    return {"mean": np.array(means).view(float), "cov": np.array(covs)}


def _case(name: str, N: int, libraries: tuple[str, ...], **params: Any) -> Case:
    whole = {
        "N": N,
        "d": 2,
        "seed": N,
        "regular": False,
        "two_sided": False,
        "window": 0,
        "law": "r=-0.67",
        **params,
    }
    return Case(name, N, whole, libraries, params.get("threads", 1))


TOLERANCE = 1e-9
REGULAR = ("FFT", "sum of exponentials", "auto")
TASK = Task(
    "linear_time",
    "Plain AFA in linear time; windowed robust AFA",
    "No peer computes this; the N x N form in tiles is the comparison. Checked against the sums "
    "as the paper writes them on single queries.",
    (
        Library("sum of exponentials", linear, None, TOLERANCE),
        Library("FFT", fft, None, TOLERANCE),
        Library("auto", automatic, None, TOLERANCE),
        Library("tiles", tiles, None, TOLERANCE),
        Library("stream", stream, None, TOLERANCE),
        Library("windowed robust", windowed, None, TOLERANCE),
    ),
    (
        _case("irregular N=10000", 10_000, ("sum of exponentials", "tiles", "stream")),
        _case("irregular N=100000", 100_000, ("sum of exponentials",)),
        _case("irregular N=1000000", 1_000_000, ("sum of exponentials",)),
        _case("irregular N=1000000 r=10", 1_000_000, ("sum of exponentials",), law="r=10"),
        _case("irregular N=10000 r=1000", 10_000, ("auto",), law="r=1000"),
        _case("two-sided N=1000000", 1_000_000, ("sum of exponentials",), two_sided=True),
        _case("regular N=8192 d=64", 8192, REGULAR, regular=True, d=64),
        _case("regular N=1000000", 1_000_000, REGULAR, regular=True),
        _case("window 512 N=10000", 10_000, ("windowed robust",), window=WINDOW, threads=2),
        _case("window 512 N=100000", 100_000, ("windowed robust",), window=WINDOW, threads=2),
        _case("window 512 N=1000000", 1_000_000, ("windowed robust",), window=WINDOW, threads=2),
    ),
    inputs,
    {"N": 50},
    expected,
    reduce,
)
