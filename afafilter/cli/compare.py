"""What `afafilter compare` does: run a study, write its scores."""

from __future__ import annotations

import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from afafilter.cli.draw import Look
from afafilter.cli.shared import importing
from afafilter.io.files import atomic_path, refuse_existing
from afafilter.io.output import write_table
from afafilter.io.sidecar import write_sidecar

if TYPE_CHECKING:
    from afafilter.studies.result import StudyResult


def compare_command(
    study: Path,
    output: Path,
    force: bool,
    *,
    jobs: int,
    retry_failed: bool,
    reference: str | None,
    allow_import: bool,
    figure: Look | None = None,
    latex: bool = False,
) -> Generator[str, None, bool]:
    """Behind `afafilter compare`. Returns whether an estimator failed somewhere."""
    from afafilter.studies.printed import study_table
    from afafilter.studies.study import Study

    with importing(allow_import):
        plan = Study.from_toml(study, allow_import=allow_import)
    names, optional = ["scores.csv", "times.csv", "rmse.csv"], output / "differences.csv"
    if reference is not None:
        if reference not in plan.estimators:
            known = ", ".join(plan.estimators)
            raise ValueError(f"--reference must be one of {known}, got {reference!r}")
        names.append(optional.name)
    targets = [output / name for name in names]
    more = [output / f"rmse.{form}" for form in figure.formats] if figure else []
    more += [output / "rmse.tex"] if latex else []
    if figure:
        figure.on().close()
    refuse_existing([*targets, *more, optional, output / "study.config.json"], force=force)
    result = plan.run(output / "cells", n_jobs=jobs, retry_failed=retry_failed)
    frames = [result.frame, result.times, result.pooled("rmse")]
    if reference is not None:
        frames.append(result.differences(reference))
    else:
        optional.unlink(missing_ok=True)
    for frame, target in zip(frames, targets, strict=True):
        write_table(frame, target, force)
    if figure:
        with figure.on():
            _draw(result, output / "rmse")
    if latex:
        with atomic_path(output / "rmse.tex") as temporary:
            text = "% needs \\usepackage{booktabs}\n" + study_table(
                result,
                "rmse",
                caption="RMSE with standard errors; the best of each column in bold.",
                label="tab:rmse",
            )
            temporary.write_text(text, encoding="utf-8")
    config = {
        "command": "compare",
        "study": tomllib.loads(study.read_text(encoding="utf-8")),
        "seeds": plan.seeds,
        "jobs": jobs,
        "reference": reference,
    }
    sidecar = write_sidecar(output / "study.config.json", config, force=force)
    yield result.table("rmse").to_string(float_format=lambda x: f"{x:.4g}")
    for _, row in result.errors.iterrows():
        yield f"FAILED: {row['estimator']} in {row['model']}, {row['scenario']}: {row['error']}"
    yield f"wrote {', '.join(map(str, [*targets, *more, sidecar]))}"
    return len(result.errors) > 0


def plan_command(
    study: Path, output: Path, force: bool, *, jobs: int, allow_import: bool
) -> Generator[str, None, None]:
    """Behind `afafilter compare --plan`."""
    from importlib.util import find_spec

    from afafilter.studies.plan import WORKERS
    from afafilter.studies.study import Study

    with importing(allow_import):
        whole = Study.from_toml(study, allow_import=allow_import)
    targets = [output / "plan.csv", output / "plan.html"]
    refuse_existing(targets, force=force)
    plan = whole.plan(output / "cells")
    write_table(plan.table(workers=sorted({*WORKERS, jobs})), targets[0], force)
    yield str(plan)
    if find_spec("plotly") is None:
        yield f"wrote {targets[0]}; a page beside it needs plotly: pip install 'afafilter[report]'"
        return
    plan.to_html(targets[1], title=f"Plan of {study.name}", force=force)
    yield f"wrote {', '.join(map(str, targets))}"


def _draw(result: StudyResult, stem: Path) -> None:
    import afafilter.plotting as plotting

    plotting.write_figure(plotting.study(result)[0].figure, stem)
