"""What `afafilter fit` does: read, fit, write the model and its parameters."""

from __future__ import annotations

import ast
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._commands import measurements, prepare
from afafilter._model_toml import near
from afafilter.io import read_model, sidecar_path, write_model, write_sidecar, write_table

if TYPE_CHECKING:
    from afafilter.families import Family

FAMILIES = (
    "brownian", "constant", "constant_velocity", "cycle", "isotropic", "local_linear_trend",
    "matern", "noise", "ornstein_uhlenbeck", "oscillator", "seasonal", "spiral",
)  # fmt: skip


def fit_command(
    data: Path, target: Path, force: bool, *, model: Path | None, family: str | None,
    free: Sequence[str] | None, method: str, starts: int, seed: int, time: str | None,
    values: Sequence[str] | None, by: str | None, errors: Sequence[str] | None, time_unit: str,
) -> Generator[str, None, bool]:  # fmt: skip
    """Behind `afafilter fit`. Returns whether the fit converged."""
    from afafilter.fit import fit

    if target.suffix.lower() != ".toml":
        raise ValueError(f"{target}: the name of the fitted model must end in .toml")
    table = target.with_suffix(".csv")
    prepare(target, force, table, inputs=(data, model))
    if (model is None) == (family is None):
        raise ValueError("give either --model or --family")
    start: Any = read_model(model) if model is not None else parse_family(str(family))
    series, noise = measurements(data, start.obs_dim, time, values, by, errors, time_unit)
    found = fit(
        start, series.t, series.z, free=free, method=method, starts=starts,
        rng=np.random.default_rng(seed), obs_cov=noise,
    )  # fmt: skip
    write_model(found.model, target, force)  # type: ignore[arg-type]
    write_table(found.to_pandas().reset_index(), table, force)
    config = {
        "command": "fit", "data": data, "start": start if family is None else family,
        "free": free, "method": method, "starts": starts, "seed": seed, "time": time,
        "values": series.columns, "errors": errors, "by": by,
        "time_unit": series.time_unit or None, "loglik": found.loglik, "aic": found.aic,
        "bic": found.bic, "converged": found.converged, "message": found.message,
    }  # fmt: skip
    sidecar = write_sidecar(sidecar_path(target), config, force=force)
    yield found.summary()
    yield f"wrote {target}, {table} and {sidecar}"
    return found.converged


def parse_family(text: str) -> Family:
    """A sum of families such as "local_linear_trend + seasonal(1, harmonics=2) + noise".

    Raises
    ------
    ValueError
        Anything but names of `afafilter.families` with plain arguments, joined by +.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"--family must be names joined by +, got {text!r}") from None
    return _family(tree, text)


def _family(node: ast.expr, text: str) -> Family:
    from afafilter import families

    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _family(node.left, text) + _family(node.right, text)
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not isinstance(name, ast.Name):
        raise ValueError(f"--family must be names joined by +, got {text!r}")
    if name.id not in FAMILIES:
        raise ValueError(
            f"unknown family {name.id!r}{near(name.id, FAMILIES)}; known are {', '.join(FAMILIES)}"
        )
    try:
        positional = [ast.literal_eval(a) for a in call.args] if call else []
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords} if call else {}
        found: Family = getattr(families, name.id)(*positional, **named)
    except (ValueError, TypeError) as error:
        raise ValueError(f"family {name.id!r}: {error}") from None
    return found
