"""regime_map: who is best where. Process noise x outlier rate, colour = best, number = its margin.

Causal estimators and smoothers apart: plain and robust AFA (three anchors and the exact
correlation), Kalman, RTS, WoLF with the IMQ weight, Huber's, variational Student-t, Student-t IRKF,
causal and two-sided, and the mixture filter, told the contamination or guessing it (an IMM of the
same two modes gives the mixture filter's estimates where outliers are independent). A cell is won
where paired tests of log errors against all others, corrected for all comparisons, say so; what is
not won is hatched.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import Scenario, StudentT, Study, adaptive_smoother, rts_smoother
from afafilter.plotting import category_map, figure, paper_style
from afafilter.scoring.paired import holm
from afafilter.studies.winners import against_best
from simulations import _setups
from simulations._common import run_folder, save

CAUSAL = (
    "AFA", "AFA observation", "AFA prediction", "AFA estimate", "AFA exact robust", "Kalman",
    "WoLF-IMQ", "Huber", "variational", "IRKF", "mixture", "mixture guessed",
)  # fmt: skip
TWO_SIDED = {
    "RTS": rts_smoother,
    "AFA two-sided": adaptive_smoother,
    "AFA two-sided robust": partial(
        adaptive_smoother, weight=StudentT(4.0), anchor="estimate", iterations=5
    ),
    "robust RTS": partial(rts_smoother, weight=StudentT(4.0), anchor="estimate"),
}
LETTERS = dict(zip((*CAUSAL, *TWO_SIDED), "AOPEXKWHVIMGRATS", strict=True))
SEED, LEVEL = 71, 0.05
Array = NDArray[np.float64]


def rates(*, full: bool) -> Array:
    """Outlier rates of the grid."""
    return np.linspace(0.0, 0.27, 10) if full else np.array([0.0, 0.1, 0.2])


def study(rate: float, *, full: bool) -> Study:
    """One row of the grid: 20 cells of 100 paths in full, 4 cells of 8 paths reduced."""
    noise = np.r_[0.0, np.geomspace(1e-4, 1.0, 19 if full else 3)]
    everybody = {**_setups.estimators(), "mixture": _setups.mixture_known(rate)}
    name = f"outliers {rate:.3g}"
    scenario = Scenario(
        _setups.TIMES,
        100 if full else 8,
        x0=_setups.ring_start,
        burn_in=20,
        outliers=_setups.OUTLIERS(rate=rate) if rate else None,
    )
    return Study(
        {f"noise {q:.3g}": _setups.paper_spiral(float(q)) for q in noise},
        {each: everybody[each] for each in CAUSAL} | TWO_SIDED,
        {name: scenario},
        seeds=[SEED],
        columns={f"noise {q:.3g}": {"process_var": float(q)} for q in noise}
        | {name: {"outlier_rate": rate}},
    )


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write regime_map.{png,pdf,csv,tex,json} into `out_dir`; cells are kept and resumed."""
    folder = run_folder(out_dir, "regime_map", full=full)
    results = [study(float(r), full=full).run(folder, n_jobs=n_jobs) for r in rates(full=full)]
    failed = pd.concat([r.errors for r in results])
    if len(failed):
        raise RuntimeError(f"an estimator failed, so that no map can be drawn: {failed.iloc[0]}")
    columns = ["process_var", "outlier_rate", "estimator", "value", "lower", "upper"]
    table = pd.concat([r.pooled("rmse")[columns] for r in results], ignore_index=True)
    spent = pd.concat([r.times for r in results], ignore_index=True)
    table["ms_per_path"] = 1e3 * spent["seconds_per_path"]
    compared = pd.concat(
        [against_best(r, among=names) for r in results for names in (CAUSAL, tuple(TWO_SIDED))],
        ignore_index=True,
    )
    two = compared["estimator"].isin(TWO_SIDED)
    tested = compared["estimator"] != compared["best"]
    for kind in (two & tested, ~two & tested):  # corrected for the whole map, not for one row
        compared.loc[kind, "p_holm"] = holm(compared.loc[kind, "p"].to_numpy(), LEVEL)[0]
    keys = ["process_var", "outlier_rate", "estimator"]
    table = table.merge(compared[[*keys, "p_holm"]], on=keys, how="left")
    n_paths = 100 if full else 8
    return draw(table, out_dir, n_paths=n_paths, full=full)


def draw(table: pd.DataFrame, out_dir: Path, *, n_paths: int, full: bool) -> list[Path]:
    """The figure and its files, from the table of all cells."""
    kinds = {"causal": list(CAUSAL), "two-sided": list(TWO_SIDED)}
    with paper_style():
        fig, axes = figure(2, 1, width="full", height=5.0)
        for ax, (kind, names) in zip(axes, kinds.items(), strict=True):
            cube, p = (
                np.stack(
                    [
                        table[table["estimator"] == name].pivot(
                            index="outlier_rate", columns="process_var", values=column
                        )
                        for name in names
                    ]
                )
                for column in ("value", "p_holm")
            )
            order = np.sort(cube, axis=0)
            margin = 100 * (order[1] / order[0] - 1)
            best = cube.argmin(axis=0)
            tied = (p > LEVEL).sum(axis=0) > 1
            marks = [
                (
                    i,
                    j,
                    rf"{LETTERS[names[best[i, j]]]}$\times${(p[:, i, j] > LEVEL).sum()}"
                    if tied[i, j]
                    else f"{LETTERS[names[best[i, j]]]}\n{margin[i, j]:.0f}",
                )
                for i, j in np.ndindex(best.shape)
            ]
            category_map(
                best,
                names,
                np.sort(table["process_var"].unique()),
                np.sort(table["outlier_rate"].unique()),
                annotations=marks,
                hatched=tied,
                letters=[LETTERS[name] for name in names],
                ax=ax,
            )
            ax.set_ylabel("outlier rate")
            ax.set_title(kind, loc="left")
        axes[-1].set_xlabel(r"process noise $\sigma^2$ ($\eta^2=1$)")
        return save(
            fig,
            out_dir,
            "regime_map",
            table,
            latex=tally(table),
            table_caption=(
                "In how many columns of the map, for each outlier rate (columns), an estimator is "
                "the best of its kind or not told from it."
            ),
            caption=(
                "Estimator with the smallest RMSE (colour and letter), and by how many per cent "
                "the next one is worse (number), over process noise and outlier rate. Hatched: "
                "ties, the least with the number of estimators that paired "
                "tests (Holm's correction for all comparisons of the "
                f"map, 5\\,\\%) do not tell apart; {n_paths} paths a cell "
                f"({'full' if full else 'reduced'} run), spiral from radius $20\\pm3$, outliers of "
                "10 $\\eta$. The mixture filter is told rate and scale; guessing, it takes 5\\,\\% "
                "and 25 times the variance everywhere."
            ),
            finding=finding(table),
            config={"seed": SEED, "n_paths": n_paths, "full": full},
        )


def tally(table: pd.DataFrame) -> pd.DataFrame:
    """For each estimator and outlier rate, the noises at which it is best or not told from it."""
    level = table.assign(held=table["p_holm"] > LEVEL)
    counted = level.pivot_table(
        index="estimator", columns="outlier_rate", values="held", aggfunc="sum"
    )
    return counted.loc[[*CAUSAL, *TWO_SIDED]].astype(int).reset_index()


def finding(table: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    causal = table[table["estimator"].isin(CAUSAL)].reset_index(drop=True)
    cells = ["process_var", "outlier_rate"]
    best = causal.loc[causal.groupby(cells)["value"].idxmin()].set_index(cells)
    level = causal[causal["p_holm"] > LEVEL].groupby(cells)["estimator"].agg(list)
    alone = level[level.map(len) == 1].map(lambda names: names[0])
    dirty = level[level.index.get_level_values("outlier_rate") > 0]
    held = pd.Series([name for names in dirty for name in names]).value_counts()
    plain = causal[causal["estimator"] == "AFA observation"].set_index(cells)["value"]
    factor = (plain / best["value"])[plain.index.get_level_values("outlier_rate") > 0]
    won = ", ".join(f"{name} {n}" for name, n in alone.value_counts().items()) or "none"
    return (
        f"Of {len(level)} cells, {len(level) - len(alone)} are ties among causal estimators: "
        f"paired tests at {LEVEL:.0%}, corrected for all comparisons, name no single best. Won "
        f"outright: {won}. In the {len(dirty)} cells with outliers the best or not told from it: "
        + ", ".join(f"{name} {n}" for name, n in held.items())
        + ". The paper's anchor, the observation at the query, is worse than the best by a factor "
        f"of {factor.min():.1f} to {factor.max():.0f} wherever there are outliers."
    )
