"""What `afafilter compare` does: run a study, write its scores."""

from __future__ import annotations

import tomllib
from collections.abc import Generator
from pathlib import Path

from afafilter.cli.shared import importing
from afafilter.io.files import refuse_existing
from afafilter.io.output import write_table
from afafilter.io.sidecar import write_sidecar


def compare_command(
    study: Path,
    output: Path,
    force: bool,
    *,
    jobs: int,
    retry_failed: bool,
    reference: str | None,
    allow_import: bool,
) -> Generator[str, None, bool]:
    """Behind `afafilter compare`. Returns whether an estimator failed somewhere."""
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
    refuse_existing([*targets, optional, output / "study.config.json"], force=force)
    result = plan.run(output / "cells", n_jobs=jobs, retry_failed=retry_failed)
    frames = [result.frame, result.times, result.pooled("rmse")]
    if reference is not None:
        frames.append(result.differences(reference))
    else:
        optional.unlink(missing_ok=True)
    for frame, target in zip(frames, targets, strict=True):
        write_table(frame, target, force)
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
    yield f"wrote {', '.join(map(str, [*targets, sidecar]))}"
    return len(result.errors) > 0
