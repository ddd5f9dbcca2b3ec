"""What `afafilter compare` does: run a study, write its scores."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

from afafilter.cli.draw import Look
from afafilter.cli.reading import Task
from afafilter.cli.shared import importing
from afafilter.io.files import refuse_existing, write_text
from afafilter.io.output import write_table
from afafilter.io.sidecar import write_sidecar

if TYPE_CHECKING:
    from afafilter.studies.study import Study


def _study(task: Task) -> Study:
    from afafilter.studies.study import Study

    allowed = task.options["allow_import"]
    with importing(allowed):
        return Study.from_toml(task.reading.data, allow_import=allowed)


def compare_command(task: Task) -> Generator[str, None, bool]:
    """Behind `afafilter compare`. Returns whether an estimator failed somewhere."""
    from afafilter.studies.printed import study_table

    output, force, options = task.target, task.force, task.options
    look, reference, latex = Look.of(options), options["reference"], options["latex"]
    figure = look if options["figure"] else None
    plan = _study(task)
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
    result = plan.run(
        output / "cells", n_jobs=options["jobs"], retry_failed=options["retry_failed"]
    )
    frames = [result.frame, result.times, result.pooled("rmse")]
    if reference is not None:
        frames.append(result.differences(reference))
    for frame, target in zip(frames, targets, strict=True):
        write_table(frame, target, force)
    if reference is None and optional.exists():
        optional.unlink()
    if figure:
        with figure.on():
            import afafilter.plotting as plotting

            plotting.write_figure(plotting.study(result)[0].figure, output / "rmse")
    if latex:
        caption = "RMSE with standard errors; the best of each column in bold."
        table = study_table(result, "rmse", caption=caption, label="tab:rmse")
        write_text(output / "rmse.tex", "% needs \\usepackage{booktabs}\n" + table)
    config = {
        "command": "compare",
        "study": tomllib.loads(task.reading.data.read_text(encoding="utf-8")),
        "seeds": plan.seeds,
        "jobs": options["jobs"],
        "reference": reference,
    }
    sidecar = write_sidecar(output / "study.config.json", config, force=force)
    yield result.table("rmse").to_string(float_format=lambda x: f"{x:.4g}")
    columns = ["estimator", "model", "scenario", "error"]
    alike = Counter(result.errors[columns].itertuples(index=False, name=None))
    for (name, model, scenario, error), seeds in alike.items():
        yield f"FAILED: {name} in {model}, {scenario} (seeds: {seeds}): {error}"
    yield f"wrote {', '.join(map(str, [*targets, *more, sidecar]))}"
    return len(result.errors) > 0


def plan_command(task: Task) -> Generator[str, None, None]:
    """Behind `afafilter compare --plan`."""
    from importlib.util import find_spec

    from afafilter.studies.plan import WORKERS

    output, force, jobs = task.target, task.force, task.options["jobs"]
    whole = _study(task)
    targets = [output / "plan.csv", output / "plan.html"]
    refuse_existing(targets, force=force)
    plan = whole.plan(output / "cells")
    write_table(plan.table(workers=sorted({*WORKERS, jobs})), targets[0], force)
    yield str(plan)
    if find_spec("plotly") is None:
        yield f"wrote {targets[0]}; a page beside it needs plotly: pip install 'afafilter[report]'"
        return
    plan.to_html(targets[1], title=f"Plan of {task.reading.data.name}", force=force)
    yield f"wrote {', '.join(map(str, targets))}"
