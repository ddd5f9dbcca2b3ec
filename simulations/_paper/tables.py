"""The paper's tables, as estimation: its rows on a state that turns, decays and diffuses.

The paper's own tables are perplexities of trained language models; these checks ask whether what
they are taken to show is true of the estimators.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from afafilter import LinearSDE, simulate, theory
from simulations import extrapolation, head_bank
from simulations._paper.claims import Found, claim, when

PART = "Tables, as estimation"


@cache
def rmse() -> pd.DataFrame:
    """Of the rows (index) at 512 to 4096 observations (columns), tuned at 512."""
    sets = [
        (data.x, data.z)
        for seed, n in ((1, extrapolation.TUNED_AT), (2, extrapolation.LENGTHS[-1]))
        for data in [simulate(extrapolation.model(), np.arange(float(n)), 30, rng=seed)]
    ]
    found = extrapolation.evaluate(*sets)
    return found.pivot(index="row", columns="n", values="rmse")


def numbers(row: str) -> str:
    return f"{row} " + " ".join(f"{x:.2f}" for x in rmse().loc[row])


@claim(
    PART,
    "v6 Table 1 and 3, Fig. 7",
    "Robust filter attention beats RoPE at the training length and beyond it.",
    "isotropic_attention",
    "extrapolation",
)
def filter_attention_beats_rotary() -> Found:
    table = rmse()
    return when(
        bool((table.loc["RFA"] < table.loc["RoPE"]).all()),
        f"RMSE at 512, 1024, 2048, 4096: {numbers('RFA')}; {numbers('RoPE')}; "
        f"{numbers('RFA, no gate')}; {numbers('Kalman')}",
    )


@claim(
    PART,
    "v6 Table 1 (M2.4), sec. 4.2",
    "Values have to be turned into the query's frame: without that performance breaks down.",
    "isotropic_attention",
    "extrapolation",
)
def values_have_to_be_turned() -> Found:
    table = rmse()
    return when(
        bool((table.loc["RoPE, values turned"] < table.loc["RoPE"]).all()),
        f"RMSE at 512 to 4096: {numbers('RoPE, values turned')}; {numbers('RoPE')}",
    )


@claim(
    PART,
    "v6 Table 1 (M2.2, M2.3), sec. 4.2",
    "Both the additive prior and the multiplicative gate are needed.",
    "isotropic_attention",
    "extrapolation",
)
def prior_and_gate_are_needed() -> Found:
    table = rmse()
    flat, gated = table.loc["RoPE, values turned"], table.loc["RFA"]
    plain = table.loc["RFA, no gate"]
    return when(
        bool((gated < flat).all() and (gated < plain).all()),
        f"RMSE at 512 to 4096: both, {numbers('RFA')}; the prior alone, {numbers('RFA, no gate')}; "
        f"the gate alone, {numbers('RoPE, values turned')}",
    )


@claim(
    PART,
    "v6 Table 1 (B3, B4), sec. 4.2",
    "Decay added to rotary attention is worse than filter attention: it takes the uncertainty, not "
    "decay alone.",
    "isotropic_attention",
    "extrapolation",
)
def decay_alone_is_not_enough() -> Found:
    table = rmse()
    return when(
        bool((table.loc["RFA"] < table.loc["decayed RoPE"]).all()),
        f"RMSE at 512 to 4096: {numbers('decayed RoPE')}; {numbers('RFA')}",
    )


@claim(
    PART,
    "v6 Table 1 (B2)",
    "ALiBi stays flat beyond the training length.",
    "isotropic_attention",
    "extrapolation",
)
def linear_bias_stays_flat() -> Found:
    row = rmse().loc["ALiBi"]
    return when(
        float(row.iloc[-1]) <= 1.1 * float(row.iloc[0]), f"RMSE at 512 to 4096: {numbers('ALiBi')}"
    )


@claim(
    PART,
    "v6 Table 2, Fig. 8",
    "More damping makes long contexts more stable and costs accuracy at the training length.",
    "theory.length_error",
    "context",
)
def damping() -> Found:
    lengths = [512, 4096]
    error = {
        mu: theory.length_error(
            LinearSDE.isotropic(mu, 1.0, process_var=0.1, obs_var=1.0, prior="diffuse"),
            0.1,
            lengths,
        )
        for mu in (0.003, 0.03, 0.3)
    }
    growth = [float(e[1] / e[0]) for e in error.values()]
    cost = [float(e[0]) for e in error.values()]
    told = "; ".join(f"μ = {mu:g}: {e[0]:.3f}, {e[1]:.3f}" for mu, e in error.items())
    return when(
        bool((np.diff(growth) < 0).all() and (np.diff(cost) > 0).all()),
        f"RMSE of the plain estimator at 512 and 4096 observations, {told}; growth "
        + ", ".join(f"{g:.2f}" for g in growth),
    )


@claim(
    PART,
    "v6 F.2, Fig. 9-11",
    "Trained by prediction, heads settle in different regimes, diffusive and integrative.",
    "fit_afa spectral_bank",
    "head_bank",
)
def heads_specialise() -> Found:
    steps = 16
    table, _ = head_bank.evaluate(4, steps)
    alpha = table.loc[(table["n"] == head_bank.TRAINED) & np.isfinite(table["alpha"]), "alpha"]
    negative, positive = int((alpha < 0).sum()), int((alpha > 0).sum())
    return when(
        negative > 0 and positive > 0,
        f":math:`\\alpha < 0` in {negative} heads, :math:`\\alpha > 0` in {positive}, after "
        f"{steps} steps on data of the model",
    )
