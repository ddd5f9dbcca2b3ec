"""hypersphere: directions on a sphere, and one Transformer block as one estimation step.

A state of fixed length diffuses over the sphere; noisy vectors are seen. The maximum-likelihood
direction is the normalised precision-weighted sum; a block of a Transformer (attention over pulled
keys, residual step, normalisation) is one step towards it. RMS angle of the raw observation, of one
block, of radial-tangential AFA, and of the fair sequential peer: the Kalman filter of the
tangential noise, normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import (
    LinearSDE,
    RadialTangentialSDE,
    adaptive_filter,
    hypersphere_direction,
    hypersphere_step,
    isotropic_attention,
    kalman_filter,
    simulate,
)
from afafilter.models.radial import directions
from afafilter.plotting import MARKERS, decimal_ticks, figure, paper_style, series_style
from simulations._common import save

Array = NDArray[np.float64]
SEED, STEPS = 67, 80
TIMES = 0.1 * np.arange(STEPS)
SCORED = slice(20, STEPS)
DIMS = (3, 8, 32)
PROCESS = np.array([0.0, 0.002, 0.006, 0.02, 0.06])
SHOWN_PROCESS, OBS_VAR = 0.006, 0.05


def sphere(dim: int, process_var: float) -> RadialTangentialSDE:
    """A state on the unit sphere that turns and diffuses."""
    return RadialTangentialSDE(
        decay=0.0,
        frequency=1.0,
        radial_var=0.0,
        tangential_var=process_var,
        obs_radial_var=OBS_VAR,
        obs_tangential_var=OBS_VAR,
        dim=dim,
        radius=1.0,
    )


def linear(model: RadialTangentialSDE) -> LinearSDE:
    """The rotation with the tangential noises in every direction, flat prior."""
    return LinearSDE.isotropic(
        0.0,
        model.frequency,
        process_var=model.tangential_var,
        obs_var=OBS_VAR,
        dim=model.dim,
        prior="diffuse",
    )


def angle(found: Array, x: Array) -> float:
    """Root mean squared angle to the truth over the scored steps, radian."""
    u, v = directions(found[:, SCORED], "an estimate"), directions(x[:, SCORED], "the state")
    chord = np.linalg.norm(u - v, axis=-1)
    return float(np.sqrt(np.mean((2 * np.arcsin(np.clip(chord / 2, 0, 1))) ** 2)))


def block(model: RadialTangentialSDE, x: Array, z: Array, step: float) -> Array:
    """One Transformer block: attention over pulled keys, residual connection, normalisation."""
    out = isotropic_attention(
        None,
        None,
        z,
        TIMES,
        decay=0.0,
        frequency=model.frequency[: model.dim // 2],
        process_var=model.tangential_var,
        key_var=OBS_VAR,
    ).output
    return hypersphere_step(x, out, step)


def angles(dim: int, process_var: float, n_paths: int) -> dict[str, float]:
    """RMS angle by estimator."""
    model = sphere(dim, process_var)
    rng = np.random.default_rng(SEED)
    start = directions(rng.standard_normal((n_paths, dim)), "a start")
    data = simulate(model, TIMES, n_paths, rng=rng, x0=start)
    raw = directions(data.z, "an observation")
    found = {
        "raw": raw,
        "one block, step 1/2": block(model, raw, data.z, 0.5),
        "one block": block(model, raw, data.z, 1.0),
        "RT-AFA": adaptive_filter(model, data.t, data.z).mean,
        "Kalman, normalised": kalman_filter(linear(model), data.t, data.z).mean,
    }
    return {name: angle(mean, data.x) for name, mean in found.items()}


def likelihood_gap(dim: int) -> float:
    """Largest angle between the closed-form direction and a numerical maximum of the likelihood."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(SEED)
    worst = 0.0
    for _ in range(10):
        vectors = rng.standard_normal((20, dim)) + 2.0
        precision = rng.exponential(1.0, 20)

        def loss(y: Array, vectors: Array = vectors, precision: Array = precision) -> float:
            u = y / np.linalg.norm(y)
            return float(0.5 * (precision * ((vectors - u) ** 2).sum(-1)).sum())

        numeric = minimize(loss, vectors.mean(0), method="BFGS", options={"gtol": 1e-9}).x
        closed = hypersphere_direction(vectors, precision)
        worst = max(worst, float(np.linalg.norm(numeric / np.linalg.norm(numeric) - closed)))
    return worst


def block_gap() -> float:
    """Largest difference between the block's output and the maximum-likelihood direction."""
    model = sphere(3, SHOWN_PROCESS)
    data = simulate(model, TIMES, 1, rng=np.random.default_rng(SEED), x0=np.eye(3)[0])
    turned = LinearSDE.isotropic(
        0.0, model.frequency, process_var=SHOWN_PROCESS, obs_var=OBS_VAR, dim=3
    )
    out = block(model, directions(data.z, "z"), data.z, 1.0)
    worst = 0.0
    for i in range(STEPS):
        Phi, _, V = turned.transition(TIMES[i] - TIMES[: i + 1])
        pulled = (Phi @ np.atleast_2d(np.squeeze(data.z))[: i + 1, :, None])[..., 0]
        wanted = hypersphere_direction(pulled, 1 / (V[:, 0, 0] + OBS_VAR))
        worst = max(worst, float(np.abs(np.atleast_2d(np.squeeze(out))[i] - wanted).max()))
    return worst


def draw(axes: Any, table: pd.DataFrame) -> None:
    for ax, dim in zip(axes, DIMS, strict=True):
        part = table[table["dim"] == dim]
        for index, (name, one) in enumerate(part.groupby("estimator", sort=False)):
            ax.plot(
                np.arange(len(PROCESS)),
                one["rms angle"],
                marker=MARKERS[index],
                ms=3,
                label=name,
                **series_style(str(name), index),
            )
        ax.set_xticks(np.arange(len(PROCESS)), [f"{q:g}" for q in PROCESS])
        ax.set(xlabel=r"diffusion $s_t^2$", title=f"{dim}-D", yscale="log")
        decimal_ticks(ax)
    axes[0].set_ylabel("rms angle, radian")


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write hypersphere.{png,pdf,csv,tex,json,md} into `out_dir`."""
    n_paths = 400 if full else 60
    rows = [
        {"dim": dim, "process_var": q, "estimator": name, "rms angle": value}
        for dim in DIMS
        for q in PROCESS
        for name, value in angles(dim, float(q), n_paths).items()
    ]
    table = pd.DataFrame(rows)
    gaps = likelihood_gap(3), block_gap()
    with paper_style():
        fig, axes = figure(1, 3, width="full", height=2.6)
        draw(axes, table)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        return save(
            fig, out_dir, "hypersphere", table, finding=finding(table, gaps),
            latex=table.pivot(index=["dim", "process_var"], columns="estimator", values="rms angle")
            .reset_index(),
            table_caption=(
                "Root mean squared angle in radian, by dimension $d$ and diffusion, "
                r"of Figure~\ref{fig:hypersphere}."
            ),
            caption=(
                "Directions on the unit sphere: rms angle to the truth against the diffusion "
                rf"$s_t^2$; measurement noise {OBS_VAR:g} a component, turning at 1 rad per unit "
                "time. A block is attention over pulled keys, residual step from the raw "
                "direction, normalisation; with a full step it is RT-AFA. The Kalman filter of the "
                "same noises, normalised, is the sequential "
                f"peer. Steps {SCORED.start} to {STEPS - 1}, {n_paths} paths."
            ),
            config={
                "seed": SEED, "n_paths": n_paths, "dims": DIMS, "process": PROCESS,
                "obs_var": OBS_VAR, "full": full,
            },
        )  # fmt: skip


def finding(table: pd.DataFrame, gaps: tuple[float, float]) -> str:
    """What the experiment shows, in numbers of the run."""
    wide = table.pivot(index=["dim", "process_var"], columns="estimator", values="rms angle")
    here = wide.loc[(3, SHOWN_PROCESS)]
    ratio = wide["RT-AFA"] / wide["Kalman, normalised"]
    still = ratio.xs(0.0, level="process_var")
    return (
        f"The normalised precision-weighted sum is the maximum of the likelihood (within "
        f"{gaps[0]:.0e} of a numerical search), and one block with a full step returns it (within "
        f"{gaps[1]:.0e}): attention estimates, the residual connection and the norm are the step. "
        f"In 3-D with diffusion {SHOWN_PROCESS:g}, measurement noise {OBS_VAR:g} a component, "
        f"turning at 1 rad per unit time and {1 / TIMES[1]:.0f} observations in it, the rms angle "
        f"is {here['raw']:.3f} raw, "
        f"{here['one block']:.3f} after one block (RT-AFA: {here['RT-AFA']:.3f}), and "
        f"{here['Kalman, normalised']:.3f} for the normalised Kalman filter. Without diffusion "
        f"RT-AFA errs {still.min():.2f} to {still.max():.2f} times as much as that filter, with it "
        f"up to {ratio.max():.2f} times."
    )
