"""cost: run time against the number of observations, with the accuracy that it buys beside it.

Median wall time of one path on this machine, for the tensor form, the attention form, linear-time
AFA, the Kalman filter and the RTS smoother; and each one's root mean squared error. Beside them
causal softmax attention of the same channels, written out in NumPy and, when PyTorch is installed,
its fused one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from afafilter import StudentT, adaptive_filter, kalman_filter, rts_smoother, simulate
from afafilter.plotting import curves, figure, paper_style
from simulations import _setups
from simulations._common import save, wide

Array = NDArray[np.float64]
SEED, PROCESS_VAR, REPEATS = 97, 0.05, 5
ESTIMATORS = {
    "Kalman": (kalman_filter, 10**5),
    "RTS": (rts_smoother, 10**5),
    "AFA, linear time": (partial(adaptive_filter, method="linear"), 10**5),
    "AFA, attention": (partial(adaptive_filter, method="isotropic"), 10**4),
    "AFA robust, attention": (
        partial(adaptive_filter, weight=StudentT(4.0), anchor="prediction"), 10**4
    ),
    "AFA, full matrices": (partial(adaptive_filter, method="dense"), 10**3),
}  # fmt: skip


def softmax_numpy(t: Array, z: Array) -> Array:
    """Causal softmax attention with q = k = v = z, by an N x N matrix."""
    logits = z @ z.T / np.sqrt(z.shape[1])
    logits[np.triu_indices(len(t), 1)] = -np.inf
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ z)


def softmax_torch() -> Callable[[Array, Array], Array] | None:
    """PyTorch's fused attention on one thread, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)

    def attend(t: Array, z: Array) -> Array:
        x = torch.from_numpy(z)[None, None]
        found = torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        return np.asarray(found[0, 0].numpy())

    return attend


def median_time(call: Callable[[], Any]) -> tuple[float, Any]:
    """Median wall time of warm calls, and what the last one gave."""
    seconds, found = [], None
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])), found


def main(out_dir: Path, *, full: bool = False, n_jobs: int = 1) -> list[Path]:
    """Write cost.{png,pdf,csv,tex,json} into `out_dir`."""
    sizes = [100, 300, 1000, 3000, 10_000, 30_000, 100_000][: 7 if full else 4]
    model = _setups.paper_spiral(PROCESS_VAR)
    rows = []
    fused = softmax_torch()
    peers: dict[str, Any] = {"softmax, N x N": (softmax_numpy, 3000)}
    if fused is not None:
        peers["softmax, PyTorch"] = (fused, 10**4)
    with threadpool_limits(1):
        for n in sizes:
            gaps = np.random.default_rng(SEED).exponential(0.1, n)
            t = np.cumsum(gaps)
            data = simulate(model, t, 1, rng=np.random.default_rng(SEED), x0=np.array([20.0, 0.0]))
            for name, (estimator, largest) in ESTIMATORS.items():
                if n > largest:
                    continue
                seconds, estimate = median_time(partial(estimator, model, t, data.z[0]))
                error = (estimate.mean - data.x[0])[20:]
                rows.append(
                    {
                        "estimator": name, "n": n, "seconds": seconds,
                        "rmse": np.sqrt(np.mean(error**2)),
                    }
                )  # fmt: skip
            for name, (attend, largest) in peers.items():
                if n <= largest:
                    seconds, _ = median_time(partial(attend, t, data.z[0]))
                    rows.append({"estimator": name, "n": n, "seconds": seconds, "rmse": np.nan})
    table = pd.DataFrame(rows)
    with paper_style():
        fig, axes = figure(2, 1, height=4.4, sharex=True)
        for ax, metric in zip(axes, ("seconds", "rmse"), strict=True):
            for index, (name, part) in enumerate(table.groupby("estimator", sort=False)):
                one = {name: part[metric].to_numpy()}
                line = curves(part["n"].to_numpy(), one, markers=True, ax=ax).lines[-1]
                line.set(color=f"C{index}", marker="osD^vPx*"[index], label=name)
            ax.set_xscale("log")
            ax.set_yscale("log")
        axes[0].set_ylabel("seconds, one path")
        axes[1].set_ylabel("RMSE per component")
        axes[1].set_xlabel("observations (irregular times)")
        axes[0].legend(ncols=2, fontsize=5.5, loc="upper left")
        axes[0].set_ylim(top=axes[0].get_ylim()[1] * 30)
        return save(
            fig, out_dir, "cost", table,
            latex=wide(table, ["n"], "estimator", "seconds"),
            caption=(
                f"Median wall time of {REPEATS} warm runs on one path, one thread, and RMSE on "
                f"the same data; spiral, $\\sigma^2={PROCESS_VAR:g}$, $\\eta^2=1$, irregular times."
            ),
            finding=finding(table, fused is not None),
            config={"seed": SEED, "sizes": sizes, "repeats": REPEATS, "full": full},
        )  # fmt: skip


def finding(table: pd.DataFrame, has_torch: bool) -> str:
    """What the experiment shows, in numbers of the run."""
    parts = []
    for name, part in table.groupby("estimator", sort=False):
        tail = part.tail(3)
        slope = np.polyfit(np.log(tail["n"]), np.log(tail["seconds"]), 1)[0]
        parts.append(f"{name} {part['seconds'].iloc[-1]:.2g} s at n = {part['n'].iloc[-1]} "
                     f"(slope {slope:.1f})")  # fmt: skip
    return (
        "Wall times on one thread, with the slope of the last three sizes in log-log scale: "
        + "; ".join(parts)
        + ". All forms of plain AFA give the same estimates; none is as accurate as the Kalman "
        "filter under process noise, whatever it costs. "
        + ("" if has_torch else "PyTorch is not installed: its fused attention was not timed.")
    )
