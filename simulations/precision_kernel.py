"""precision_kernel: precision, additive bias and robust gate against lag, by sigma, eta and mu.

With alpha = eta^2 - sigma^2 / (2 mu): diffusive (alpha < 0) precision falls with the lag to the
stationary level from above; integrative (alpha > 0) it rises, since decay shrinks old noise. Each
of the three parameters is swept from one regime into the other, the others held.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from afafilter import LinearSDE, Power
from afafilter.plotting import figure, line_style, paper_style
from simulations._common import save

Array = NDArray[np.float64]
HELD = {"process_var": 0.3, "obs_var": 1.0, "decay": 0.1}
SWEEPS = {
    "process_var": (0.03, 0.1, 0.3, 1.0),
    "obs_var": (0.3, 1.0, 3.0, 10.0),
    "decay": (0.03, 0.1, 0.3, 1.0),
}
SYMBOLS = {"process_var": r"\sigma^2", "obs_var": r"\eta^2", "decay": r"\mu"}
NU, RESIDUAL = 4.0, 3.0


def variance(lag: Array, process_var: float, obs_var: float, decay: float) -> Array:
    """Of an observation pulled over the lag: forward where it is >= 0, backward where it is not."""
    model = LinearSDE.isotropic(decay, 1.0, process_var=process_var, obs_var=obs_var)
    Phi, _, V = model.transition(np.abs(lag))
    E = np.sqrt(np.abs(np.linalg.det(Phi)))
    spread = V[:, 0, 0]
    return np.asarray(np.where(lag >= 0, spread + obs_var * E**2, (spread + obs_var) / E**2))


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write precision_kernel.{png,pdf,csv,tex,json} into `out_dir`."""
    lag = np.linspace(-15.0, 25.0, 1601 if full else 401)
    gate = Power(nu=NU)
    rows = []
    with paper_style():
        fig, axes = figure(3, 3, width="full", height=4.8, sharex=True, sharey="row")
        for column, (name, values) in zip(axes.T, SWEEPS.items(), strict=True):
            for index, value in enumerate(values):
                held = {**HELD, name: value}
                found = variance(lag, **held)
                curves = 1 / found, -np.log(found), gate(RESIDUAL**2 / found, 2)
                for ax, y in zip(column, curves, strict=True):
                    ax.plot(
                        lag,
                        y,
                        label=f"${SYMBOLS[name]}={value:g}$",
                        **line_style(index, len(values)),
                    )
                level = held["process_var"] / (2 * held["decay"])
                rows += [
                    {
                        "swept": name,
                        "value": value,
                        "alpha": held["obs_var"] - level,
                        "lag": lag[k],
                        "precision": 1 / found[k],
                        "gate": curves[2][k],
                        "stationary precision": 1 / level,
                    }
                    for k in range(0, len(lag), len(lag) // 40)
                ]
            for ax in column:
                ax.axvline(0, color="0.8", lw=0.5, zorder=0)
            column[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
            column[2].set_xlabel("lag $t_i - t_j$")
        axes[0, 0].set_ylim(0, 7.2)
        axes[1, 0].set_ylim(-4.5, 3)
        axes[0, 0].set_ylabel(r"precision $1/\Sigma$")
        axes[1, 0].set_ylabel(r"bias $-\log\Sigma$")
        axes[2, 0].set_ylabel(f"robust gate, $|r|={RESIDUAL:g}$")
        table = pd.DataFrame(rows)
        return save(
            fig,
            out_dir,
            "precision_kernel",
            table,
            latex=short(table),
            table_caption=(
                r"Sweeps of Figure~\ref{fig:precision_kernel}: $\alpha=\eta^2-\sigma^2/(2\mu)$, "
                "precision of the newest observation and of one 5 and 25 old, and its limit "
                r"$2\mu/\sigma^2$."
            ),
            caption=(
                r"Precision, additive bias and robust gate (power weight, "
                rf"$\nu={NU:g}$) of a pulled observation against its lag, swept over $\sigma^2$, "
                r"$\eta^2$ and $\mu$ with the others at "
                + ", ".join(f"${SYMBOLS[name]}={value:g}$" for name, value in HELD.items())
                + r". Where $\alpha=\eta^2-\sigma^2/(2\mu)>0$ precision grows with the lag "
                "(integrative), else it falls (diffusive). Negative lags: acausal."
            ),
            config={"held": HELD, "sweeps": SWEEPS, "nu": NU, "residual": RESIDUAL},
        )


def short(table: pd.DataFrame) -> pd.DataFrame:
    """Precision at three lags by parameter and value."""
    keys = ["swept", "value", "alpha", "stationary precision"]
    at = table[table["lag"].round(6).isin([0.0, 5.0, 25.0])]
    found = at.assign(lag=[f"lag {x:g}" for x in at["lag"].round(6).abs()]).pivot(
        index=keys, columns="lag", values="precision"
    )
    return found[["lag 0", "lag 5", "lag 25"]].reset_index()
