"""What several commands do: refuse early, write a table and its record."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os.path import realpath
from pathlib import Path
from typing import Any

from afafilter.cli.reading import Task
from afafilter.io.files import foresee, refuse_existing
from afafilter.io.output import write_table
from afafilter.io.sidecar import plain, sidecar_path, versions, write_record

STDOUT = Path("-")


def prepare(
    target: Path, force: bool, *more: Path | None, inputs: Sequence[Path | None] = ()
) -> None:
    """Refuse, before anything is computed, what could not or must not be written afterwards."""
    outputs = [path for path in more if path is not None]
    if target != STDOUT:
        outputs = [target, sidecar_path(target), *outputs]
    read = {realpath(path) for path in inputs if path is not None and path != STDOUT}
    for path in outputs:
        if realpath(path) in read:
            raise ValueError(f"{path} is read as input and would be overwritten: choose another -o")
    refuse_existing([path for path in outputs if not path.is_dir()], force=force)
    foresee(outputs)
    if len({realpath(path) for path in outputs}) < len(outputs):
        raise ValueError(
            f"two results would be written to one file: {', '.join(map(str, outputs))}"
        )


def finish(table: Mapping[str, Any], task: Task, config: Mapping[str, Any]) -> str:
    """Write a result and the record of how it came about; the line that says so."""
    target, force = task.target, task.force
    record = {"config": plain(config), "versions": versions()}
    write_table(table, target, force, metadata=record, suffix=task.form)
    rows = len(next(iter(table.values())))
    if target == STDOUT:
        return f"wrote {rows} rows"
    sidecar = write_record(target, config, force)
    return f"wrote {target} ({rows} rows) and {sidecar}"


@contextmanager
def importing(allowed: bool) -> Iterator[None]:
    """With the current directory on the path, where the user's own code may be imported."""
    if not allowed:
        yield
        return
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    except (ValueError, TypeError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"--allow-import: the imported code fails: {type(error).__name__}: {error}"
        ) from error
