"""What `afafilter report` does: read, analyse, write one page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from afafilter._base.progress import waiting
from afafilter.cli.reading import Task, forced, one_path, read
from afafilter.cli.shared import prepare
from afafilter.io.files import write_text
from afafilter.io.model_toml import read_model
from afafilter.io.sidecar import write_record


def report_command(task: Task) -> Iterator[str]:
    """Behind `afafilter report`."""
    from afafilter.report import analyse, report_page, require_plotly

    reading, target, force = task.reading, task.target, task.force
    model, family, path, title = (
        task.options[name] for name in ("model", "family", "path", "title")
    )
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{target}: the name of a report must end in .html")
    require_plotly()
    prepare(target, force, inputs=(reading.data, model))
    if model is not None and family is not None:
        raise ValueError("give either --model or --family, or neither")
    system: Any = None if model is None else read_model(model)
    series = one_path(read(reading, system), path, "a report is about")
    if system is not None:
        system = forced(system, series)
    with waiting("fitting, smoothing, comparing"):
        found = analyse(replace(series, paths=()), system, family)
    page = report_page(found, title or f"{series.name}: report")
    write_text(target, page, force=force)
    config = {
        "command": "report",
        **reading.config(),
        "model": found.model,
        "family": family,
        "values": series.columns,
        "time_unit": series.time_unit or None,
    }
    sidecar = write_record(target, config, force)
    yield f"wrote {target} and {sidecar}"
