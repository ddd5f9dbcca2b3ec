"""precision_kernel: precision, additive bias and robust gate against lag, in both regimes.

With alpha = eta^2 - sigma^2 / (2 mu): diffusive (alpha < 0) precision falls with the lag to the
stationary level from above; integrative (alpha > 0) it rises, since decay shrinks old noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from afafilter import LinearSDE, Power
from afafilter.plotting import curves, figure, paper_style
from simulations._common import save

DECAY, PROCESS_VAR = 0.1, 0.3
REGIMES = {"diffusive": 0.5, "integrative": 4.0}
RESIDUALS = (1.0, 3.0, 10.0)
NU = 4.0


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write precision_kernel.{png,pdf,csv,tex,json} into `out_dir`."""
    lag = np.linspace(-25.0, 25.0, 1001 if full else 401)
    gate = Power(nu=NU)
    rows = []
    with paper_style():
        fig, axes = figure(3, 2, height=4.2, sharex=True, sharey="row")
        for column, (regime, obs_var) in zip(axes.T, REGIMES.items(), strict=True):
            model = LinearSDE.isotropic(DECAY, 1.0, process_var=PROCESS_VAR, obs_var=obs_var)
            Phi, _, V = model.transition(np.abs(lag))
            E = np.sqrt(np.abs(np.linalg.det(Phi)))
            spread = V[:, 0, 0]
            variance = np.where(lag >= 0, spread + obs_var * E**2, (spread + obs_var) / E**2)
            curves(lag, {"precision": 1 / variance}, ax=column[0])
            curves(lag, {"bias": -np.log(variance)}, ax=column[1])
            gates = {f"|r| = {r:g}": gate(r**2 / variance, 2) for r in RESIDUALS}
            curves(lag, gates, ax=column[2])
            alpha = obs_var - PROCESS_VAR / (2 * DECAY)
            column[0].set_title(rf"{regime}, $\alpha={alpha:+.1f}$")
            column[0].axhline(2 * DECAY / PROCESS_VAR, color="0.5", lw=0.6, ls=":")
            column[2].set_xlabel("lag $t_i - t_j$")
            for ax in column:
                ax.axvline(0, color="0.8", lw=0.5, zorder=0)
            for k in range(0, len(lag), len(lag) // 10):
                rows.append(
                    {"regime": regime, "lag": lag[k], "precision": 1 / variance[k]}
                    | {f"gate {name}": float(g[k]) for name, g in gates.items()}
                )
        axes[0, 0].set_ylabel(r"precision $1/\Sigma$")
        axes[1, 0].set_ylabel(r"bias $-\log\Sigma$")
        axes[2, 0].set_ylabel("robust gate $w$")
        axes[2, 1].legend(loc="upper right")
        return save(
            fig, out_dir, "precision_kernel", pd.DataFrame(rows),
            caption=(
                "Precision, additive bias and robust gate (power weight, "
                rf"$\nu={NU:g}$) of a pulled-forward observation against its lag, $\mu={DECAY:g}$, "
                rf"$\sigma^2={PROCESS_VAR:g}$, $\eta^2=0.5$ and $4$. Negative lags: acausal; dots: "
                r"stationary precision $2\mu/\sigma^2$."
            ),
            config={"decay": DECAY, "process_var": PROCESS_VAR, "obs_var": REGIMES, "nu": NU},
        )  # fmt: skip
