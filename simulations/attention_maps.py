"""attention_maps: weights of AFA as a map, plain and robust, beside the Kalman filter's own.

The "attention map of the Kalman filter" is its equivalent weight matrix on the observations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import Outliers, Power, adaptive_filter, kalman_filter, simulate, spiral, theory
from afafilter.plotting import COLOURS, figure, paper_style, weight_map
from simulations._common import save

SEED = 3
STEPS = 64


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write attention_maps.{png,pdf,csv,tex,json} into `out_dir`."""
    model = replace(spiral(process_var=0.05, obs_var=1.0), prior="diffuse")
    t = 0.1 * np.arange(STEPS)
    data = simulate(
        model,
        t,
        1,
        rng=np.random.default_rng(SEED),
        x0=np.array([20.0, 0.0]),
        outliers=Outliers(rate=0.1, scale=10.0),
    )
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
        fig, axes = figure(1, 3, width="full", height=2.4, sharey=True)
        seen = np.arange(1, STEPS + 1)[:, None]
        for ax, (name, weights) in zip(axes, maps.items(), strict=True):
            weight_map(
                seen * weights / weights.sum(1, keepdims=True),
                t,
                vmax=4.0,
                ax=ax,
                label="share over equal share",
                colorbar=name == "Kalman filter",
            )
            ax.set_title(name, pad=9)
            ax.set_xticks(range(7))
            ax.set_xlabel("observation time $t_j$")
            ax.plot(
                t[struck],
                np.full(len(struck), 1.03),
                "v",
                ms=3,
                color=COLOURS["outlier"],
                clip_on=False,
                transform=ax.get_xaxis_transform(),
            )
        axes[0].set_ylabel("query time $t_i$")
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
            fig,
            out_dir,
            "attention_maps",
            table,
            caption=(
                "Weights, in units of equal weights for all that was seen, of plain AFA, robust "
                "AFA (power weight, anchor = estimate) and of the Kalman filter on the same "
                "observations; spiral with "
                r"$\sigma^2=0.05$, $\eta^2=1$, 10\,\% outliers of 10 $\eta$ (triangles). Robust "
                "AFA blanks the columns of outliers; the Kalman filter, optimal without outliers, "
                "forgets within its gain's memory."
            ),
            config={"seed": SEED, "steps": STEPS},
        )
