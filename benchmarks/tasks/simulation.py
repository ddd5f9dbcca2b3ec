"""Simulating states and observations of a linear SDE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import OURS, Arrays, Case, Library, Run, Task

Params = Mapping[str, Any]
DT = 0.1


def inputs(params: Params) -> Arrays:
    """The paper's 2-D system from a fixed start."""
    from afafilter import spiral

    model = spiral()
    return {
        "A": model.A,
        "Q": model.Q,
        "R": model.R,
        "x0": np.array([3.0, 0.0]),
        "t": DT * np.arange(params["T"]),
    }


def ours(inputs: Arrays, params: Params) -> Run:
    """simulate: exact in law."""
    from afafilter import LinearSDE, simulate

    model = LinearSDE(inputs["A"], Q=inputs["Q"], R=inputs["R"])
    rng = np.random.default_rng(1)

    def run() -> Arrays:
        drawn = simulate(model, inputs["t"], params["paths"], rng=rng, x0=inputs["x0"])
        return {"x": drawn.x, "z": drawn.z}

    return run


def normals(inputs: Arrays, params: Params, bits: Any = np.random.SFC64) -> Run:
    """The standard normals alone that x and z need."""
    rng = np.random.Generator(bits(1))
    shape = (params["paths"], params["T"], len(inputs["A"]))

    def run() -> Arrays:
        return {"x": rng.standard_normal(shape), "z": rng.standard_normal(shape)}

    return run


def default_normals(inputs: Arrays, params: Params) -> Run:
    """The same from NumPy's default generator."""
    return normals(inputs, params, np.random.PCG64)


def torchsde(inputs: Arrays, params: Params) -> Run:
    """sdeint with its stochastic Runge-Kutta scheme, one step per observation."""
    import torch
    import torchsde as library

    torch.set_num_threads(params["threads"])
    torch.manual_seed(1)
    A = torch.from_numpy(inputs["A"].T.copy())
    B = torch.from_numpy(np.linalg.cholesky(inputs["Q"]))
    eta = torch.from_numpy(np.linalg.cholesky(inputs["R"]).T.copy())
    n = params["paths"]
    x0 = torch.from_numpy(np.tile(inputs["x0"], (n, 1)))
    t = torch.from_numpy(inputs["t"])

    class Spiral(torch.nn.Module):  # type: ignore[misc]
        noise_type, sde_type = "additive", "ito"

        def f(self, t: Any, y: Any) -> Any:
            return y @ A

        def g(self, t: Any, y: Any) -> Any:
            return B.expand(n, *B.shape)

    sde = Spiral()

    def run() -> Arrays:
        with torch.no_grad():
            x = library.sdeint(sde, x0, t, method="srk", dt=DT).permute(1, 0, 2).contiguous()
            z = x + torch.randn_like(x) @ eta
        return {"x": x.numpy(), "z": z.numpy()}

    return run


def diffrax(inputs: Arrays, params: Params) -> Run:
    """diffeqsolve with the ShARK scheme for additive noise, one step per observation."""
    import diffrax as library
    import jax
    import jax.numpy as jnp

    A, B = jnp.asarray(inputs["A"]), jnp.asarray(np.linalg.cholesky(inputs["Q"]))
    eta = jnp.asarray(np.linalg.cholesky(inputs["R"]))
    x0, t = jnp.asarray(inputs["x0"]), jnp.asarray(inputs["t"])
    d, steps = len(x0), len(inputs["t"]) - 1

    def one(key: Any) -> Any:
        drive, noise = jax.random.split(key)
        shape = jax.ShapeDtypeStruct((d,), x0.dtype)
        path = library.UnsafeBrownianPath(shape, drive, levy_area=library.SpaceTimeLevyArea)
        terms = library.MultiTerm(
            library.ODETerm(lambda t, y, args: A @ y),
            library.ControlTerm(lambda t, y, args: B, path),
        )
        found = library.diffeqsolve(
            terms, library.ShARK(), t[0], t[-1], None, x0, max_steps=steps,
            saveat=library.SaveAt(t0=True, steps=True), adjoint=library.ForwardMode(),
            stepsize_controller=library.StepTo(t),
        )  # fmt: skip
        x = found.ys[: steps + 1]
        return x, x + jax.random.normal(noise, x.shape, x.dtype) @ eta.T

    several = jax.jit(lambda key: jax.vmap(one)(jax.random.split(key, params["paths"])))
    keys = iter(jax.random.split(jax.random.key(1), 100_000))

    def run() -> Arrays:
        x, z = jax.block_until_ready(several(next(keys)))
        return {"x": x, "z": z}

    return run


def _products(x: Any) -> Any:
    """Components (n, d) and their pairwise products, (n, d + d d)."""
    return np.concatenate([x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)], axis=1)


def reduce(result: Arrays, inputs: Arrays, params: Params) -> Arrays:
    """Moments of states and observations half way and at the end: errors in standard errors."""
    out = {}
    for name, (place, moments) in _law(inputs, params).items():
        drawn = _products(result[name[0]][:, place])
        out[name] = np.sqrt(len(drawn)) * (drawn.mean(axis=0) - moments) / drawn.std(axis=0)
    return out


def expected(inputs: Arrays, params: Params) -> Arrays:
    """No error."""
    return {name: np.zeros(len(m)) for name, (_, m) in _law(inputs, params).items()}


def _law(inputs: Arrays, params: Params) -> dict[str, tuple[int, Any]]:
    """Exact first and second moments: name -> (place, moments)."""
    from scipy.linalg import expm

    A, Q = inputs["A"], inputs["Q"]
    out = {}
    for place in (params["T"] // 2, params["T"] - 1):
        # The paper's isotropic system: V is a multiple of Q.
        mu, s = -A[0, 0], inputs["t"][place]
        mean = expm(A * s) @ inputs["x0"]
        V = Q * (1 - np.exp(-2 * mu * s)) / (2 * mu)
        for name, cov in (("x", V), ("z", V + inputs["R"])):
            out[f"{name}{place}"] = (
                place,
                _products(mean[None])[0] + np.append(np.zeros(len(A)), cov.ravel()),
            )
    return out


LAW_ERROR = 5.0
"""Standard errors."""

TASK = Task(
    "simulation",
    "1000 paths of 1000 steps, d = 2, with observations",
    "Ours is exact in law. torchsde and diffrax take one step per observation with their cheapest "
    "scheme that suits additive noise. The normals alone bound what any exact simulator can do. "
    "Errors are those of moments, in standard errors.",
    (
        Library(OURS, ours, None, LAW_ERROR),
        Library("normals only (SFC64)", normals, "numpy", None, "the bound"),
        Library("normals only (NumPy default)", default_normals, "numpy", None, "the bound"),
        Library("torchsde SRK", torchsde, "torchsde", LAW_ERROR, "approximate"),
        Library("diffrax ShARK", diffrax, "diffrax", LAW_ERROR, "approximate"),
    ),
    tuple(
        Case(
            f"{n} x 1000" + (", 2 threads" if threads == 2 else ""),
            1000 * n,
            {"paths": n, "T": 1000, "threads": threads},
            (
                OURS,
                "normals only (SFC64)",
                "normals only (NumPy default)",
                "torchsde SRK",
                "diffrax ShARK",
            ),
            threads,
        )
        for n, threads in ((10, 1), (100, 1), (1000, 1), (1000, 2))
    ),
    inputs,
    {"paths": 400, "T": 20},
    expected,
    reduce,
)
