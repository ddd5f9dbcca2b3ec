"""regime_map: who is best where. Process noise x outlier rate, colour = best, number = its margin.

Causal estimators and smoothers apart: plain and robust AFA (three anchors and the exact
correlation), Kalman, RTS, WoLF with the IMQ weight, Student-t IRKF, causal and two-sided.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import Scenario, StudentT, Study, adaptive_smoother, rts_smoother
from afafilter.plotting import category_map, figure, paper_style
from simulations import _setups
from simulations._common import run_folder, save

CAUSAL = (
    "AFA", "AFA observation", "AFA prediction", "AFA estimate", "AFA exact robust", "Kalman",
    "WoLF-IMQ", "IRKF",
)  # fmt: skip
TWO_SIDED = {
    "RTS": rts_smoother,
    "AFA two-sided": adaptive_smoother,
    "AFA two-sided robust": partial(
        adaptive_smoother, weight=StudentT(4.0), anchor="estimate", iterations=5
    ),
    "robust RTS": partial(rts_smoother, weight=StudentT(4.0), anchor="estimate"),
}
LETTERS = dict(zip((*CAUSAL, *TWO_SIDED), "AOPEXKWIRATS", strict=True))
SEED = 71


def study(*, full: bool) -> Study:
    """The grid: 20 x 10 cells of 100 paths in full, 6 x 4 cells of 16 paths reduced."""
    noise = np.r_[0.0, np.geomspace(1e-4, 1.0, 19 if full else 5)]
    rates = np.linspace(0.0, 0.27, 10) if full else np.array([0.0, 0.03, 0.1, 0.2])
    everybody = _setups.estimators()
    scenarios = {
        f"outliers {rate:.3g}": Scenario(
            _setups.TIMES, 100 if full else 16, x0=_setups.ring_start, burn_in=20,
            outliers=_setups.OUTLIERS(rate=float(rate)) if rate else None,
        )
        for rate in rates
    }  # fmt: skip
    return Study(
        {f"noise {q:.3g}": _setups.paper_spiral(float(q)) for q in noise},
        {name: everybody[name] for name in CAUSAL} | TWO_SIDED,
        scenarios,
        seeds=[SEED],
        columns={f"noise {q:.3g}": {"process_var": float(q)} for q in noise}
        | {f"outliers {rate:.3g}": {"outlier_rate": float(rate)} for rate in rates},
    )


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write regime_map.{png,pdf,csv,tex,json} into `out_dir`; cells are kept and resumed."""
    plan = study(full=full)
    result = plan.run(run_folder(out_dir, "regime_map", full=full), n_jobs=n_jobs)
    n_paths = next(iter(plan.scenarios.values())).n_paths
    columns = ["process_var", "outlier_rate", "estimator", "value", "lower", "upper"]
    return draw(result.pooled("rmse")[columns], out_dir, n_paths=n_paths, full=full)


def draw(table: pd.DataFrame, out_dir: Path, *, n_paths: int, full: bool) -> list[Path]:
    """The figure and its files, from the table of all cells."""
    kinds = {"causal": list(CAUSAL), "two-sided": list(TWO_SIDED)}
    with paper_style():
        fig, axes = figure(2, 1, height=6.0)
        for ax, (kind, names) in zip(axes, kinds.items(), strict=True):
            cube = np.stack(
                [
                    table[table["estimator"] == name].pivot(
                        index="outlier_rate", columns="process_var", values="value"
                    )
                    for name in names
                ]
            )
            order = np.sort(cube, axis=0)
            margin = 100 * (order[1] / order[0] - 1)
            best = cube.argmin(axis=0)
            marks = [
                (i, j, f"{LETTERS[names[best[i, j]]]}\n{margin[i, j]:.0f}")
                for i, j in np.ndindex(best.shape)
            ]
            category_map(
                best, [f"{LETTERS[name]}: {name}" for name in names],
                np.sort(table["process_var"].unique()), np.sort(table["outlier_rate"].unique()),
                annotations=marks, ax=ax,
            )  # fmt: skip
            ax.set_ylabel(f"outlier rate ({kind})")
        axes[-1].set_xlabel(r"process noise $\sigma^2$ ($\eta^2=1$)")
        return save(
            fig, out_dir, "regime_map", table,
            caption=(
                "Estimator with the smallest RMSE (letter), and by how many percent the next one "
                f"is worse (number), over process noise and outlier rate; {n_paths} paths a cell "
                f"({'full' if full else 'reduced'} run), spiral from radius $20\\pm3$, outliers of "
                "10 $\\eta$."
            ),
            finding=finding(table),
            config={"seed": SEED, "n_paths": n_paths, "full": full},
        )  # fmt: skip


def finding(table: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    causal = table[table["estimator"].isin(CAUSAL)].reset_index(drop=True)
    best = causal.loc[causal.groupby(["process_var", "outlier_rate"])["value"].idxmin()]
    dirty = best[best["outlier_rate"] > 0]
    counts = dirty["estimator"].value_counts()
    clean = best[best["outlier_rate"] == 0]["estimator"].value_counts()
    plain = causal[causal["estimator"] == "AFA observation"].merge(
        best, on=["process_var", "outlier_rate"], suffixes=("", "_best")
    )
    factor = (plain["value"] / plain["value_best"])[plain["outlier_rate"] > 0]
    return (
        f"Of the {len(dirty)} cells with outliers the best causal estimator is "
        + ", ".join(f"{name} in {n}" for name, n in counts.items())
        + f"; of the {len(best) - len(dirty)} clean ones "
        + ", ".join(f"{name} in {n}" for name, n in clean.items())
        + ". The paper's anchor, the observation at the query, is worse than the best by a factor "
        f"of {factor.min():.1f} to {factor.max():.0f} wherever there are outliers."
    )
