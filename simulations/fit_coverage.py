"""fit_coverage: do maximum likelihood fits find the truth, and do their intervals hold it?

Data sets are simulated from three structured families and fitted from guessed starting values;
Wald and profile intervals of 95 % and the bias of the estimates are counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from afafilter import FitWarning, fit, simulate
from afafilter import families as f
from afafilter.learning.family import Family
from afafilter.plotting import MARKERS, figure, paper_style, shades
from simulations._common import head, save

SEED = 43
LEVEL = 0.95
WANTED = (0.90, 0.99)
CASES: dict[str, tuple[Family, dict[str, float], int]] = {
    "local level": (f.brownian() + f.noise(), {"process_var": 0.2, "obs_var": 1.0}, 300),
    "OU": (
        f.ornstein_uhlenbeck() + f.noise(),
        {"rate": 0.3, "process_var": 0.6, "obs_var": 0.3},
        1000,
    ),
    "oscillator": (
        f.oscillator() + f.constant() + f.noise(),
        {"decay": 0.15, "frequency": 0.6, "process_var": 1.0, "offset": 5.0, "obs_var": 0.3},
        300,
    ),
}
"""Family, true parameters, number of observation times (random gaps from 0.25 to 1.75)."""
MISSING = 0.1
KINDS = {"wald": "Wald", "profile": "profile"}


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write fit_coverage.{png,pdf,csv,tex,json,md} into `out_dir`."""
    from joblib import Parallel, delayed

    n_sets = 200 if full else 20
    rows = []
    for index, (name, (family, truth, n_times)) in enumerate(CASES.items()):
        rng = np.random.default_rng([SEED, index])
        t = np.cumsum(0.25 * rng.integers(1, 8, n_times))
        start = np.zeros(family.dim) if name == "local level" else None
        sets = simulate(family.model(truth), t, n_sets, rng=rng, x0=start, missing=MISSING).z
        done = Parallel(n_jobs=n_jobs)(delayed(one_fit)(family, truth, t, z) for z in sets)
        rows += list(summaries(name, truth, pd.DataFrame([row for found in done for row in found])))
    table = pd.DataFrame(rows)
    with paper_style():
        fig, axes = figure(1, 2, height=3.3, sharey=True)
        draw(axes, table)
        return save(
            fig,
            out_dir,
            "fit_coverage",
            table,
            caption=(
                f"{n_sets} data sets per model, irregular times, {MISSING:.0%} missing. Left: "
                "share of 95 % intervals that hold the truth (bars: 95 % of Monte Carlo error; "
                "grey: 90-99 %). Right: bias of the estimate over its Monte Carlo standard error; "
                "grey: within 3.".replace("%", "\\,\\%")
            ),
            latex=short(table),
            finding=finding(table, n_sets),
            config={
                "seed": SEED,
                "n_sets": n_sets,
                "missing": MISSING,
                "truth": {name: case[1] for name, case in CASES.items()},
                "full": full,
            },
        )


def one_fit(family: Family, truth: dict[str, float], t: Any, z: Any) -> list[dict[str, Any]]:
    """Estimates and intervals of one data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = fit(family, t, z)
    wald = result.interval(LEVEL)
    rows = []
    for name, value in truth.items():
        ends = {"wald": wald[name], "profile": result.profile(name, LEVEL)}
        rows.append(
            {
                "parameter": name,
                "estimate": result.params[name],
                "se": result.std_errors[name],
                "converged": result.converged,
                **{kind: low <= value <= high for kind, (low, high) in ends.items()},
            }
        )
    return rows


def summaries(model: str, truth: dict[str, float], found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row per parameter: bias and coverage with their Monte Carlo errors."""
    for name, value in truth.items():
        part = found[found["parameter"] == name]
        n = len(part)
        error = part["estimate"] - value
        monte_carlo = error.std() / np.sqrt(n)
        row = {
            "model": model,
            "times": CASES[model][2],
            "parameter": name,
            "true": value,
            "mean": part["estimate"].mean(),
            "bias_over_se": error.mean() / monte_carlo,
            "sd": error.std(),
            "mean_std_error": part["se"].mean(),
            "converged": part["converged"].mean(),
        }
        for kind in ("wald", "profile"):
            hits = int(part[kind].sum())
            ends = binomtest(hits, n).proportion_ci(method="wilson")
            row |= {kind: hits / n, f"{kind}_lower": ends.low, f"{kind}_upper": ends.high}
        yield row


def draw(axes: Any, table: pd.DataFrame) -> None:
    """Coverage and bias, a row for each parameter."""
    coverage, bias = axes
    ink = shades(3)
    rows = np.arange(len(table))[::-1].astype(float)
    coverage.axvspan(*WANTED, color="0.92", lw=0)
    coverage.axvline(LEVEL, color="0.5", lw=0.6, ls=":")
    for k, kind in enumerate(KINDS):
        spread = [table[kind] - table[f"{kind}_lower"], table[f"{kind}_upper"] - table[kind]]
        coverage.errorbar(
            table[kind], rows + 0.16 - 0.32 * k, xerr=np.clip(spread, 0, None), fmt=MARKERS[k],
            color=ink[k], ms=3, lw=0.8, mfc="white" if k else ink[k], label=KINDS[kind],
        )  # fmt: skip
    names = [f"{r.model}: {head(r.parameter)}" for r in table.itertuples()]
    coverage.set_yticks(rows, names)
    coverage.set_xlabel("coverage of 95 %")
    coverage.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=0.8)
    bias.axvspan(-3, 3, color="0.92", lw=0)
    bias.axvline(0, color="0.5", lw=0.6, ls=":")
    bias.plot(table["bias_over_se"], rows, "o", color=ink[0])
    wide = 1.15 * max(3.0, table["bias_over_se"].abs().max())
    bias.set_xlim(-wide, wide)
    bias.set_xlabel("bias / std. error")


def short(table: pd.DataFrame) -> pd.DataFrame:
    """What is drawn and the spread, without the ends of the intervals."""
    kept = ["model", "parameter", "true", "mean", "sd", "mean_std_error", "bias_over_se", *KINDS]
    return table[kept].rename(columns={"mean_std_error": "mean s.e.", "sd": "spread"})


def finding(table: pd.DataFrame, n_sets: int) -> str:
    """What the experiment shows, in numbers of the run."""
    biased = table[table["bias_over_se"].abs() > 3]
    worst = table.loc[[table["bias_over_se"].abs().idxmax()]].iloc[0]
    relative = abs(worst["mean"] / worst["true"] - 1)
    inside = {kind: table[kind].between(*WANTED).sum() for kind in ("wald", "profile")}
    n = len(table)
    return (
        f"On {n_sets} data sets per model {1 - table['converged'].min():.1%} of the fits failed to "
        f"converge from guessed starts. Coverage of 95 % intervals: Wald "
        f"{table['wald'].min():.1%} to {table['wald'].max():.1%}, profile "
        f"{table['profile'].min():.1%} to {table['profile'].max():.1%}; between 90 and 99 % for "
        f"{inside['wald']} and {inside['profile']} of {n} parameters. The bias stays within three "
        f"Monte Carlo standard errors for {n - len(biased)} of {n}; the largest is that of "
        f"{worst['model']}, {worst['parameter']}: {worst['bias_over_se']:+.1f} of them, "
        f"{relative:.1%} of the value."
    )
