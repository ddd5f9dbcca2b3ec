"""embedding: a 2-D system hidden in 16 observed components; AFA recovers it in the right basis.

The paper's experiment: a random orthogonal map spreads its elliptical spiral over 16 components,
all with measurement noise. Observations pulled to five target times before the basis is known (two
raw components taken for the eigenbasis) and after it is learned (the plane of the two largest
principal components of the path, laid along the axes of the model's ellipse and turned the right
way round), and the path recovered with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import (
    LinearSDE,
    adaptive_filter,
    elliptic_spiral,
    kalman_filter,
    pull_forward,
    simulate,
)
from afafilter.plotting import COLOURS, MARKERS, figure, paper_style, phase_plane, shades
from simulations import _setups
from simulations._common import save

SEED, DIM, REACH = 17, 16, 20
TARGETS = (24, 34, 44, 54, 64)
Array = NDArray[np.float64]


def learned_basis(z: Array, shape: Array) -> Array:
    """Planes (n, D, 2) of most variance of z (n, T, D), oriented so that the path turns left.

    shape (2, 2) : of the model's ellipse, whose long axis is that of the path's.
    """
    axes = np.linalg.eigh(shape)[1][:, ::-1]
    axes[:, 1] *= np.sign(np.linalg.det(axes))
    principal = np.linalg.svd(z, full_matrices=False)[2][:, :2].swapaxes(-1, -2)
    y = z @ principal
    area = y[:, :-1, 0] * y[:, 1:, 1] - y[:, :-1, 1] * y[:, 1:, 0]
    principal[area.sum(1) < 0, :, 1] *= -1
    return np.asarray(principal @ axes.T)


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write embedding.{png,pdf,csv,tex,json} into `out_dir`."""
    n_paths = 200 if full else 50
    rng = np.random.default_rng(SEED)
    latent = replace(elliptic_spiral(process_var=0.05), R=np.eye(2), prior="diffuse")
    embed = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0][:, :2]
    hidden = LinearSDE(latent.A, Q=latent.Q, R=np.eye(DIM), C=embed, prior="diffuse")
    t = _setups.TIMES
    data = simulate(hidden, t, n_paths, rng=rng, x0=_setups.ring_start(rng, n_paths))
    basis = learned_basis(data.z, latent.Q)
    planes = {
        "components 1, 2": np.broadcast_to(np.eye(DIM)[:, :2], basis.shape),
        "learned basis": basis,
        "true basis": np.broadcast_to(embed, basis.shape),
    }
    signal = data.x @ embed.T
    recovered = {
        f"AFA, {name}": adaptive_filter(latent, t, data.z @ plane).mean @ plane.swapaxes(-1, -2)
        for name, plane in planes.items()
    }
    recovered["AFA, all components"] = adaptive_filter(hidden, t, data.z).mean @ embed.T
    recovered["Kalman, all components"] = kalman_filter(hidden, t, data.z).mean @ embed.T
    rows = []
    for name, found in recovered.items():
        squared = ((found - signal) ** 2)[:, _setups.SCORED].sum(-1).mean(1) / 2
        rmse = np.sqrt(squared.mean())
        rows.append(
            {
                "estimator": name,
                "rmse": rmse,
                "rmse_se": squared.std(ddof=1) / np.sqrt(n_paths) / (2 * rmse),
            }
        )
    with paper_style():
        fig, axes = figure(1, 3, width="full", height=2.4)
        for ax, name, title in zip(
            axes,
            ("components 1, 2", "learned basis"),
            ("before: components 1, 2", "after: learned basis"),
            strict=False,
        ):
            plane = planes[name][0]
            y, truth = data.z[0] @ plane, signal[0] @ plane
            shown = slice(TARGETS[0] - REACH, TARGETS[-1] + 1)
            ax.plot(*y[shown].T, ".", ms=2, color=COLOURS["data"], label="observed")
            ax.plot(*truth[shown].T, "k-", lw=0.6, label="truth")
            for index, target in enumerate(TARGETS):
                past = slice(target - REACH, target + 1)
                pulled = pull_forward(latent, t[past], y[past], t[target]).mean
                ax.plot(*pulled.T, "x", ms=2.2, mew=0.6, color=shades(len(TARGETS))[index])
            for index, target in enumerate(TARGETS):
                ax.plot(
                    *truth[target], MARKERS[index], ms=5, mfc="white", mec="k", mew=1.0, zorder=5
                )
            ax.set_aspect("equal", adjustable="datalim")
            ax.set_title(title)
        axes[0].plot([], [], "x", ms=3, mew=0.6, color="0.4", label="pulled forward")
        axes[0].plot([], [], "o", ms=4, mfc="white", mec="k", label="target")
        phase_plane(
            {"truth": data.x[0], "AFA, learned basis": recovered["AFA, learned basis"][0] @ embed},
            styles={"AFA, learned basis": {"color": COLOURS["AFA"]}},
            ax=axes[2],
        )
        handles, names = axes[0].get_legend_handles_labels()
        handles.append(axes[2].lines[1])
        fig.legend(handles, [*names, "AFA, learned basis"], loc="outside lower center", ncols=5)
        axes[2].set_title("recovered path")
        table = pd.DataFrame(rows)
        error = table.set_index("estimator")["rmse"]
        return save(
            fig,
            out_dir,
            "embedding",
            table,
            finding=(
                f"RMSE of the hidden state: {error['AFA, components 1, 2']:.2f} before the basis "
                f"is known, {error['AFA, learned basis']:.2f} in the plane of the two largest "
                f"principal components, {error['AFA, true basis']:.2f} in the true one, as with "
                f"all {DIM} components at once ({error['AFA, all components']:.2f}); Kalman filter "
                f"{error['Kalman, all components']:.2f}."
            ),
            caption=(
                f"The paper's elliptical spiral spread over {DIM} noisy components by a random "
                "orthogonal map. "
                f"Crosses: {REACH + 1} observations pulled to each of five target times (open "
                "markers), left with two raw components taken for the eigenbasis, middle in the "
                "plane of the two largest principal components of the same path. Right: the path "
                "recovered by plain AFA in that plane. Dynamics and noise are known; only the "
                "basis is learned. RMSE of the hidden state per latent component."
            ),
            config={"seed": SEED, "dim": DIM, "n_paths": n_paths, "full": full},
        )
