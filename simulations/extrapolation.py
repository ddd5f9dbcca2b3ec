"""extrapolation: the paper's ablations as estimators, tuned at 512 observations, used at 4096.

The paper's tables give the perplexity of language models beyond their training length. Here the
same rows (rotary attention, xPos, ALiBi, gated linear attention, robust filter attention) estimate
a rotating state from noisy records: scales, slopes, decays and temperatures are tuned for the least
RMSE at 512, and RMSE and negative log score are measured at 512 to 4096 observations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import (
    Exponential,
    LinearSDE,
    Power,
    isotropic_attention,
    kalman_filter,
    simulate,
    tensor_attention,
)
from afafilter.plotting import COLOURS, MARKERS, decimal_ticks, figure, paper_style, series_style
from simulations._common import save

Array = NDArray[np.float64]
SEED, CHANNELS, TUNED_AT = 79, 4, 512
LENGTHS = np.array([512, 1024, 2048, 4096])
DECAY, PROCESS_VAR, OBS_VAR = 0.01, 0.1, 1.0
OMEGA = 100.0 ** (-np.arange(CHANNELS) / CHANNELS)
"""A rotary spectrum, radian per step."""
SCALES, SLOPES, BETAS = (1.0, 10.0, 100.0), (0.01, 0.03, 0.1, 0.3), (1.0, 2.0, 4.0, 8.0)
Row = Callable[..., Array]
STILL: dict[str, Any] = {"decay": 0.0, "process_var": 0.0, "key_var": 0.0, "query_var": 1.0}
NOISE: dict[str, Any] = {"process_var": PROCESS_VAR, "key_var": OBS_VAR}


def model() -> LinearSDE:
    """What makes the data."""
    return LinearSDE.isotropic(
        DECAY, OMEGA, process_var=PROCESS_VAR, obs_var=OBS_VAR, dim=2 * CHANNELS
    )


def _unit(x: Array) -> Array:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def _rotary(z: Array, last: NDArray[np.intp], scale: float, **options: Any) -> Array:
    """Scores scale <q, e^{Omega tau} k> of normalised queries and keys, values z."""
    t, unit = np.arange(float(z.shape[-2])), _unit(z)
    given = {**STILL, "frequency": OMEGA, "weight": Exponential(2.0 / scale), **options}
    return np.asarray(
        isotropic_attention(unit[:, last], unit, z, t, t_query=t[last], **given).output
    )


def _xpos(z: Array, last: NDArray[np.intp], scale: float, decay: float) -> Array:
    t, unit = np.arange(float(z.shape[-2])), _unit(z)
    given = {**STILL, "decay": decay, "frequency": OMEGA, "weight": Exponential(2.0 / scale)}
    return np.asarray(tensor_attention(unit[:, last], unit, z, t, t_query=t[last], **given).output)


def _filter(z: Array, last: NDArray[np.intp], beta: float, **options: Any) -> Array:
    """Robust filter attention with the true noises: queries, keys and values are the data."""
    t = np.arange(float(z.shape[-2]))
    given = {"decay": DECAY, "frequency": OMEGA, **NOISE, "query_var": OBS_VAR, **options}
    return np.asarray(
        isotropic_attention(
            z[:, last], z, z, t, t_query=t[last], inverse_temperature=beta, **given
        ).output
    )


def _linear(slope: float) -> dict[str, Any]:
    """A bias of -slope for every unit of lag."""
    return {"prior": "linear", "value_process_var": slope, "value_query_var": 1.0}


ROWS: dict[str, tuple[Row, Sequence[tuple[float, ...]]]] = {
    "RoPE": (lambda z, i, s: _rotary(z, i, s, prior="flat", value_frequency=0.0),
             list(product(SCALES))),
    "RoPE, values turned": (lambda z, i, s: _rotary(z, i, s, prior="flat"), list(product(SCALES))),
    "xPos, RetNet": (_xpos, list(product(SCALES, SLOPES))),
    "ALiBi": (lambda z, i, s, m: _rotary(z, i, s, frequency=0.0, **_linear(m)),
              list(product(SCALES, SLOPES))),
    "decayed RoPE": (lambda z, i, s, m: _rotary(z, i, s, **_linear(m)),
                     list(product(SCALES, SLOPES))),
    "gated linear": (lambda z, i, m: _rotary(z, i, 1.0, gate="none", **_linear(m)),
                     list(product(SLOPES))),
    "RFA": (lambda z, i, b, nu: _filter(z, i, b, weight=Power(nu)),
            list(product(BETAS, (4.0, 100.0)))),
    "RFA, no gate": (lambda z, i, b: _filter(z, i, b, query_var=0.0), list(product(BETAS))),
    "SC-RFA": (lambda z, i, b, ratio: _filter(z, i, b, weight=Power(100.0),
                                              decay=ratio * OMEGA.max()),
               list(product(BETAS, (0.0, 0.003, 0.03)))),
}  # fmt: skip


def evaluate(train: tuple[Array, Array], test: tuple[Array, Array]) -> pd.DataFrame:
    """Rows tuned on training paths at one length, scored on others at all."""
    here, last = np.array([TUNED_AT - 1]), LENGTHS - 1
    rows = []

    def score(name: str, found: Array, variance: float, setting: str) -> None:
        square = (found - test[0][:, last]) ** 2
        for n, part in zip(LENGTHS, np.moveaxis(square, 1, 0), strict=True):
            mse = part.mean(axis=1)
            nls = 0.5 * np.log(2 * np.pi * variance) + part.mean() / (2 * variance)
            rmse = np.sqrt(mse.mean())
            rows.append(
                {
                    "row": name,
                    "n": n,
                    "rmse": rmse,
                    "negative log score": nls,
                    "standard error": mse.std(ddof=1) / np.sqrt(len(mse)) / (2 * rmse),
                    "tuned": setting,
                }
            )

    wanted, short = train[0][:, here], train[1][:, :TUNED_AT]
    for name, (estimate, settings) in ROWS.items():
        errors = [float(((estimate(short, here, *s) - wanted) ** 2).mean()) for s in settings]
        best = int(np.argmin(errors))
        setting = " ".join(f"{x:g}" for x in settings[best])
        score(name, estimate(test[1], last, *settings[best]), errors[best], setting)
    found = kalman_filter(model(), np.arange(float(LENGTHS[-1])), test[1])
    score("Kalman", found.mean[:, last], float(found.cov[0, -1, 0, 0]), "")
    return pd.DataFrame(rows)


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write extrapolation.{png,pdf,csv,tex,json,md} into `out_dir`."""
    n_paths = 200 if full else 24
    rng = np.random.default_rng(SEED)
    sets = []
    for length in (TUNED_AT, int(LENGTHS[-1])):
        data = simulate(model(), np.arange(float(length)), n_paths, rng=rng)
        sets.append((data.x, data.z))
    table = evaluate(*sets)
    stationary = float(np.sqrt(PROCESS_VAR / (2 * DECAY)))
    with paper_style():
        fig, axes = figure(1, 2, width="full", height=3.0)
        for ax, metric in zip(axes, ("rmse", "negative log score"), strict=True):
            for index, (name, part) in enumerate(table.groupby("row", sort=False)):
                style = series_style(str(name), index, 6)
                ax.plot(
                    part["n"],
                    part[metric],
                    marker=MARKERS[index % len(MARKERS)],
                    ms=3.5,
                    label=name,
                    mfc="white" if index % 2 else style["color"],
                    **style,
                )
            ax.set_xscale("log", base=2)
            ax.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
            ax.set(xlabel="observations", ylabel=metric.replace("rmse", "RMSE per component"))
        axes[0].axhline(stationary, color=COLOURS["raw"], lw=0.8, ls=":")
        axes[0].annotate(
            "stationary mean", (LENGTHS[-1], stationary), fontsize=6.5, ha="right", va="top"
        )
        axes[0].set_yscale("log")
        decimal_ticks(axes[0])
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        shown = table.pivot(index="row", columns="n", values=["rmse", "negative log score"])
        shown = shown.loc[[*ROWS, "Kalman"]]
        shown.columns = [f"{metric} {n}" for metric, n in shown.columns]
        return save(
            fig, out_dir, "extrapolation", table, finding=finding(table, stationary),
            latex=shown.reset_index(),
            table_caption=(
                "RMSE and negative log score by row and number of observations."
            ),
            caption=(
                f"The paper's ablations as estimators of a state of {CHANNELS} rotating channels, "
                f"each tuned at {TUNED_AT} observations for the least RMSE on {n_paths} other "
                "paths: RMSE (dotted: stationary standard deviation) and negative log score of a "
                "Gaussian with the variance seen in tuning, by the length of use. "
                rf"$\mu={DECAY:g}$, $\sigma^2={PROCESS_VAR:g}$, $\eta^2={OBS_VAR:g}$ per step."
            ),
            config={
                "seed": SEED, "n_paths": n_paths, "lengths": LENGTHS, "omega": OMEGA,
                "decay": DECAY, "process_var": PROCESS_VAR, "obs_var": OBS_VAR, "full": full,
            },
        )  # fmt: skip


def finding(table: pd.DataFrame, stationary: float) -> str:
    """What the experiment shows, in numbers of the run."""
    wide = table.pivot(index="row", columns="n", values="rmse")
    first, last = LENGTHS[0], LENGTHS[-1]
    parts = "; ".join(f"{n} {wide.loc[n, first]:.3f} to {wide.loc[n, last]:.3f}" for n in ROWS)
    blind = [n for n in ROWS if wide.loc[n, first] > 0.9 * stationary]
    known = ", ".join(blind) or "none"
    return (
        f"RMSE at {first} observations, where all were tuned, and at {last}: {parts}; Kalman "
        f"filter {wide.loc['Kalman', first]:.3f} to {wide.loc['Kalman', last]:.3f}. Rows that "
        f"know no more than the stationary mean (RMSE {stationary:.3f}) already at {first}: "
        f"{known}."
    )
