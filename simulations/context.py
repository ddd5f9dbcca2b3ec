"""context: long records, on which plain AFA tends to the stationary mean, and what mends it.

With decay an old observation, pulled forward to zero, claims the stationary precision however old
it is; without decay and with beta <= 1 weights are not summable. Error against the number of
observations in closed form beside Monte Carlo, the phases (stable, collapsing, diverging) of the
longest record over temperature and noise ratio, each checked by Monte Carlo, and the cures with
their price.
"""

from __future__ import annotations

import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import (
    LinearSDE,
    LongRecordWarning,
    adaptive_filter,
    kalman_filter,
    simulate,
    theory,
)
from afafilter.plotting import MARKERS, decimal_ticks, figure, line_style, paper_style, shades
from simulations._common import save

Array = NDArray[np.float64]
SEED, DT, LONGEST = 61, 0.1, 30_000
CURVES = {
    r"$\mu=0.1$, $\beta=1$": (0.1, 0.1, 1.0),
    r"$\mu=0.1$, $\beta=4$, diffusive": (0.1, 2.0, 4.0),
    r"$\mu=0$, $\beta=1$": (0.0, 0.1, 1.0),
    r"$\mu=0$, $\beta=4$": (0.0, 0.1, 4.0),
}
"""Decay, sigma^2 / eta^2, inverse temperature."""
DECAYS = (0.0, 0.03, 0.3)
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
RATIOS = (0.03, 0.3, 3.0, 30.0)
TRAINED = 64
PHASES = ("stable", "bounded", "collapsing", "diverging")
BETAS = np.geomspace(0.25, 16.0, 49)


def model_of(decay: float, ratio: float) -> LinearSDE:
    """The circular spiral with measurement noise 1."""
    return LinearSDE.isotropic(decay, 1.0, process_var=ratio, obs_var=1.0, prior="diffuse")


@cache
def _noise(decay: float, n_paths: int) -> tuple[Array, Array]:
    """Paths (n, LONGEST, 2) from zero under unit process noise, and unit measurement noise."""
    data = simulate(
        model_of(decay, 1.0),
        DT * np.arange(LONGEST),
        n_paths,
        rng=np.random.default_rng(SEED),
        x0=np.zeros(2),
    )
    return data.x, data.z - data.x


def draw(decay: float, ratio: float, n_paths: int) -> tuple[Array, Array, Array]:
    """Times, states and observations: common noise scaled to any ratio."""
    x, noise = _noise(decay, n_paths)
    x = np.sqrt(ratio) * x
    return DT * np.arange(LONGEST), x, x + noise


def errors_at(
    model: LinearSDE, data: tuple[Array, Array, Array], lengths: Array, **options: Any
) -> tuple[Array, Array]:
    """RMSE of AFA per component after so many observations (k,), and its standard error."""
    t, x, z = data
    last = lengths.astype(int) - 1
    found = adaptive_filter(model, t, z, query_times=t[last], method="isotropic", **options)
    square = ((found.mean - x[:, last]) ** 2).mean(axis=-1)
    rmse = np.sqrt(square.mean(axis=0))
    return rmse, square.std(axis=0, ddof=1) / np.sqrt(len(square)) / (2 * rmse)


def kalman_rmse(model: LinearSDE) -> float:
    """Stationary root of the Riccati equation's solution per component."""
    t = DT * np.arange(2000)
    return float(np.sqrt(kalman_filter(model, t, np.zeros((len(t), 2))).cov[-1, 0, 0]))


def error_curves(n_paths: int) -> pd.DataFrame:
    """Closed form and Monte Carlo over the length."""
    lengths = np.unique(np.geomspace(4, LONGEST, 13).round())
    parts = []
    for name, (decay, ratio, beta) in CURVES.items():
        model = model_of(decay, ratio)
        rmse, se = errors_at(model, draw(decay, ratio, n_paths), lengths, inverse_temperature=beta)
        columns = {
            "curve": name,
            "decay": decay,
            "ratio": ratio,
            "beta": beta,
            "n": lengths,
            "closed form": theory.length_error(model, DT, lengths, beta),
            "monte carlo": rmse,
            "standard error": se,
            "kalman": kalman_rmse(model),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def phase(model: LinearSDE, beta: float, rmse: float) -> str:
    """Stable: at most twice the error of the best length; else by what becomes of longer ones."""
    lengths = np.unique(np.geomspace(1, LONGEST, 60).round())
    if rmse <= 2 * theory.length_error(model, DT, lengths, beta).min():
        return "stable"
    if -model.A[0, 0] > 0:
        return "collapsing"
    now, later = theory.length_error(model, DT, [LONGEST, 10 * LONGEST], beta)
    return "diverging" if later > 1.2 * now else "bounded"


def phases(n_paths: int, *, full: bool) -> pd.DataFrame:
    """Phase at the longest record by closed form and by Monte Carlo."""
    rows = []
    for decay, ratio in product(DECAYS, RATIOS if full else RATIOS[:3]):
        model, data = model_of(decay, ratio), draw(decay, ratio, n_paths)
        for beta in TEMPERATURES if full else TEMPERATURES[1:]:
            wanted = float(theory.length_error(model, DT, [LONGEST], beta)[0])
            rmse, se = (
                float(x[0])
                for x in errors_at(model, data, np.array([LONGEST]), inverse_temperature=beta)
            )
            rows.append(
                {
                    "decay": decay,
                    "ratio": ratio,
                    "beta": beta,
                    "closed form": wanted,
                    "monte carlo": rmse,
                    "standard error": se,
                    "z": (rmse - wanted) / se,
                    "phase": phase(model, beta, wanted),
                    "phase, simulated": phase(model, beta, rmse),
                    "critical length": theory.critical_length(model, DT, beta),
                }
            )
    return pd.DataFrame(rows)


def best_beta(model: LinearSDE, n: float) -> float:
    """Inverse temperature of least closed-form error at a length."""
    errors = [float(theory.length_error(model, DT, [n], float(b))[0]) for b in BETAS]
    return float(BETAS[int(np.argmin(errors))])


def cures(n_paths: int) -> pd.DataFrame:
    """RMSE relative to the Kalman filter over the length of use, by cure."""
    decay, ratio = 0.1, 1.0
    model, data = model_of(decay, ratio), draw(decay, ratio, n_paths)
    kalman = kalman_rmse(model)
    lengths = np.unique(np.geomspace(TRAINED, LONGEST, 7).round())
    counts = np.arange(1, TRAINED + 1)
    window = int(counts[np.argmin(theory.length_error(model, DT, counts))])
    trained, tuned = best_beta(model, TRAINED), [best_beta(model, n) for n in lengths]
    rows: dict[str, tuple[Array, Array]] = {
        "plain": errors_at(model, data, lengths),
        f"tuned at {TRAINED}": errors_at(model, data, lengths, inverse_temperature=trained),
        "tuned at the length": np.hstack(
            [
                errors_at(model, data, np.array([n]), inverse_temperature=b)
                for n, b in zip(lengths, tuned, strict=True)
            ]
        ),
        f"window of {window}": errors_at(model, data, lengths, window=window),
        r"$\mu=0$, $\beta=4$": errors_at(
            model_of(0.0, ratio), data, lengths, inverse_temperature=4.0
        ),
    }
    parts = [
        pd.DataFrame(
            {"cure": name, "n": lengths, "rmse / Kalman": e / kalman, "standard error": se / kalman}
        )
        for name, (e, se) in rows.items()
    ]
    return pd.concat(parts)


def draw_curves(ax: Any, table: pd.DataFrame) -> None:
    for index, (name, part) in enumerate(table.groupby("curve", sort=False)):
        style = line_style(index, 4)
        scale = part["kalman"]
        ax.plot(part["n"], part["closed form"] / scale, label=name, **style)
        ax.errorbar(
            part["n"],
            part["monte carlo"] / scale,
            yerr=1.96 * part["standard error"] / scale,
            fmt=MARKERS[index],
            ms=2.5,
            lw=0.7,
            mfc="white",
            color=style["color"],
        )
    ax.set(
        xscale="log",
        yscale="log",
        ylabel="RMSE / Kalman",
        xlabel="observations",
        title="(a) error of a length",
    )
    decimal_ticks(ax)
    ax.legend(fontsize=6)


def draw_cures(ax: Any, table: pd.DataFrame) -> None:
    for index, (name, part) in enumerate(table.groupby("cure", sort=False)):
        ax.errorbar(
            part["n"], part["rmse / Kalman"], yerr=1.96 * part["standard error"], label=name,
            marker=MARKERS[index], ms=2.5, lw=0.8, mfc="white", **line_style(index),
        )  # fmt: skip
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="observations",
        ylabel="RMSE / Kalman",
        title="(b) cures and their price",
        ylim=(0.5, 14),
    )
    ax.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    ax.minorticks_off()
    ax.legend(fontsize=6, ncols=2, loc="upper left")


def draw_phases(axes: Any, table: pd.DataFrame) -> None:
    colours = dict(zip(PHASES, ("white", *shades(3)[::-1]), strict=True))
    marks = {"stable": "o", "bounded": "s", "collapsing": "v", "diverging": "^"}
    for letter, ax, (decay, part) in zip("cde", axes, table.groupby("decay"), strict=True):
        for name in PHASES:
            chosen = part[part["phase"] == name]
            ax.plot(
                chosen["beta"],
                chosen["ratio"],
                marks[name],
                color=colours[name],
                mec="k",
                mew=0.6,
                ms=6.5,
                label=name,
            )
        for row in part.itertuples():
            length = part.loc[row.Index, "critical length"]
            text = r"$\infty$" if np.isinf(length) else f"$10^{{{max(np.log10(length), 0):.0f}}}$"
            ax.annotate(
                text,
                (row.beta, row.ratio),
                xytext=(0, -10),
                textcoords="offset points",
                ha="center",
                fontsize=5.5,
            )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel=r"$\beta$",
            title=rf"({letter}) $\mu={decay:g}$",
            xlim=(0.35, 11),
            ylim=(0.4 * part["ratio"].min(), 2.5 * part["ratio"].max()),
        )
        ax.set_xticks(TEMPERATURES, [f"{b:g}" for b in TEMPERATURES])
        ax.minorticks_off()
    axes[0].set_ylabel(r"$\sigma^2/\eta^2$")


def short(phased: pd.DataFrame) -> pd.DataFrame:
    """The phase with the order of the critical length, temperatures in columns."""
    order = [
        r"$\infty$" if np.isinf(n) else f"$10^{{{max(np.log10(n), 0):.0f}}}$"
        for n in phased["critical length"]
    ]
    other = np.where(phased["phase"] == phased["phase, simulated"], "", "*")
    told = phased.assign(told=phased["phase"] + other + " (" + order + ")")
    return told.pivot(index=["decay", "ratio"], columns="beta", values="told").reset_index()


def finding(curves: pd.DataFrame, phased: pd.DataFrame, mended: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    first = curves[curves["curve"] == next(iter(CURVES))].iloc[-1]
    stationary = np.sqrt(first["ratio"] / (2 * first["decay"]))
    claimed = stationary / np.sqrt(first["n"])
    agree = (phased["phase"] == phased["phase, simulated"]).mean()
    counts = phased["phase"].value_counts()
    ends = mended[mended["n"].isin([mended["n"].min(), mended["n"].max()])]
    price = "; ".join(
        f"{name} {part['rmse / Kalman'].iloc[0]:.2f} and {part['rmse / Kalman'].iloc[-1]:.2f}"
        for name, part in ends.groupby("cure", sort=False)
    )
    return (
        f"With decay {first['decay']:g} plain AFA errs by {first['monte carlo']:.3f} after "
        f"{first['n']:.0f} observations (closed form {first['closed form']:.3f}; the estimator 0: "
        f"{stationary:.3f}; Kalman filter {first['kalman']:.3f}) and claims {claimed:.4f}. Of "
        f"{len(phased)} settings {counts.get('stable', 0)} are stable at {LONGEST} observations, "
        f"{counts.get('collapsing', 0)} collapsing to the stationary mean, "
        f"{counts.get('diverging', 0)} diverging and {counts.get('bounded', 0)} bounded; "
        f"simulation puts {agree:.0%} into the same phase and lies within "
        f"{phased['z'].abs().max():.1f} standard errors of the closed form. RMSE over that of the "
        f"Kalman filter at {mended['n'].min():.0f} and at {mended['n'].max():.0f} observations: "
        f"{price}."
    )


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write context.{png,pdf,csv,tex,json,md} into `out_dir`."""
    n_paths = 400 if full else 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongRecordWarning)
        curves, phased = error_curves(n_paths), phases(n_paths, full=full)
        mended = cures(n_paths)
    _noise.cache_clear()
    with paper_style():
        fig, axes = figure(2, 6, width="full", height=4.4)
        grid = axes[0, 0].get_gridspec()
        for ax in axes.flat:
            ax.remove()
        draw_curves(fig.add_subplot(grid[0, :3]), curves)
        draw_cures(fig.add_subplot(grid[0, 3:]), mended)
        planes = [fig.add_subplot(grid[1, 2 * k : 2 * k + 2]) for k in range(3)]
        draw_phases(planes, phased)
        handles = {h.get_label(): h for ax in planes for h in ax.lines if len(h.get_xdata())}
        fig.legend(
            [handles[p] for p in PHASES if p in handles],
            [p for p in PHASES if p in handles],
            loc="outside lower center",
            ncols=4,
        )
        table = pd.concat(
            [
                part.assign(panel=name)
                for name, part in (("a", curves), ("b", mended), ("phases", phased))
            ]
        )
        return save(
            fig, out_dir, "context", table,
            finding=finding(curves, phased, mended),
            latex=short(phased),
            table_caption=(
                rf"Phase at {LONGEST} observations by decay, noise ratio $\sigma^2/\eta^2$ and "
                r"inverse temperature $\beta$ (columns), with the order of the critical length; "
                "star: simulation says otherwise."
            ),
            caption=(
                "Long records. (a) RMSE of AFA at the last of $N$ observations over that of the "
                "Kalman filter: lines closed form, markers simulation with 95\\,\\% intervals "
                f"({n_paths} paths; $\\sigma^2/\\eta^2=0.1$, diffusive: 2). (b) Cures for "
                r"$\mu=0.1$, $\sigma^2=\eta^2$ (simulation). (c)--(e) Phase at "
                f"$N={LONGEST}$: stable (at most twice the error of the best length), collapsing "
                "to the stationary mean, without decay bounded or diverging; below, the order of "
                "the critical length. "
                r"$\Delta t=0.1$, circular spiral."
            ),
            config={
                "seed": SEED, "n_paths": n_paths, "dt": DT, "longest": LONGEST, "curves": CURVES,
                "decays": DECAYS, "temperatures": TEMPERATURES, "ratios": RATIOS, "full": full,
            },
        )  # fmt: skip
