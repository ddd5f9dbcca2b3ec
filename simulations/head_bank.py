"""head_bank: spectrally coupled heads on a multi-scale SDE, their noise learned by AFA's objective.

A rotary spectrum shared out among heads; every head decays in proportion to its fastest rotation
(mu_h = b omega_h,max), beside a bank with zero-decay heads and one of a common decay. The data are
a stationary SDE of the same spectrum whose channels forget at rates of their own. Noise levels and
temperature of every head are learned by the error of one-step predictions; the regime that they
mean (diffusive or integrative) is followed over the training, and the maps are drawn at the longest
record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from afafilter import (
    LinearSDE,
    isotropic_attention,
    kalman_filter,
    simulate,
    spectral_bank,
)
from afafilter.plotting import MARKERS, figure, line_style, paper_style, series_style, shades
from simulations._common import save

Array = NDArray[np.float64]
SEED, HEADS, WIDTH, BASE, COUPLING = 83, 4, 2, 1000.0, 0.05
TRAINED, LONGEST = 256, 4096
OBS_VAR, STRENGTH = 1.0, 4.0
OMEGA = BASE ** (-np.arange(HEADS * WIDTH) / (HEADS * WIDTH))
"""omega_k = base^(-k / n), radian per step."""
SPECTRUM = OMEGA.reshape(HEADS, WIDTH)
FLOOR = 0.0062
"""sigma^2 / (2 mu) where the peaks are followed: heads whose process noise has hardly set in."""
BANKS = ("coupled", "zero decay", "common decay")


def truth() -> list[LinearSDE]:
    """One model a head: every channel forgets in proportion to the head's rotation, variance 4."""
    decay = COUPLING * SPECTRUM.max(axis=1)
    return [
        LinearSDE.isotropic(
            mu, omega, process_var=2 * mu * STRENGTH, obs_var=OBS_VAR, dim=2 * WIDTH
        )
        for mu, omega in zip(decay, SPECTRUM, strict=True)
    ]


def draw(n: int, n_paths: int, seed: int) -> tuple[Array, Array]:
    """States and observations (n_paths, H, n, 2 WIDTH)."""
    rng = np.random.default_rng(seed)
    drawn = [simulate(model, np.arange(float(n)), n_paths, rng=rng) for model in truth()]
    return np.stack([d.x for d in drawn], 1), np.stack([d.z for d in drawn], 1)


def decays(bank: str) -> Array:
    """Decay of every head."""
    coupled = np.asarray(spectral_bank(SPECTRUM, COUPLING).decay)
    if bank == "coupled":
        return coupled
    return np.zeros(HEADS) if bank == "zero decay" else np.full(HEADS, coupled.mean())


def attend(z: Array, decay: Array, theta: Array, last: Array | None = None, **more: Any) -> Any:
    """All heads at once; theta (H, 2): log process_var, log inverse_temperature; key_var is 1."""
    process, beta = np.exp(theta).T
    t = np.arange(float(z.shape[-2]))
    return isotropic_attention(
        None, None, z, t, decay=decay, frequency=SPECTRUM, process_var=process, key_var=OBS_VAR,
        inverse_temperature=beta, t_query=None if last is None else t[last], **more,
    )  # fmt: skip


def learn(z: Array, decay: Array, steps: int) -> Array:
    """theta (steps + 1, H, 2) over the training: least one-step prediction error of each head."""
    start = np.tile(np.log([0.5, 1.0]), (HEADS, 1))
    paths = np.repeat(start[None], steps + 1, axis=0)
    for h in range(HEADS):
        own, track = z[:, h : h + 1], [start[h]]

        def loss(theta: Array, h: int = h, own: Array = own) -> float:
            t = np.arange(float(own.shape[-2]))
            process, beta = np.exp(theta)
            found = isotropic_attention(
                None, None, own, t, decay=decay[h], frequency=SPECTRUM[h], process_var=process,
                key_var=OBS_VAR, inverse_temperature=beta,
            ).output  # fmt: skip
            c = (found[..., ::2] + 1j * found[..., 1::2]) * np.exp(-decay[h] + 1j * SPECTRUM[h])
            predicted = np.stack([c.real, c.imag], -1).reshape(found.shape)
            return float(((own[..., 1:, :] - predicted[..., :-1, :]) ** 2)[..., 16:, :].mean())

        minimize(
            loss,
            start[h],
            method="Nelder-Mead",
            callback=track.append,
            bounds=[(np.log(1e-4), np.log(10.0)), (np.log(0.25), np.log(8.0))],
            options={
                "maxiter": steps,
                "initial_simplex": start[h] + np.array([[0.0, 0.0], [-1.5, 0.0], [0.0, 1.0]]),
            },
        )
        track += [track[-1]] * (steps + 1 - len(track))
        paths[:, h] = track[: steps + 1]
    return paths


def regimes(theta: Array, decay: Array) -> Array:
    """alpha = eta^2 - sigma^2 / (2 mu) of every head; < 0: diffusive, > 0: integrative."""
    with np.errstate(divide="ignore"):
        return np.asarray(OBS_VAR - np.exp(theta[..., 0]) / (2 * decay))


def memory(theta: Array, decay: Array) -> Array:
    """Lag below which half of a head's weight lies, at the longest record."""
    lag = np.arange(float(LONGEST))
    process, beta = np.exp(theta).T
    mu = decay[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.where(mu > 0, -np.expm1(-2 * mu * lag) / (2 * mu), lag)
    weight = (process[:, None] * grown + OBS_VAR * np.exp(-2 * mu * lag)) ** -beta[:, None]
    share = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    return np.asarray(lag[(share >= 0.5).argmax(axis=1)])


def rmse(error: Array) -> Array:
    """Per head (H,) over paths, times and components."""
    return np.asarray(np.sqrt((error**2).mean(axis=(0, 2, 3))))


def evaluate(n_paths: int, steps: int) -> tuple[pd.DataFrame, dict[str, Array]]:
    """RMSE of every head and bank at the trained and the longest length, and learned paths."""
    train = draw(TRAINED, n_paths, SEED)
    test = draw(LONGEST, n_paths, SEED + 1)
    rows, learned = [], {}
    spans = {n: np.arange(n - 8, n) for n in (TRAINED, LONGEST)}
    for bank in BANKS:
        decay = decays(bank)
        learned[bank] = learn(train[1], decay, steps)
        theta = learned[bank][-1]
        for n, last in spans.items():
            found = attend(test[1][:, :, :n], decay, theta, last).output
            errors = rmse(found - test[0][:, :, last])
            rows += [
                {
                    "bank": bank,
                    "head": h + 1,
                    "n": n,
                    "rmse": errors[h],
                    "decay": decay[h],
                    "process_var": np.exp(theta[h, 0]),
                    "beta": np.exp(theta[h, 1]),
                    "alpha": regimes(theta, decay)[h],
                    "half of the weight": memory(theta, decay)[h],
                }
                for h in range(HEADS)
            ]
    for h, model in enumerate(truth()):
        found = kalman_filter(model, np.arange(float(LONGEST)), test[1][:, h]).mean
        rows += [
            {
                "bank": "Kalman",
                "head": h + 1,
                "n": n,
                "rmse": float(np.sqrt(((found - test[0][:, h])[:, last] ** 2).mean())),
            }
            for n, last in spans.items()
        ]
    return pd.DataFrame(rows), learned


def peaks() -> pd.DataFrame:
    """Lag at which a head's decayed weight peaks, over the decay: measured and log(a/b) / (2 mu).

    The weight on the raw key is e^{-mu tau} / (b + a e^{-2 mu tau}), b = sigma^2 / (2 mu) and a =
    eta^2 - b: it peaks where a e^{-2 mu tau} = b.
    """
    rows = []
    for decay in np.logspace(-3, -0.5, 6):
        b, a = FLOOR, OBS_VAR - FLOOR
        lag = np.linspace(0.0, 8.0 / decay, 200_001)
        share = np.exp(-decay * lag) / (b + a * np.exp(-2 * decay * lag))
        rows.append(
            {"decay": decay, "measured": lag[share.argmax()], "law": np.log(a / b) / (2 * decay)}
        )
    return pd.DataFrame(rows)


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write head_bank.{png,pdf,csv,tex,json,md} into `out_dir`."""
    n_paths, steps = (64, 40) if full else (4, 12)
    table, learned = evaluate(n_paths, steps)
    peaked = peaks()
    decay = decays("coupled")
    with paper_style():
        fig, axes = figure(2, 2, width="full", height=4.6)
        (top, course), (peak, shape) = axes
        for index, (bank, part) in enumerate(table.groupby("bank", sort=False)):
            longest = part[part["n"] == LONGEST]
            top.plot(
                longest["head"],
                longest["rmse"],
                marker=MARKERS[index],
                ms=3,
                label=bank,
                **series_style(str(bank), index, 3),
            )
        top.set(xlabel="head (fast to slow)", ylabel=f"RMSE at {LONGEST}", title="(a) banks")
        top.set_xticks(range(1, HEADS + 1))
        for h in range(HEADS):
            course.plot(
                regimes(learned["coupled"], decay)[:, h],
                label=f"head {h + 1}",
                **line_style(h, HEADS),
            )
        course.axhline(0.0, color="0.5", lw=0.6, ls=":")
        course.set(xlabel="step of training", ylabel=r"$\alpha$", title="(b) regime")
        course.set_yscale("symlog", linthresh=1.0)
        peak.loglog(peaked["decay"], peaked["law"], "-", color="0.4", label="law")
        peak.loglog(
            peaked["decay"],
            peaked["measured"],
            "o",
            mfc="white",
            color=shades(1)[0],
            label="measured",
        )
        peak.set(xlabel=r"decay $\mu$", ylabel="lag of the peak", title="(c) where a head looks")
        lag = np.unique(np.geomspace(1, LONGEST, 200).astype(int)) - 1
        z = np.zeros((1, HEADS, LONGEST, 2 * WIDTH))
        maps = attend(
            z, decay, learned["coupled"][-1], np.array([LONGEST - 1]), return_weights=True
        ).weights[0, :, 0, ::-1]
        for h in range(HEADS):
            shape.loglog(lag + 1, maps[h, lag], label=f"head {h + 1}", **line_style(h, HEADS))
        shape.set(
            xlabel="lag + 1",
            ylabel="weight",
            title=f"(d) map, last row of {LONGEST}",
            ylim=(1e-7, 2),
        )
        for ax in axes.flat:
            ax.legend(fontsize=6)
        return save(
            fig, out_dir, "head_bank", table, finding=finding(table, peaked),
            latex=table[table["n"] == LONGEST].drop(columns="n"),
            caption=(
                f"{HEADS} heads of {WIDTH} channels with a rotary spectrum (base {BASE:g}) on a "
                "stationary SDE of that spectrum whose heads forget in proportion to their "
                f"rotation. Process noise and temperature of each head are learned on records of "
                f"{TRAINED} by the error of one-step predictions. (a) RMSE at {LONGEST} for decays "
                rf"$\mu_h={COUPLING:g}\,\omega_{{h,\max}}$, none, and one for all. (b) "
                r"$\alpha=\eta^2-\sigma^2/(2\mu)$ over the training of the coupled bank. (c) Lag "
                "at which the weight on a raw key peaks. (d) Weights of the last query. "
                f"{n_paths} paths."
            ),
            config={
                "seed": SEED, "n_paths": n_paths, "heads": HEADS, "width": WIDTH, "base": BASE,
                "coupling": COUPLING, "trained": TRAINED, "longest": LONGEST, "full": full,
            },
        )  # fmt: skip


def finding(table: pd.DataFrame, peaked: pd.DataFrame) -> str:
    """What the experiment shows, in numbers of the run."""
    mean = np.sqrt((table.assign(s=table["rmse"] ** 2).groupby(["bank", "n"])["s"]).mean())
    parts = "; ".join(
        f"{bank} {mean[(bank, TRAINED)]:.3f} and {mean[(bank, LONGEST)]:.3f}"
        for bank in (*BANKS, "Kalman")
    )
    coupled = table[(table["bank"] == "coupled") & (table["n"] == LONGEST)]
    diffusive = int((coupled["alpha"] < 0).sum())
    reach = ", ".join(f"{x:.0f}" for x in coupled["half of the weight"])
    lags = ", ".join(f"{x:.0f}" for x in peaked["measured"])
    off = float(np.abs(peaked["measured"] / peaked["law"] - 1).max())
    return (
        f"RMSE over all heads at {TRAINED} observations, where noise was learned, and at "
        f"{LONGEST}: {parts}. Of the coupled heads {diffusive} end diffusive and "
        f"{HEADS - diffusive} integrative; half of their weight lies within lags {reach} (fast to "
        f"slow). Weights on raw keys peak at lags {lags}, within {off:.1%} of the law."
    )
