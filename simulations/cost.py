"""cost: time and memory against the number of observations, and the accuracy that they buy.

Median wall time of one path and peak memory on this machine, for the tensor form, the attention
form, linear-time AFA, the Kalman filter and the RTS smoother; and each one's root mean squared
error. Beside them causal softmax attention of the same channels, written out in NumPy and, when
PyTorch is installed, its fused one.
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

from afafilter import Estimate, StudentT, adaptive_filter, kalman_filter, rts_smoother, simulate
from afafilter.plotting import MARKERS, decimal_ticks, figure, paper_style, series_style
from benchmarks.worker import peak_of
from simulations import _setups
from simulations._common import save

Array = NDArray[np.float64]
SEED, PROCESS_VAR, REPEATS = 97, 0.05, 5
ESTIMATORS = {
    "Kalman": (kalman_filter, 10**5),
    "RTS": (rts_smoother, 10**5),
    "AFA, linear time": (partial(adaptive_filter, method="linear"), 10**5),
    "AFA, attention": (partial(adaptive_filter, method="isotropic"), 10**4),
    "AFA robust, attention": (
        partial(adaptive_filter, weight=StudentT(4.0), anchor="prediction"),
        10**4,
    ),
    "AFA, full matrices": (partial(adaptive_filter, method="dense"), 10**3),
}


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


def peak_memory(call: Callable[[], Any]) -> float:
    """MiB at the peak of a call beyond its result, by the resident pages; NaN where unknown."""
    try:
        found = peak_of(lambda: _arrays(call()))
    except (AttributeError, OSError):  # systems that do not tell
        return np.nan
    return max(found, 4096) / 2**20 if found >= 0 else np.nan


def _arrays(result: Any) -> dict[str, Array]:
    if isinstance(result, Estimate):
        return {"mean": result.mean, "cov": result.cov}
    return {"output": result}


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
                        "estimator": name,
                        "n": n,
                        "seconds": seconds,
                        "mib": peak_memory(partial(estimator, model, t, data.z[0])),
                        "rmse": np.sqrt(np.mean(error**2)),
                    }
                )
            for name, (attend, largest) in peers.items():
                if n <= largest:
                    seconds, _ = median_time(partial(attend, t, data.z[0]))
                    mib = peak_memory(partial(attend, t, data.z[0]))
                    rows.append({"estimator": name, "n": n, "seconds": seconds, "mib": mib})
    table = pd.DataFrame(rows)
    with paper_style():
        fig, axes = figure(1, 3, width="full", height=2.7)
        names = list(table["estimator"].unique())
        for ax, metric in zip(axes, ("seconds", "mib", "rmse"), strict=True):
            for index, name in enumerate(names):
                part = table[table["estimator"] == name]
                ax.plot(
                    part["n"],
                    part[metric],
                    marker=MARKERS[index],
                    label=name,
                    **series_style(name, index, len(names)),
                )
            ax.set(xscale="log", yscale="log", xlabel="observations")
        axes[0].set_ylabel("seconds, one path")
        axes[1].set_ylabel("peak memory (MiB)")
        axes[2].set_ylabel("RMSE per component")
        decimal_ticks(axes[2])
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return save(
            fig,
            out_dir,
            "cost",
            table,
            latex=short(table),
            table_caption=(
                "Largest number of observations tried, time and peak memory there, the slopes of "
                "both in log-log scale over the last three numbers, and RMSE."
            ),
            caption=(
                f"Median wall time of {REPEATS} warm runs on one path, one thread; peak memory "
                "beyond the result (resident pages); and RMSE on "
                f"the same data; spiral, $\\sigma^2={PROCESS_VAR:g}$, $\\eta^2=1$, irregular times."
            ),
            finding=finding(table, fused is not None),
            config={"seed": SEED, "sizes": sizes, "repeats": REPEATS, "full": full},
        )


def slope(part: pd.DataFrame, metric: str) -> float:
    """Of the last three numbers of observations, in log-log scale."""
    tail = part.tail(3)
    return float(np.polyfit(np.log(tail["n"]), np.log(tail[metric]), 1)[0])


def short(table: pd.DataFrame) -> pd.DataFrame:
    """Everybody at its largest number of observations, with the slopes."""
    return pd.DataFrame(
        [
            {
                "estimator": name,
                "n": part["n"].iloc[-1],
                "seconds": part["seconds"].iloc[-1],
                "slope of time": slope(part, "seconds"),
                "MiB": part["mib"].iloc[-1],
                "slope of memory": slope(part, "mib"),
                "rmse": part["rmse"].iloc[-1],
            }
            for name, part in table.groupby("estimator", sort=False)
        ]
    )


def finding(table: pd.DataFrame, has_torch: bool) -> str:
    """What the experiment shows, in numbers of the run."""
    parts = []
    for name, part in table.groupby("estimator", sort=False):
        last = part.iloc[-1]
        parts.append(
            f"{name} {last['seconds']:.2g} s and {last['mib']:.2g} MiB at n = {last['n']} "
            f"(slopes {slope(part, 'seconds'):.1f} and {slope(part, 'mib'):.1f})"
        )
    return (
        "Wall times on one thread and peak memory, with the slopes of the last three sizes in "
        "log-log scale: "
        + "; ".join(parts)
        + ". All forms of plain AFA give the same estimates; none is as accurate as the Kalman "
        "filter under process noise, whatever it costs. "
        + ("" if has_torch else "PyTorch is not installed: its fused attention was not timed.")
    )
