"""Kalman filter and RTS smoother of each peer, in its fastest documented form.

All take the discrete model x_k = F_k x_{k-1} + w, w ~ N(0, V_k), z_k = H x_k + v, v ~ N(0, R), with
N(m0, P0) the law of x_0 before z_0, and return the smoothed means (..., T, d) and covariances.
F (T, d, d) and V (T, d, d) lead to each observation (F[0], V[0] unused), or are (d, d) where the
grid is regular. Missing components are NaN in z; a peer that only knows whole rows gets rows of H
that are 0 with unit noise there, which is the same model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.contest import Array, Arrays, Run
from benchmarks.worker import limit_threads

Params = Mapping[str, Any]


def masked(inputs: Arrays) -> tuple[Array, Array, Array]:
    """z, H (..., T, p, d) and R (..., T, p, p) with missing components made uninformative."""
    seen = ~np.isnan(inputs["z"])
    p = seen.shape[-1]
    H = np.where(seen[..., None], inputs["H"], 0.0)
    pair = seen[..., :, None] & seen[..., None, :]
    R = np.where(pair, inputs["R"], np.eye(p))
    return np.where(seen, inputs["z"], 0.0), H, R


def sde(inputs: Arrays) -> Any:
    """The continuous-time model of the data."""
    from afafilter import LinearSDE, Prior

    x = inputs
    prior = Prior(mean=x["m0"], cov=x["P0"])
    return LinearSDE(x["A"], Q=x["Q"], R=x["R"], C=x["H"], prior=prior)


def ours_alone(inputs: Arrays, params: Params) -> Run:
    """`ours` on one core, whatever the process has."""
    run = ours(inputs, params)

    def alone() -> Arrays:
        cores = os.sched_getaffinity(0)
        limit_threads(1)
        try:
            return run()
        finally:
            os.sched_setaffinity(0, cores)

    return alone


def ours(inputs: Arrays, params: Params) -> Run:
    """afafilter from the continuous-time model and t: discretisation is part of the time."""
    from afafilter import rts_smoother

    x = inputs
    model = sde(x)
    shared = x["z"].ndim == 3 and not np.isnan(x["z"]).any()

    def run() -> Arrays:
        found = rts_smoother(model, x["t"], x["z"])
        return {"mean": found.mean, "cov": found.cov[0] if shared else found.cov}

    return run


def statsmodels(inputs: Arrays, params: Params) -> Run:
    """KalmanSmoother, asked for states and their covariances only."""
    from statsmodels.tsa.statespace import kalman_smoother as sm

    F, V, z = inputs["F"], inputs["V"], inputs["z"]
    p, d = inputs["H"].shape
    model = sm.KalmanSmoother(k_endog=p, k_states=d)
    model.bind(np.asfortranarray(z.T))
    model["design"], model["obs_cov"] = inputs["H"], inputs["R"]
    model["selection"] = np.eye(d)
    if F.ndim == 3:
        # Entry t leads from t to t + 1.
        model["transition"] = np.asfortranarray(np.moveaxis(np.roll(F, -1, axis=0), 0, -1))
        model["state_cov"] = np.asfortranarray(np.moveaxis(np.roll(V, -1, axis=0), 0, -1))
    else:
        model["transition"], model["state_cov"] = F, V
    model.initialize_known(inputs["m0"], inputs["P0"])
    wanted = sm.SMOOTHER_STATE | sm.SMOOTHER_STATE_COV

    def run() -> Arrays:
        found = model.smooth(smoother_output=wanted)
        return {
            "mean": found.smoothed_state.T,
            "cov": np.moveaxis(found.smoothed_state_cov, -1, 0),
        }

    return run


def dynamax(inputs: Arrays, params: Params, parallel: bool = False, once: bool = False) -> Run:
    """lgssm_smoother, compiled; vectorised by vmap over paths where there are any.

    once : without gaps covariances do not depend on the data; vmap is told to return them once
        (out_axes), left to itself it returns a copy for every path.
    """
    import jax
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import inference, parallel_inference

    smoother = (parallel_inference if parallel else inference).lgssm_smoother
    p = inputs["H"].shape[0]
    gaps = bool(np.isnan(inputs["z"]).any())
    m0, P0, F, V, H0, R0 = (jnp.asarray(inputs[x]) for x in ("m0", "P0", "F", "V", "H", "R"))

    def one(z: Any) -> Any:
        H, R = H0, R0
        if gaps:
            seen = ~jnp.isnan(z)
            H = jnp.where(seen[:, :, None], H0, 0.0)
            R = jnp.where(seen[:, :, None] & seen[:, None, :], R0, jnp.eye(p))
            z = jnp.where(seen, z, 0.0)
        found = smoother(inference.make_lgssm_params(m0, P0, F, V, H, R), z)
        return found.smoothed_means, found.smoothed_covariances

    z = jnp.asarray(inputs["z"])
    shared = z.ndim == 3 and not gaps
    several = jax.vmap(one, out_axes=(0, None if once else 0)) if z.ndim == 3 else one
    compiled = jax.jit(several)

    def run() -> Arrays:
        mean, cov = jax.block_until_ready(compiled(z))
        return {"mean": mean, "cov": cov[0] if shared and not once else cov}

    return run


def dynamax_parallel(inputs: Arrays, params: Params) -> Run:
    """The associative-scan form."""
    return dynamax(inputs, params, parallel=True)


def dynamax_once(inputs: Arrays, params: Params) -> Run:
    """Paths without gaps, covariances returned once."""
    return dynamax(inputs, params, once=True)


def filterpy_from_sde(inputs: Arrays, params: Params) -> Run:
    """filterpy from what ours starts from: its van_loan_discretization of each step is timed."""
    from filterpy.common import van_loan_discretization

    A, Q, steps = inputs["A"], inputs["Q"], np.diff(inputs["t"], prepend=inputs["t"][0])
    root = np.linalg.cholesky(Q)

    def run() -> Arrays:
        pairs = [van_loan_discretization(A, root, step) for step in steps]
        F, V = (np.array(x) for x in zip(*pairs))
        return filterpy({**inputs, "F": F, "V": V}, params)()

    return run


def filterpy(inputs: Arrays, params: Params) -> Run:
    """KalmanFilter.batch_filter and rts_smoother."""
    from filterpy.kalman import KalmanFilter

    T, (p, d) = len(inputs["z"]), inputs["H"].shape
    # batch_filter predicts before the first observation: a step that changes nothing.
    F = np.concatenate([np.eye(d)[None], np.broadcast_to(inputs["F"], (T, d, d))[1:]])
    V = np.concatenate([np.zeros((1, d, d)), np.broadcast_to(inputs["V"], (T, d, d))[1:]])
    Fs, Vs = list(F), list(V)
    Hs = Rs = None
    z = inputs["z"]
    if np.isnan(z).any():
        z, H, R = masked(inputs)
        Hs, Rs = list(H), list(R)

    def run() -> Arrays:
        kf = KalmanFilter(dim_x=d, dim_z=p)
        kf.x, kf.P = inputs["m0"].copy(), inputs["P0"].copy()
        kf.H, kf.R = inputs["H"], inputs["R"]
        mean, cov, _, _ = kf.batch_filter(list(z), Fs=Fs, Qs=Vs, Hs=Hs, Rs=Rs)
        mean, cov, _, _ = kf.rts_smoother(mean, cov, Fs=Fs, Qs=Vs)
        return {"mean": mean, "cov": cov}

    return run


def pykalman(inputs: Arrays, params: Params) -> Run:
    """KalmanFilter.smooth."""
    from pykalman import KalmanFilter

    kf = KalmanFilter(
        transition_matrices=inputs["F"],
        transition_covariance=inputs["V"],
        observation_matrices=inputs["H"],
        observation_covariance=inputs["R"],
        initial_state_mean=inputs["m0"],
        initial_state_covariance=inputs["P0"],
    )

    def run() -> Arrays:
        mean, cov = kf.smooth(inputs["z"])
        return {"mean": np.asarray(mean), "cov": np.asarray(cov)}

    return run


def simdkalman(inputs: Arrays, params: Params) -> Run:
    """KalmanFilter.compute: vectorised over series, every series with its own covariances."""
    import simdkalman as library

    kf = library.KalmanFilter(inputs["F"], inputs["V"], inputs["H"], inputs["R"])
    z = inputs["z"] if inputs["z"].ndim == 3 else inputs["z"][None]

    def run() -> Arrays:
        found = kf.compute(
            z,
            0,
            initial_value=inputs["m0"],
            initial_covariance=inputs["P0"],
            smoothed=True,
            observations=False,
        )
        states = found.smoothed.states
        if inputs["z"].ndim == 2:
            return {"mean": states.mean[0], "cov": states.cov[0]}
        return {"mean": states.mean, "cov": states.cov[0]}

    return run


def torch_kf(inputs: Arrays, params: Params) -> Run:
    """KalmanFilter.filter and rts_smooth on batches; one covariance for all paths."""
    import torch
    import torch_kf as library

    torch.set_num_threads(params.get("threads", 1))
    to = torch.from_numpy
    kf = library.KalmanFilter(to(inputs["F"]), to(inputs["H"]), to(inputs["V"]), to(inputs["R"]))
    batch = inputs["z"] if inputs["z"].ndim == 3 else inputs["z"][None]
    z = to(np.ascontiguousarray(np.moveaxis(batch, 0, 1)[..., None]))
    n = len(batch)

    def run() -> Arrays:
        start = library.GaussianState(
            to(np.tile(inputs["m0"], (n, 1))[..., None]), to(inputs["P0"].copy())[None]
        )
        found = kf.rts_smooth(kf.filter(start, z, return_all=True), inplace=True)
        mean = found.mean[..., 0].permute(1, 0, 2).contiguous().numpy()
        cov = found.covariance[:, 0].numpy()
        return {"mean": mean if inputs["z"].ndim == 3 else mean[0], "cov": cov}

    return run
