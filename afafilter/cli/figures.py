"""The experiments of a checkout: found, listed and run, each on its own."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from afafilter.io.files import refuse_existing
from afafilter.io.model_toml import near

FOLDER = "simulations"


@dataclass(frozen=True)
class Experiment:
    """A file of simulations/: its stem and the first line of its docstring."""

    path: Path
    summary: str

    @property
    def name(self) -> str:
        return self.path.stem


def find_experiments(names: Sequence[str] = ()) -> list[Experiment]:
    """Experiments by name, or all, in alphabetical order.

    The checkout is the current directory, or else the one that the package lies in.

    Raises
    ------
    FileNotFoundError
        If there is no checkout.
    ValueError
        Unknown names.
    """
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
    return [Experiment(found[name], _summary(found[name])) for name in chosen]


def run_experiments(
    experiments: Sequence[Experiment],
    *,
    output: Path,
    force: bool = False,
    full: bool = False,
    jobs: int = 1,
) -> Generator[str, None, list[str]]:
    """Run experiments, each writing into `output`; yields lines to report.

    Files are written whole at the end of an experiment, except for the finished cells of studies:
    those stay in output/run, and an interrupted study resumes from them. Returns the names of the
    experiments that failed.

    Raises
    ------
    FileExistsError
        If results of one of them exist and `force` is False: before anything runs.
    """
    from tqdm import tqdm

    os.environ.setdefault("MPLBACKEND", "Agg")
    for experiment in experiments:
        refuse_existing(sorted(output.glob(f"{experiment.name}.*")), force=force)
    output.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    bar = tqdm(experiments, disable=None, unit="experiment", leave=False)
    for experiment in bar:
        bar.set_postfix_str(experiment.name)
        start = time.perf_counter()
        try:
            written = _run(experiment, output, full=full, jobs=jobs)
        except Exception as error:
            failed[experiment.name] = f"{type(error).__name__}: {error}"
            yield f"{experiment.name}: FAILED ({failed[experiment.name]})"
            traceback.print_exc(file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        yield f"{experiment.name} ({seconds:.1f} s): {', '.join(map(str, written))}"
    if failed:
        yield f"{len(failed)} of {len(experiments)} experiments failed: {', '.join(failed)}"
    return list(failed)


def _run(experiment: Experiment, output: Path, *, full: bool, jobs: int) -> list[Path]:
    root = str(experiment.path.parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    module = importlib.import_module(f"{FOLDER}.{experiment.name}")
    written: list[Path] = module.main(output, full=full, n_jobs=jobs)
    if not written:
        raise RuntimeError("the experiment wrote nothing")
    return written


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = docstring.partition("\n")[0]
    return first.removeprefix(f"{path.stem}:").strip()
