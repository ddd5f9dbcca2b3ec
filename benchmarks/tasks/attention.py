"""Robust isotropic AFA beside PyTorch's fused softmax attention and the N x N form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Run, Task

Params = Mapping[str, Any]
LAW = {"mu": 0.1, "sigma2": 0.3, "eta2": 0.5, "gamma2": 0.1, "nu": 8.0}
CHECKED = 48
"""Queries whose results are compared with the sum written out."""
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}


def inputs(params: Params) -> Arrays:
    """q, k, v (N, d) in the dtype of the case, times (N,) irregular, frequencies (d/2,)."""
    rng = np.random.default_rng(params["seed"])
    N, d = params["N"], params["d"]
    q, k, v = (rng.standard_normal((N, d)).astype(params["dtype"]) for _ in range(3))
    return {
        "q": q,
        "k": k,
        "v": v,
        "t": np.cumsum(rng.exponential(0.1, N)),
        "omega": rng.uniform(0.1, 3.0, d // 2),
    }


def ours(inputs: Arrays, params: Params) -> Run:
    """isotropic_attention in tiles."""
    from afafilter import Power, isotropic_attention

    x, weight = inputs, Power(nu=LAW["nu"], kappa=params["kappa"])

    def run() -> Arrays:
        found = isotropic_attention(
            x["q"], x["k"], x["v"], x["t"], decay=LAW["mu"], frequency=x["omega"],
            process_var=LAW["sigma2"], key_var=LAW["eta2"], query_var=LAW["gamma2"],
            weight=weight, causal=True, threads=params["threads"],
        )  # fmt: skip
        return {"output": found.output}

    return run


def softmax(inputs: Arrays, params: Params) -> Run:
    """torch.nn.functional.scaled_dot_product_attention, causal."""
    import torch

    torch.set_num_threads(params["threads"])
    q, k, v = (torch.from_numpy(inputs[name])[None, None] for name in "qkv")

    def run() -> Arrays:
        with torch.inference_mode():
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return {"output": out[0, 0].numpy()}

    return run


def naive(inputs: Arrays, params: Params) -> Run:
    """The same estimate from N x N tensors in PyTorch."""
    import torch

    torch.set_num_threads(params["threads"])
    x = {name: torch.from_numpy(value) for name, value in inputs.items()}
    dtype = x["q"].dtype

    def turned(y: Any, angle: Any) -> Any:
        c, s = torch.cos(angle).to(dtype), torch.sin(angle).to(dtype)
        a, b = y[:, ::2], y[:, 1::2]
        return torch.stack([c * a - s * b, s * a + c * b], dim=-1).flatten(1)

    def run() -> Arrays:
        with torch.inference_mode():
            angle = x["t"][:, None] * x["omega"]
            q, k, v = (turned(x[name], -angle) for name in "qkv")
            tau = (x["t"][:, None] - x["t"]).to(dtype)
            E = torch.exp(-LAW["mu"] * tau)
            stationary = LAW["sigma2"] / (2 * LAW["mu"])
            S = stationary * -torch.expm1(-2 * LAW["mu"] * tau)
            S = S + LAW["eta2"] * E**2 + LAW["gamma2"]
            r2 = (q**2).sum(1)[:, None] + E**2 * (k**2).sum(1) - 2 * E * (q @ k.T)
            logits = -torch.log(S) - params["kappa"] * torch.log1p(r2 / (LAW["nu"] * S))
            past = torch.ones(logits.shape, dtype=torch.bool).tril()
            weights = torch.softmax(logits.masked_fill(~past, -torch.inf), dim=-1)
            mean = (weights * E.masked_fill(~past, 0.0)) @ v
            return {"output": turned(mean, angle).numpy()}

    return run


def checked_queries(params: Params) -> Any:
    """Some queries, first and last among them."""
    return np.unique(np.linspace(0, params["N"] - 1, CHECKED).astype(int))


def expected(inputs: Arrays, params: Params) -> Arrays:
    """The estimate of single queries, summed as the paper writes it, in complex float64."""
    q, k, v = (np.ascontiguousarray(inputs[x], dtype=float).view(complex) for x in "qkv")
    t, omega, mu = inputs["t"], inputs["omega"], LAW["mu"]
    rows = []
    for i in checked_queries(params):
        tau = (t[i] - t[: i + 1])[:, None]
        Phi = np.exp((-mu + 1j * omega) * tau)
        E2 = np.exp(-2 * mu * tau[:, 0])
        S = LAW["sigma2"] * (1 - E2) / (2 * mu) + LAW["eta2"] * E2 + LAW["gamma2"]
        d2 = (np.abs(q[i] - Phi * k[: i + 1]) ** 2).sum(axis=1) / S
        w = (1 + d2 / LAW["nu"]) ** -params["kappa"] / S
        rows.append((w / w.sum()) @ (Phi * v[: i + 1]))
    return {"output": np.array(rows).view(float)}


def reduce(result: Arrays, inputs: Arrays, params: Params) -> Arrays:
    """The checked queries of a result."""
    return {"output": result["output"][checked_queries(params)]}


def _cases() -> tuple[Case, ...]:
    cases = []
    for dtype in ("float64", "float32"):
        for kappa in (1.0, 2.5):
            for threads in (2, 1):
                for N in (8192, 1024, 2048, 4096, 16384):
                    main = kappa == 1.0 and dtype == "float64" and threads == 2
                    if N != 8192 and not main:
                        continue
                    names = [OURS, "torch softmax attention"]
                    if threads == 2 and N <= 8192:
                        names.append("torch N x N")
                    params = {
                        "N": N,
                        "d": 64,
                        "seed": N,
                        "dtype": dtype,
                        "kappa": kappa,
                        "threads": threads,
                    }
                    plural = "s" if threads > 1 else ""
                    name = f"N={N} {dtype} kappa={kappa:g} {threads} thread{plural}"
                    cases.append(Case(name, N, params, tuple(names), threads))
    return tuple(cases)


def _library(name: str, make: Any, module: str | None, compared: bool, note: str = "") -> Library:
    return Library(name, make, module, TOLERANCE["float32"] if compared else None, note)


TASK = Task(
    "attention",
    "Robust isotropic AFA, causal, d = 64, irregular times",
    "Power weight. Softmax attention is another function of the same size, the cost to meet; the "
    "N x N form computes the same estimate.",
    (
        _library(OURS, ours, None, True),
        _library("torch softmax attention", softmax, "torch", False, "other function, same size"),
        _library("torch N x N", naive, "torch", True),
    ),
    _cases(),
    inputs,
    {"N": 60, "d": 4},
    expected,
    reduce,
)
