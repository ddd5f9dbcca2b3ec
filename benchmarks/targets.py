"""The ratios that afafilter sets itself, judged from the raw results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.contest import OURS

Results = Mapping[str, Mapping[str, Any]]
"""task -> case -> what `run_case` returned."""
MIB = 2.0**20


@dataclass(frozen=True)
class Target:
    """A bound on a number made of medians. wanted: e.g. ">= 4"."""

    what: str
    task: str
    case: str
    wanted: str
    measure: str = "faster"
    peer: str = ""
    ours: str = OURS

    def value(self, results: Results) -> float | None:
        """The measured number; None if something it needs did not run."""
        entry = results.get(self.task, {}).get(self.case)
        if entry is None:
            return None
        by_name = {x["library"]: x for x in entry["outcomes"]}
        ours, peer = by_name.get(self.ours), by_name.get(self.peer)
        if ours is None or not ours["times"]:
            return None
        if self.measure == "MiB":
            return float(ours["memory"]) / MIB
        if self.measure in ("seconds", "ms"):
            return median(ours) * (1 if self.measure == "seconds" else 1e3)
        if peer is None or not peer["times"]:
            return None
        if self.measure == "seconds beyond":
            return median(ours) - median(peer)
        ratio = median(peer) / median(ours)
        return ratio if self.measure == "faster" else 1 / ratio

    def met(self, value: float) -> bool:
        """Whether a measured number keeps the bound."""
        sign, bound = self.wanted.split()
        return value >= float(bound) if sign == ">=" else value <= float(bound)


def median(outcome: Mapping[str, Any]) -> float:
    """Median time of an outcome, seconds."""
    return float(np.median(outcome["times"]))


def growth(results: Results) -> float | None:
    """Slope of log time against log N of the sum of exponentials, 1e4 to 1e6."""
    found = []
    for N in (10_000, 100_000, 1_000_000):
        entry = results.get("linear_time", {}).get(f"irregular N={N}")
        if entry is None:
            return None
        outcome = next(x for x in entry["outcomes"] if x["library"] == "sum of exponentials")
        if not outcome["times"]:
            return None
        found.append((N, median(outcome)))
    N, seconds = np.array(found).T
    return float(np.polyfit(np.log(N), np.log(seconds), 1)[0])


def _targets() -> list[Target]:
    out = []
    for d in (2, 4, 8):
        case = f"regular d={d} N=100000"
        out.append(
            Target(f"smoother d={d}, N=1e5, regular", "smoothing", case, ">= 4", peer="statsmodels")
        )
    gappy = "irregular, 10 % missing, d=4 N=100000"
    for case in (gappy, gappy + " 2 threads"):
        what = f"smoother, {case}"
        out.append(Target(what, "smoothing", case, ">= 3", peer="statsmodels"))
        for peer in ("filterpy", "filterpy from SDE"):
            out.append(Target(what, "smoothing", case, ">= 60", peer=peer))
    for d in (2, 4, 8):
        out.append(
            Target(
                f"smoother d={d}, N=1e3",
                "smoothing",
                f"regular d={d} N=1000",
                ">= 3",
                peer="statsmodels",
            )
        )
    for case in (f"regular d={d} N={N}" for d in (2, 4, 8) for N in (1000, 10_000, 100_000)):
        out.append(Target(f"smoother, {case}", "smoothing", case, ">= 60", peer="filterpy"))
    for threads in ("", ", 2 threads"):
        case = "shared covariances" + threads
        out.append(Target(f"1000 x 1000{threads}", "batches", case, ">= 4", peer="dynamax vmap"))
        out.append(
            Target(f"1000 x 1000{threads}", "batches", case, ">= 4", peer="dynamax vmap, one cov")
        )
        out.append(Target(f"1000 x 1000{threads}", "batches", case, ">= 40", peer="simdkalman"))
        out.append(
            Target(
                f"1000 x 1000, own gaps{threads}",
                "batches",
                "own gaps" + threads,
                ">= 4",
                peer="dynamax vmap",
            )
        )
    draw = "1000 x 1000"
    out.append(
        Target(
            "simulation against drawing its normals",
            "simulation",
            draw,
            "<= 1.6",
            "time ratio",
            "normals only (SFC64)",
        )
    )
    out.append(
        Target(
            "simulation against NumPy's default normals",
            "simulation",
            draw,
            "<= 1.6",
            "time ratio",
            "normals only (NumPy default)",
        )
    )
    out.append(Target("simulation", "simulation", draw, ">= 15", peer="torchsde SRK"))
    fused = "torch softmax attention"
    for N, bound in ((1024, ">= 1"), (2048, ">= 1.3")):
        case = f"N={N} float64 kappa=1 2 threads"
        out.append(Target(f"robust AFA, {case}", "attention", case, bound, peer=fused))
    for kappa, (dtype, bound) in product((1, 2.5), (("float64", ">= 2"), ("float32", ">= 1.5"))):
        case = f"N=8192 {dtype} kappa={kappa:g} "
        for threads in ("2 threads", "1 thread"):
            what = f"robust AFA, {case}{threads}"
            out.append(Target(what, "attention", case + threads, bound, peer=fused))
        what, case = f"robust AFA, {case}2 threads", case + "2 threads"
        out.append(Target(what, "attention", case, ">= 40", peer="torch N x N"))
        out.append(Target(f"{what}, memory", "attention", case, "<= 16", "MiB"))
    linear = "sum of exponentials"
    out.append(
        Target(
            "plain AFA, 1e6 irregular samples",
            "linear_time",
            "irregular N=1000000",
            "<= 2",
            "seconds",
            ours=linear,
        )
    )
    out.append(
        Target(
            "plain AFA two-sided, 1e6",
            "linear_time",
            "two-sided N=1000000",
            "<= 2",
            "seconds",
            ours=linear,
        )
    )
    out.append(
        Target(
            "windowed robust AFA, 1e6, memory",
            "linear_time",
            "window 512 N=1000000",
            "<= 128",
            "MiB",
            ours="windowed robust",
        )
    )
    for case, bound in (
        ("plain N=2000", "<= 0.7"),
        ("5 % missing N=2000", "<= 1.2"),
        ("robust, five rounds N=2000", "<= 2"),
        ("exact robust two-sided, five rounds N=2000", "<= 4"),
        ("window 200 N=20000", "<= 3"),
    ):
        out.append(Target(f"dense AFA of a track, {case}", "tracks", case, bound, "seconds"))
    for case, bound in (
        ("kalman_filter", "<= 0.06"),
        ("adaptive_filter", "<= 0.3"),
        ("adaptive_filter, five rounds", "<= 1"),
    ):
        out.append(Target(f"{case}, T = 50", "small_calls", case, bound, "ms"))
    for what, bound, peer, ours in (
        ("import of the package", "<= 0.04", "nothing", OURS),
        ("import of an estimator", "<= 0.35", "numpy", "afafilter, kalman_filter"),
    ):
        out.append(
            Target(
                f"{what}, beyond {peer}", "startup", "import", bound, "seconds beyond", peer, ours
            )
        )
    what = "afafilter estimate, 1000 rows"
    out.append(Target(what, "startup", what, "<= 1.2", "seconds", ours=what))
    for case in ("Nile, local level", "sunspots, damped cycle"):
        out.append(Target(f"fit, {case}", "fitting", case, ">= 5", peer="statsmodels"))
    many = "1000 series, local level, 2 threads"
    out.append(Target(f"fit_each, {many}", "fitting", many, ">= 20", peer="statsmodels"))
    out.append(
        Target(
            "fit, 6 parameters, 2000 irregular samples",
            "fitting",
            "irregular N=2000, 6 parameters",
            "<= 0.4",
            "seconds",
        )
    )
    what, case = "a study on dask, joblib beside it", "10,000 cells"
    out.append(Target(what, "studies", case, "<= 1.15", "time ratio", OURS, "dask"))
    case = "irregular, d=4 N=1000000 2 threads"
    what = "smoother, N=1e6 that does not settle, two threads"
    out.append(Target(what, "smoothing", case, ">= 1.7", peer="afafilter, one thread"))
    return out


TARGETS = _targets()
