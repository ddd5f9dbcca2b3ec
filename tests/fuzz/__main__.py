"""Many cases, in processes, and a report: python -m tests.fuzz --cases 100000 --seed 0.

Case k of a seed is always the same: `--only K` runs it alone and says what it is. Results are kept
in parts, one for each CHUNK cases, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from tests.fuzz.cases import Seeded, draw_case
from tests.fuzz.laws import check_case, describe
from tests.fuzz.truth import Verdict

CHUNK = 100
OUTCOMES = ("right", "excused", "warned", "needless", "refused", "unasked", "wrong")
COLUMNS = ("case", "law", "outcome", "error", "note")


def run_chunk(folder: Path, seed: int, first: int, stop: int) -> int:
    """Cases first, ..., stop - 1 into one file, whole or not at all; how many laws were wrong."""
    wrong = 0
    path = folder / f"{first:08d}.csv"
    with open(path.with_suffix(".tmp"), "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for k in range(first, stop):
            for verdict in checked(seed, k):
                note = verdict.note if verdict.outcome in ("wrong", "refused", "warned") else ""
                table.writerow([k, verdict.law, verdict.outcome, f"{verdict.error:.3g}", note])
                wrong += verdict.outcome == "wrong"
    os.replace(path.with_suffix(".tmp"), path)
    return wrong


def checked(seed: int, case: int) -> list[Verdict]:
    """All laws of a case; where they themselves fail, that."""
    try:
        return check_case(Seeded(seed, case))
    except Exception as error:
        return [Verdict("the laws themselves", "wrong", np.inf, f"{type(error).__name__}: {error}")]


def run(folder: Path, seed: int, cases: int, jobs: int) -> None:
    """Whatever parts are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [k for k in range(0, cases, CHUNK) if not (folder / f"{k:08d}.csv").exists()]
    done, begin, wrong = cases - sum(min(CHUNK, cases - k) for k in todo), time.monotonic(), 0
    fresh = 0
    with ProcessPoolExecutor(jobs, initializer=_quiet) as pool:
        parts = {pool.submit(run_chunk, folder, seed, k, min(k + CHUNK, cases)): k for k in todo}
        for part in as_completed(parts):
            wrong += part.result()
            fresh += min(CHUNK, cases - parts[part])
            left = (cases - done - fresh) * (time.monotonic() - begin) / fresh
            print(
                f"{done + fresh} of {cases} cases, {wrong} wrong, {left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )


def _quiet() -> None:
    """Ctrl-C ends the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def report(folder: Path, seed: int, target: Path) -> int:
    """Counts and worst errors by law, as CSV and Markdown; how many answers were wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    worst: dict[str, tuple[float, int]] = {}
    bad: list[tuple[str, ...]] = []
    cases: set[str] = set()
    for path in sorted(folder.glob("*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                law = row["law"]
                cases.add(row["case"])
                counts[law, row["outcome"]] += 1
                error = float(row["error"])
                if row["outcome"] == "right" and error >= worst.get(law, (0.0, -1))[0]:
                    worst[law] = error, int(row["case"])
                if row["outcome"] in ("wrong", "refused"):
                    bad.append(tuple(row[name] for name in COLUMNS))
    laws = sorted({law for law, _ in counts})
    with open(target.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["law", *OUTCOMES, "worst error that is right", "its case"])
        for law in laws:
            error, case = worst.get(law, (0.0, -1))
            table.writerow([law, *(counts[law, o] for o in OUTCOMES), f"{error:.2g}", case])
    total = {o: sum(counts[law, o] for law in laws) for o in OUTCOMES}
    lines = [
        f"# {len(cases)} cases of seed {seed}",
        "",
        "Errors in standard deviations of the exact answer; `python -m tests.fuzz --seed "
        f"{seed} --only CASE` says what a case is.",
        "",
        "| law | " + " | ".join(OUTCOMES) + " | worst right | case |",
        "|---" * (len(OUTCOMES) + 3) + "|",
    ]
    for law in laws:
        error, case = worst.get(law, (0.0, -1))
        numbers = " | ".join(str(counts[law, o]) for o in OUTCOMES)
        lines.append(f"| {law.replace(' | ', ', ')} | {numbers} | {error:.1e} | {case} |")
    numbers = " | ".join(str(total[o]) for o in OUTCOMES)
    lines += [f"| all | {numbers} | | |", ""]
    for case, law, outcome, error, note in bad[:200]:
        lines.append(f"- case {case}, {law.replace(' | ', ', ')}: {outcome}, {error}: {note[:200]}")
    target.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return total["wrong"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=Path("fuzz_report"))
    parser.add_argument("--only", type=int, help="one case, and what it is")
    options = parser.parse_args()
    if options.only is not None:
        with np.printoptions(precision=17):
            print(describe(draw_case(Seeded(options.seed, options.only))))
        for verdict in check_case(Seeded(options.seed, options.only)):
            print(*verdict)
        return 0
    folder = options.output / f"seed{options.seed}"
    run(folder, options.seed, options.cases, options.jobs)
    wrong = report(folder, options.seed, options.output / f"seed{options.seed}")
    print((options.output / f"seed{options.seed}.md").read_text(encoding="utf-8"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
