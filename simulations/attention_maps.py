"""attention_maps: weights of AFA as a map, plain and robust, beside the Kalman filter's own.

The "attention map of the Kalman filter" is its equivalent weight matrix on the observations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import Outliers, Power, adaptive_filter, kalman_filter, simulate, spiral, theory
from afafilter.plotting import figure, paper_style, weight_map
from simulations._common import save

SEED = 3
STEPS = 64


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write attention_maps.{png,pdf,csv,tex,json} into `out_dir`."""
    model = replace(spiral(process_var=0.05, obs_var=1.0), prior="diffuse")
    t = 0.1 * np.arange(STEPS)
    data = simulate(
        model, t, 1, rng=np.random.default_rng(SEED), x0=np.array([20.0, 0.0]),
        outliers=Outliers(rate=0.1, scale=10.0),
    )  # fmt: skip
    struck = np.flatnonzero(data.outliers[0])
    plain = adaptive_filter(model, t, data.z[0], return_weights=True)
    robust = adaptive_filter(
        model, t, data.z[0], weight=Power(4.0), anchor="estimate", iterations=5, return_weights=True
    )
    kalman = theory.equivalent_weights(model, t, kalman_filter)
    Phi = model.transition(np.clip(t[:, None] - t[None, :], 0.0, None))[0]
    maps = {
        "AFA, plain": plain.weights,
        "AFA, robust": robust.weights,
        "Kalman filter": 0.5 * np.einsum("ijab,ijab->ij", kalman, Phi) / np.linalg.det(Phi),
    }
    with paper_style():
        fig, axes = figure(1, 3, width="full", height=2.3)
        for ax, (name, weights) in zip(axes, maps.items(), strict=True):
            weight_map(
                weights, t, vmax=0.12, ax=ax, label="share of the estimate",
                colorbar=name == "Kalman filter",
            )  # fmt: skip
            ax.set_title(name)
            ax.set_xlabel("observation time $t_j$")
        axes[0].set_ylabel("query time $t_i$")
        marks = axes[1].get_xaxis_transform()
        axes[1].plot(
            t[struck], np.full(len(struck), 1.02), "v", ms=3, c="k", clip_on=False, transform=marks
        )
        table = pd.DataFrame(
            {
                "map": list(maps),
                "effective observations, last row": [
                    1 / np.sum((w[-1] / w[-1].sum()) ** 2) for w in maps.values()
                ],
                "share on outliers, last row": [
                    w[-1, struck].sum() / w[-1].sum() for w in maps.values()
                ],
            }
        )
        return save(
            fig, out_dir, "attention_maps", table,
            caption=(
                "Normalised weights of plain AFA, robust AFA (power weight, anchor = estimate) and "
                "of the Kalman filter on the same observations; spiral with "
                r"$\sigma^2=0.05$, $\eta^2=1$, 10\,\% outliers of 10 $\eta$ (triangles). Robust "
                "AFA blanks the columns of outliers; the Kalman filter, optimal without outliers, "
                "forgets within its gain's memory."
            ),
            config={"seed": SEED, "steps": STEPS},
        )  # fmt: skip
