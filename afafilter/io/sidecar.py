"""The record beside a result: the configuration that made it, and versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afafilter._version import __version__
from afafilter.io.files import TwiceError, atomic_path, parse_json, read_file
from afafilter.io.model_toml import model_table
from afafilter.models.sde import LinearSDE


def sidecar_path(path: str | Path) -> Path:
    """Where the configuration of a result is kept: out.csv -> out.config.json.

    Where that is the record of another result that is there, say out.parquet, it is
    out.csv.config.json.
    """
    path = Path(path)
    usual = path.with_suffix(".config.json")
    owner = path.parent / Path(str(read_sidecar(usual).get("result") or path.name)).name
    shared = owner.name != path.name and owner.stem == path.stem and owner.exists()
    return path.with_name(f"{path.name}.config.json") if shared else usual


def read_sidecar(path: Path) -> dict[str, Any]:
    """What a sidecar says; nothing where there is none, or a file of something else.

    Raises
    ------
    ValueError
        It says one key twice.
    """
    try:
        content = parse_json(read_file(path).decode())
    except TwiceError as error:
        raise ValueError(f"{path}: {error}") from None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_sidecar(
    path: str | Path,
    config: Mapping[str, Any],
    *,
    force: bool = True,
    result: str | Path | None = None,
) -> Path:
    """Write a configuration with the versions that ran it as JSON. Returns the path.

    Arrays become lists, models the table that `read_model` understands, numbers that are not
    finite the words "nan", "inf", "-inf". result : the file beside it that this is the record of.
    """
    path = Path(path)
    content = {"config": plain(config), "versions": versions()}
    if result is not None:
        content = {"result": Path(result).name, **content}
    with atomic_path(path, force=force) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
    return path


def write_record(target: Path, config: Mapping[str, Any], force: bool) -> Path:
    """The sidecar of a result, written beside it. Returns its path."""
    return write_sidecar(sidecar_path(target), config, force=force, result=target)


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that numbers depend on."""
    import platform
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("numpy", "scipy", "pandas")}
    return {"afafilter": __version__, "python": platform.python_version(), **libraries}


def plain(value: Any) -> Any:
    """`value` in terms of dict, list, str, int, float, bool and None."""
    rules: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (type(None), lambda v: v),
        ((bool, np.bool_), bool),
        (str, str),
        ((int, np.integer), int),
        ((float, np.floating), lambda v: float(v) if math.isfinite(v) else str(float(v))),
        (np.ndarray, lambda v: plain(v.tolist())),
        (Mapping, lambda v: {str(key): plain(item) for key, item in v.items()}),
        ((list, tuple, set, frozenset), lambda v: [plain(item) for item in v]),
        (LinearSDE, lambda v: plain(model_table(v))),
    )
    for kinds, rule in rules:
        if isinstance(value, kinds):
            return rule(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **named}
    return getattr(value, "__name__", None) or str(value)
