"""RESULTS.md and its figure, written from the raw results of the last run of each task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import BEFORE, OURS
from benchmarks.targets import MIB, TARGETS, Results, growth, median
from benchmarks.tasks import TASKS
from benchmarks.worker import BLOCK

HERE = Path(__file__).parent
RAW = HERE / "run"
THREADS = "threads.json"
FIGURE = HERE / "results.png"
PAGE = HERE / "RESULTS.md"


def load() -> tuple[Results, dict[str, Any]]:
    """Raw results by task and case, and the machine of each task."""
    results, machines = {}, {}
    for name in TASKS:
        path = RAW / f"{name}.json"
        if path.exists():
            raw = json.loads(path.read_text())
            results[name] = {entry["case"]: entry for entry in raw["cases"]}
            machines[name] = raw["machine"]
    return results, machines


def write() -> None:
    """Rewrite the page and the figure."""
    results, machines = load()
    if not results:
        raise SystemExit("no raw results in benchmarks/run; run the tasks first")
    draw(results)
    PAGE.write_text("\n".join(_page(results, machines)) + "\n")


def _page(results: Results, machines: Mapping[str, Any]) -> Iterator[str]:
    yield "# afafilter beside its peers"
    yield ""
    yield (
        "Written by `make bench`. Every library runs in a process of its own and takes its turn in "
        "rounds of one run; results are compared before anything is timed. Times in milliseconds: "
        "first call, median and least of the warm ones, and the median of the processor time that "
        f"all threads took; calls shorter than {1e3 * BLOCK:g} ms count in blocks of that length, "
        "each by its mean. Memory: peak resident memory of a warm call beyond its inputs and its "
        "result, MiB. Ratio: the library's median over ours. Error: largest difference from the "
        "reference (marked -), relative to its largest entry."
    )
    yield ""
    machine = next(iter(machines.values()))
    yield f"Machine: {machine['cpu']}, {machine['cores']} cores; Python {machine['python']}; "
    yield f"numpy {machine['numpy']}, BLAS {machine['blas']}. Processes are bound to as many cores "
    yield (
        "as they have threads. Load average before each task: "
        + ", ".join(f"{name} {m['load']:.1f} ({m['date']})" for name, m in machines.items())
        + "."
    )
    outcomes = [x for cases in results.values() for e in cases.values() for x in e["outcomes"]]
    missing = sorted({x["library"] for x in outcomes if _missing(x)})
    if missing:
        yield f"Not installed, so without a row: {', '.join(missing)}."
    yield ""
    yield "![time against size](results.png)"
    yield ""
    yield "## Against the bounds we set ourselves"
    yield ""
    yield "| task | against | wanted | measured | met |"
    yield "|---|---|---|---|---|"
    yield from _judged(results)
    yield from _against_before(results)
    for name, entries in results.items():
        yield ""
        yield f"## {TASKS[name].title}"
        yield ""
        yield TASKS[name].about
        for entry in entries.values():
            yield ""
            yield from _table(entry)
    if (RAW / THREADS).exists():
        yield from _threads(json.loads((RAW / THREADS).read_text()))


def _threads(found: Mapping[str, Any]) -> Iterator[str]:
    """What `benchmarks.threads` found, beside what an associative scan does on paper."""
    size, most, warm_up = found["size"], found["most"], found["warm_up"]
    yield ""
    yield "## More threads for one long series"
    yield ""
    yield (
        f"{size} irregular observations, d = 4, which never settle: {most} segments of "
        f"{size // most} nodes, each after a warm-up of {warm_up}, all the work beyond that of one "
        f"thread ({100 * most * warm_up / size:.1f} %). Simulated: processor times of all turns of "
        "a thread, given to n threads; memory that they share is left out."
    )
    yield ""
    yield "| threads | filter, ms | faster | smoother, ms | faster |"
    yield "|---|---|---|---|---|"
    for row in found["table"]:
        cells = [f"{1e3 * s:.3g} | {x:.3g}" for s, x in (row["filter"], row["smoother"])]
        yield f"| {row['threads']} | {' | '.join(cells)} |"
    yield ""
    yield (
        "Segments stop paying where one is as short as its warm-up: at "
        f"{size // warm_up} cores here. An associative scan (Sarkka and Garcia-Fernandez 2021; the "
        "parallel filter of dynamax) has no warm-up and a span of log2 N combinations, but makes "
        "about 2 N of them, each with a linear system of d equations and several products of d x d "
        "matrices, where one step of a filter has one triangularisation: it needs several cores to "
        "be as fast as one that filters, and pays where cores are many and N is small beside cores "
        "times the warm-up."
    )


def _judged(results: Results) -> Iterator[str]:
    units = {
        "faster": "x faster",
        "time ratio": "x its time",
        "MiB": " MiB",
        "seconds": " s",
        "ms": " ms",
        "seconds beyond": " s more",
    }
    for target in TARGETS:
        value = target.value(results)
        shown, met = "did not run", ""
        if value is not None:
            shown, met = f"{value:.3g}", "yes" if target.met(value) else "**no**"
        unit = units[target.measure]
        yield f"| {target.what} | {target.peer} | {target.wanted}{unit} | {shown} | {met} |"
    slope = growth(results)
    if slope is not None:
        met = "yes" if 0.8 < slope < 1.15 else "**no**"
        yield f"| plain AFA, 1e4..1e6: exponent of time in N | | about 1 | {slope:.2f} | {met} |"


def _against_before(results: Results) -> Iterator[str]:
    """Every library of ours beside what it was; nothing if no earlier commit took part."""
    rows, commits = [], set()
    for task, entries in results.items():
        for case, entry in entries.items():
            found = {x["library"]: x for x in entry["outcomes"]}
            for name, old in found.items():
                if not name.endswith(BEFORE):
                    continue
                commits.add(old["version"])
                now = found[name.removesuffix(BEFORE)]
                what = f"| {task} | {case} | {now['library']} |"
                if not (old["times"] and now["times"]):
                    absent, note = old["status"] == "absent", _note(old if now["times"] else now)
                    rows.append(f"{what} | | {'not there' if absent else note} |")
                    continue
                ratio = median(old) / median(now)
                told = f"{ratio:.3g}" if ratio >= 1 else f"**{ratio:.3g}**"
                rows.append(f"{what} {1e3 * median(old):.3g} | {1e3 * median(now):.3g} | {told} |")
    if rows:
        yield ""
        yield "## Against the commit before"
        yield ""
        yield (
            f"{', '.join(sorted(commits))}, a process of its own in every round. Median times, ms; "
            "before over now, bold where this version is slower."
        )
        yield ""
        yield "| task | case | library | before | now | ratio |"
        yield "|---|---|---|---|---|---|"
        yield from rows


def _missing(x: Mapping[str, Any]) -> bool:
    """Whether a peer was not installed."""
    return x["status"] == "absent" and x["version"] is None


def _note(x: Mapping[str, Any]) -> str:
    """What is said of an outcome beside its numbers."""
    note = "" if x["status"] == "ok" else "not there" if x["status"] == "absent" else x["status"]
    return ": ".join(part for part in (note, x["note"]) if part).replace("|", "/")


def _table(entry: Mapping[str, Any]) -> Iterator[str]:
    plural = "s" if entry["threads"] > 1 else ""
    yield f"**{entry['case']}** ({entry['threads']} thread{plural})"
    yield ""
    yield "| library | version | first | median | least | cpu | ratio | MiB | error | |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    ours = next((x for x in entry["outcomes"] if x["library"] == OURS and x["times"]), None)
    for x in entry["outcomes"]:
        if _missing(x):
            continue
        name = f"**{x['library']}**" if x["library"] == OURS else x["library"]
        version = x["version"] or ""
        note = _note(x)
        error = "" if x["error"] is None else "-" if x["error"] == 0 else f"{x['error']:.1e}"
        if not x["times"]:
            yield f"| {name} | {version} | | | | | | | {error} | {note} |"
            continue
        ratio = "" if ours is None else f"{median(x) / median(ours):.3g}"
        memory = "" if x["memory"] is None or x["memory"] < 0 else f"{x['memory'] / MIB:.3g}"
        times = (x["first"], median(x), min(x["times"]), float(np.median(x["cpu"])))
        shown = " | ".join(f"{1e3 * seconds:.3g}" for seconds in times)
        yield f"| {name} | {version} | {shown} | {ratio} | {memory} | {error} | {note} |"


def draw(results: Results) -> None:
    """Time against size, one panel per family of cases, ours highlighted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(11.5, 7.5), layout="constrained")
    styles = zip(cycle("svD^<>Px*"), cycle(f"C{k}" for k in range(10)))
    looks: dict[str, tuple[str, str]] = {}  # one library, one look
    for ax, (title, task, accept, highlighted) in zip(axes.flat, _panels(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for name, entry in results.get(task, {}).items():
            if accept(name):
                for x in entry["outcomes"]:
                    if x["times"] and not x["library"].endswith(BEFORE):
                        lines.setdefault(x["library"], []).append((entry["size"], median(x)))
        for name, points in lines.items():
            size, seconds = np.array(sorted(points)).T
            bold = name in highlighted
            if not bold and name not in looks:
                looks[name] = next(styles)
            marker, color = ("o", "black") if bold else looks[name]
            ax.loglog(
                size,
                1e3 * seconds,
                marker=marker,
                ms=5 if bold else 4,
                lw=2.4 if bold else 1.0,
                zorder=3 if bold else 2,
                label=name,
                color=color,
            )
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("N", fontsize=8)
        ax.set_ylabel("ms", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.grid(alpha=0.3)
        if lines:
            low, high = (f(y for points in lines.values() for _, y in points) for f in (min, max))
            ax.xaxis.set_minor_formatter("")
            ax.yaxis.set_minor_formatter("")
            rows = -(-len(lines) // 2)
            ax.set_ylim(600 * low, 1.6e3 * high * (high / low) ** (0.09 * rows))  # and the legend
            ax.legend(fontsize=6.5, ncols=2, loc="upper left", columnspacing=1.0, handlelength=1.6)
    fig.savefig(FIGURE, dpi=110)
    plt.close(fig)


def _panels() -> list[tuple[str, str, Any, tuple[str, ...]]]:
    def smoother(d: int) -> tuple[str, str, Any, tuple[str, ...]]:
        title = f"filter and smoother, d = {d}, one thread"
        return title, "smoothing", lambda case: case.startswith(f"regular d={d} "), (OURS,)

    return [
        smoother(2),
        smoother(4),
        smoother(8),
        (
            "simulation, paths x steps, d = 2, one thread",
            "simulation",
            lambda case: "threads" not in case,
            (OURS,),
        ),
        (
            "robust AFA, d = 64, float64, two threads",
            "attention",
            lambda case: case.endswith("float64 kappa=1 2 threads"),
            (OURS,),
        ),
        (
            "AFA with plain weights, and windowed",
            "linear_time",
            lambda case: case.startswith(("irregular N", "window")) and "r=" not in case,
            ("sum of exponentials",),
        ),
    ]
