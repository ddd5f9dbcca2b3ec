"""The experiments of a checkout: found, listed and run, each on its own."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from afafilter.cli.draw import Look
from afafilter.io.files import refuse_existing
from afafilter.io.model_toml import near
from afafilter.studies.batch import end_with, workers

FOLDER = "simulations"


class Experiment(NamedTuple):
    """A file of simulations/: its stem and the first line of its docstring."""

    name: str
    path: Path
    summary: str


def find_experiments(names: Sequence[str] = ()) -> list[Experiment]:
    """Experiments by name, or all, of the current directory or else of the package's checkout."""
    roots = (Path.cwd(), Path(__file__).resolve().parents[2])
    folder = next((root / FOLDER for root in roots if (root / FOLDER).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(
            f"no directory {FOLDER}/ here: the experiments come with the repository, not with the "
            "installed package; git clone the repository and run this inside the clone"
        )
    found = {p.stem: p for p in sorted(folder.glob("*.py")) if not p.stem.startswith("_")}
    if not found:
        raise FileNotFoundError(f"no experiments in {folder}")
    for name in names:
        if name not in found:
            raise ValueError(
                f"unknown experiment {name!r}{near(name, found)}; known are {', '.join(found)}"
            )
    chosen = dict.fromkeys(names or found)
    return [Experiment(name, found[name], _summary(found[name])) for name in chosen]


def run_experiments(
    experiments: Sequence[Experiment],
    *,
    output: Path,
    force: bool = False,
    full: bool = False,
    jobs: int = 1,
    look: Look,
) -> Generator[str, None, list[str]]:
    """Run experiments, several at once, each writing into `output`; lines to report, who failed.

    Files are written whole at the end of an experiment, except for the finished cells of studies,
    in output/run: an interrupted study resumes from them.
    """
    from joblib import delayed
    from tqdm import tqdm

    look.on().close()  # refused here, not in the workers
    for experiment in experiments:
        refuse_existing(sorted(output.glob(f"{experiment.name}.*")), force=force)
    output.mkdir(parents=True, exist_ok=True)
    at_once = max(1, min(jobs, len(experiments)))
    each = max(1, jobs // at_once)
    tasks = (delayed(_run)(e, output, look, full=full, jobs=each) for e in experiments)
    failed: list[str] = []
    bar = tqdm(total=len(experiments), disable=None, unit="experiment", leave=False)
    with bar, workers(at_once, tasks, _alone) as found:
        for name, line, trace in found:
            if trace:
                failed.append(name)
                print(trace, end="", file=sys.stderr)
            yield line
            bar.update()
    if failed:
        yield f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}"
    return failed


def _run(
    experiment: Experiment, output: Path, look: Look, *, full: bool, jobs: int
) -> tuple[str, str, str]:
    """The experiment's name, what to report of it, and the traceback where it failed."""
    root = str(experiment.path.parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    name, start = experiment.name, time.perf_counter()
    try:
        module = importlib.import_module(f"{FOLDER}.{name}")
        with look.on():
            written: list[Path] = module.main(output, full=full, n_jobs=jobs)
        if not written:
            raise RuntimeError("the experiment wrote nothing")
    except Exception as error:
        line = f"{name}: FAILED ({type(error).__name__}: {error})"
        return name, line, traceback.format_exc()
    seconds = time.perf_counter() - start
    return name, f"{name} ({seconds:.1f} s): {', '.join(map(str, written))}", ""


def _alone(parent: int) -> None:
    """In a worker: end with the process `parent`; one progress bar, the parent's."""
    end_with(parent)
    os.environ["AFAFILTER_PROGRESS"] = "0"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.partition("\n")[0]
    return first.removeprefix(f"{path.stem}:").strip()
