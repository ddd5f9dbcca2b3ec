"""channel_logits: one robust weight for all channels, or one softmax for each (A.5 against B.1).

The paper's appendix A.5 gives every channel logits of its own; B.1 sums squared residuals over the
channels first. Independent rotating channels with noises of their own; outliers strike one channel
or all at once. RMSE of both, of plain tensor AFA, and of the Kalman filter over the number of
channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import LinearSDE, StudentT, isotropic_attention, kalman_filter, tensor_attention
from afafilter import simulate as simulated
from afafilter.plotting import MARKERS, figure, paper_style, series_style
from simulations._common import save

Array = NDArray[np.float64]
SEED, STEPS, RATE, SCALE, DECAY, PROCESS_VAR = 73, 96, 0.2, 3.0, 0.1, 0.0
TIMES = 0.1 * np.arange(STEPS)
SCORED = slice(20, STEPS)
CHANNELS = (1, 2, 4, 8, 16)
STRUCK = ("none", "one channel", "all channels")
ROUNDS = 3


def draw(n: int, struck: str, n_paths: int) -> tuple[Array, Array, Array]:
    """Frequencies (n,), states and observations (n_paths, T, n), complex."""
    rng = np.random.default_rng(SEED)
    omega = np.geomspace(0.3, 3.0, n) if n > 1 else np.ones(1)
    model = LinearSDE.isotropic(
        DECAY, omega, process_var=PROCESS_VAR, obs_var=1.0, dim=2 * n, prior="diffuse"
    )
    start = 10.0 * rng.standard_normal((n_paths, 2 * n))
    data = simulated(model, TIMES, n_paths, rng=rng, x0=start)
    x, z = (np.asarray(y[..., ::2] + 1j * y[..., 1::2]) for y in (data.x, data.z))
    hit = rng.uniform(size=(n_paths, STEPS)) < RATE
    where = np.zeros(z.shape, bool)
    if struck == "one channel":
        chosen = rng.integers(n, size=hit.shape)
        where = hit[..., None] & (chosen[..., None] == np.arange(n))
    elif struck == "all channels":
        where = np.broadcast_to(hit[..., None], z.shape)
    noise = SCALE * (rng.standard_normal((*z.shape, 2)) @ [1, 1j])
    return omega, x, z + where * noise


def estimates(omega: Array, z: Array) -> dict[str, Array]:
    """Estimates (n_paths, T, n), anchors from the plain estimate in a few rounds."""
    noises = {"decay": DECAY, "process_var": PROCESS_VAR, "key_var": 1.0}
    plain = tensor_attention(None, None, z, TIMES, frequency=omega, **noises).output
    summed = each = plain
    # channels as heads (n, n_paths, T, 1): each its own logits
    heads = np.moveaxis(z, -1, 0)[..., None]
    for _ in range(ROUNDS):
        summed = tensor_attention(
            summed, z, z, TIMES, frequency=omega, weight=StudentT(4.0), **noises
        ).output
        own = np.moveaxis(each, -1, 0)[..., None]
        each = np.moveaxis(
            isotropic_attention(
                own, heads, heads, TIMES, frequency=omega[:, None, None], weight=StudentT(4.0),
                **noises,
            ).output[..., 0], 0, -1,
        )  # fmt: skip
    return {"AFA": plain, "summed (B.1)": summed, "per channel (A.5)": each}


def errors(n: int, struck: str, n_paths: int) -> dict[str, float]:
    """RMSE per real component."""
    omega, x, z = draw(n, struck, n_paths)
    found = estimates(omega, z)
    real = np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], -1)
    model = LinearSDE.isotropic(
        DECAY, omega, process_var=PROCESS_VAR, obs_var=1.0, dim=2 * n, prior="diffuse"
    )
    kalman = kalman_filter(model, TIMES, real).mean
    found["Kalman"] = kalman[..., ::2] + 1j * kalman[..., 1::2]
    return {
        name: float(np.sqrt((np.abs(mean - x)[:, SCORED] ** 2).mean() / 2))
        for name, mean in found.items()
    }


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write channel_logits.{png,pdf,csv,tex,json,md} into `out_dir`."""
    n_paths = 200 if full else 12
    rows = [
        {"struck": struck, "channels": n, "estimator": name, "rmse": value}
        for struck in STRUCK
        for n in CHANNELS
        for name, value in errors(n, struck, n_paths).items()
    ]
    table = pd.DataFrame(rows)
    with paper_style():
        fig, axes = figure(1, 3, width="full", height=2.5, sharey=True)
        for ax, (struck, part) in zip(axes, table.groupby("struck", sort=False), strict=True):
            for index, (name, one) in enumerate(part.groupby("estimator", sort=False)):
                hollow = {"mfc": "white", "ms": 5, "zorder": 1} if name == "AFA" else {"ms": 3}
                ax.plot(
                    one["channels"],
                    one["rmse"],
                    marker=MARKERS[index],
                    label=name,
                    **hollow,
                    **series_style(str(name), index, 4),
                )
            ax.set_xscale("log", base=2)
            ax.set_xticks(CHANNELS, [str(n) for n in CHANNELS])
            ax.set(xlabel="channels", title=f"outliers: {struck}")
        axes[0].set_ylabel("RMSE per component")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return save(
            fig, out_dir, "channel_logits", table, finding=finding(table),
            latex=table.pivot(index=["struck", "channels"], columns="estimator", values="rmse")
            .reset_index(),
            table_caption=(
                r"RMSE of Figure~\ref{fig:channel_logits} by struck channels and their number."
            ),
            caption=(
                "Robust AFA whose weight is one for all channels, from squared residuals summed "
                "over them (B.1), or one for each channel (A.5): RMSE without outliers, with "
                rf"outliers in one channel at a time and in all at once ({100 * RATE:g}\,\% of the "
                rf"steps, {SCALE:g} $\eta$). $\mu={DECAY:g}$, $\sigma^2={PROCESS_VAR:g}$, "
                rf"Student-t weight, $\nu=4$, {ROUNDS} rounds, {n_paths} paths."
            ),
            config={
                "seed": SEED, "n_paths": n_paths, "channels": CHANNELS, "rate": RATE,
                "scale": SCALE, "rounds": ROUNDS, "full": full,
            },
        )  # fmt: skip


def finding(table: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    wide = table.pivot(index=["struck", "channels"], columns="estimator", values="rmse")
    ratio = wide["summed (B.1)"] / wide["per channel (A.5)"]
    alone = float(np.abs(ratio.xs(1, level="channels") - 1).max())
    n = max(CHANNELS)

    def better(struck: str, n: int) -> str:
        return f"{ratio.loc[(struck, n)]:.2f} times"

    parts = "; ".join(
        f"outliers, {struck}: "
        f"{wide.loc[(struck, n), 'summed (B.1)']:.3f} summed, "
        f"{wide.loc[(struck, n), 'per channel (A.5)']:.3f} per channel"
        for struck in STRUCK
    )
    return (
        f"With one channel the two are the same (within {alone:.0e}). RMSE with {n} channels: "
        f"{parts}. Where one channel is struck the summed form has {better('one channel', n)} the "
        f"error of the other, where all are struck {better('all channels', n)}: the appendix's two "
        "forms are different estimators, not two ways of writing one."
    )
