"""iterated: AFA unrolled as layers with shared parameters, first and second order, beside IRKF.

Root mean squared error against the number of layers on data with outliers, for several steps s and
for momentum at critical damping g = (sqrt(s) - 1)^2; and the move of the anchor per layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import StudentT, adaptive_filter, kalman_filter, simulate
from afafilter.plotting import COLOURS, curves, decimal_ticks, figure, paper_style, series_style
from simulations import _setups
from simulations._common import save

SEED, LAYERS, PROCESS_VAR = 41, 12, 0.01
FORMS = {
    "s = 1": (1.0, 0.0),
    "s = 0.5": (0.5, 0.0),
    "s = 0.25": (0.25, 0.0),
    "s = 0.25, critical": (0.25, 0.25),
    "s = 0.25, underdamped": (0.25, 0.6),
}


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write iterated.{png,pdf,csv,tex,json} into `out_dir`."""
    n_paths = 100 if full else 12
    model = _setups.paper_spiral(PROCESS_VAR)
    t = _setups.TIMES
    rng = np.random.default_rng(SEED)
    data = simulate(
        model,
        t,
        n_paths,
        rng=rng,
        x0=_setups.ring_start(rng, n_paths),
        outliers=_setups.OUTLIERS(rate=0.1),
    )

    def rmse(mean: np.ndarray) -> float:
        return float(np.sqrt(np.mean(((mean - data.x) ** 2)[:, _setups.SCORED])))

    layers = np.arange(1, LAYERS + 1)
    errors: dict[str, np.ndarray] = {}
    moves: dict[str, np.ndarray] = {}
    for name, (step, momentum) in FORMS.items():
        runs = [
            adaptive_filter(
                model, t, data.z, weight=StudentT(4.0), anchor="estimate", iterations=int(k),
                step=step, momentum=momentum if k > 1 else 0.0, tolerance=0.0,
            )
            for k in layers
        ]  # fmt: skip
        errors[name] = np.array([rmse(run.mean) for run in runs])
        moves[name] = np.asarray(runs[-1].info["change"])
    irkf = [
        rmse(
            kalman_filter(
                model, t, data.z, weight=StudentT(4.0), anchor="estimate", iterations=int(k)
            ).mean
        )
        for k in layers
    ]
    plain = rmse(adaptive_filter(model, t, data.z).mean)
    with paper_style():
        fig, (top, bottom) = figure(2, 1, height=4.8, sharex=True)
        curves(layers, errors, ax=top)
        top.plot(layers, irkf, marker="D", ms=2.5, label="IRKF", **series_style("IRKF", 0))
        top.axhline(plain, color=COLOURS["AFA"], lw=0.8, ls=":", label="AFA, plain")
        top.set_ylabel("RMSE per component")
        top.set_yscale("log")
        decimal_ticks(top)
        fig.legend(loc="outside upper center", ncols=2)
        curves(layers, {k: m[: len(layers)] for k, m in moves.items()}, ax=bottom)
        bottom.set_yscale("log")
        decimal_ticks(bottom)
        bottom.set_ylabel("largest move of an anchor")
        bottom.set_xlabel("layers")
        table = pd.DataFrame({"layers": layers, **errors, "IRKF": irkf, "plain AFA": plain})
        return save(
            fig,
            out_dir,
            "iterated",
            table,
            caption=(
                "Unrolled robust AFA (Student-t weight, anchor = estimate) with shared parameters: "
                "RMSE and convergence against layers for the innovation step $s$ and its momentum "
                f"form; IRKF beside it. Spiral, $\\sigma^2={PROCESS_VAR:g}$, 10\\,\\% outliers of "
                f"10 $\\eta$, {n_paths} paths."
            ),
            table_caption=r"RMSE of Figure~\ref{fig:iterated} by layers and form.",
            finding=(
                f"One layer with the full step takes the error from {plain:.3f} (plain AFA) to "
                f"{errors['s = 1'][0]:.3f}, {LAYERS} layers to {errors['s = 1'][-1]:.3f}; smaller "
                "steps reach the same in more layers, momentum at critical damping in fewer of "
                "them. The largest move does not vanish steadily: now and then one query changes "
                "sides between two minima. IRKF, reweighted step by step, gets worse when "
                f"iterated ({irkf[0]:.3f} to {irkf[-1]:.3f}): from its wide start it believes an "
                "outlier in the first observation and cannot take that back."
            ),
            config={"seed": SEED, "n_paths": n_paths, "forms": FORMS, "full": full},
        )
