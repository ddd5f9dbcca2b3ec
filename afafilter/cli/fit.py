"""What `afafilter fit` does: read, fit, write the model and its parameters."""

from __future__ import annotations

import ast
import inspect
import shlex
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter.cli.shared import measurements, prepare
from afafilter.io.files import write_table
from afafilter.io.model_toml import near, read_model, write_model
from afafilter.io.sidecar import sidecar_path, write_sidecar
from afafilter.learning import families
from afafilter.learning.parameters.noise_levels import noise_levels

if TYPE_CHECKING:
    from afafilter.learning.family import Family

FAMILIES = tuple(name for name in families.__all__ if name != "Family")


def fit_command(
    data: Path, target: Path, force: bool, *, model: Path | None, family: str | None,
    free: Sequence[str] | None, method: str, starts: int, seed: int, time: str | None,
    values: Sequence[str] | None, by: str | None, errors: Sequence[str] | None, time_unit: str,
) -> Generator[str, None, bool]:  # fmt: skip
    """Behind `afafilter fit`. Returns whether the fit converged."""
    from afafilter.learning.fit import fit

    if target.suffix.lower() != ".toml":
        raise ValueError(f"{target}: the name of the fitted model must end in .toml")
    table = target.with_suffix(".csv")
    prepare(target, force, table, inputs=(data, model))
    if (model is None) == (family is None):
        raise ValueError("give either --model or --family")
    start: Any = read_model(model) if model is not None else parse_family(str(family))
    series, noise = measurements(data, start.obs_dim, time, values, by, errors, time_unit)
    moving: Any = free
    if free is None and model is not None:
        moving = noise_levels(model, start, noise is not None) or free
    found = fit(
        start, series.t, series.z, free=moving, method=method, starts=starts,
        rng=np.random.default_rng(seed), obs_cov=noise,
    )  # fmt: skip
    if moving is not free:
        warnings.warn(
            f"{model} is built from presets: fitted its noise levels only "
            f"({', '.join(moving.names)}); to fit the presets' other parameters use --family, for "
            "whole matrices --free A,Q,R,drift",
            stacklevel=1,
        )
    follow = ""
    if np.isfinite(found.dof):
        given = {"--time": time, "--values": values, "--by": by, "--errors": errors}
        words = ["afafilter", "estimate", str(data), "--model", str(target)]
        words += ["--estimator", "irks", "--weight", "student_t", "--nu", f"{found.dof:.6g}"]
        for key, value in given.items():
            if value is not None:
                words += [key, value if isinstance(value, str) else ",".join(value)]
        if series.time_unit:
            words += ["--time-unit", series.time_unit]
        follow = shlex.join(words)
    comment = ""
    if follow:
        comment = (
            f"R is the scale of Student-t measurement noise with {found.dof:.6g} degrees of freedom"
            f".\nThis file alone describes Gaussian noise; the robust estimate is\n  {follow}"
        )
    write_model(found.model, target, force, comment=comment)  # type: ignore[arg-type]
    write_table(found.to_pandas().reset_index(), table, force)
    config = {
        "command": "fit", "data": data, "start": start if family is None else family,
        "free": free if moving is free else moving.names, "method": method, "starts": starts,
        "seed": seed, "time": time, "values": series.columns, "errors": errors, "by": by,
        "time_unit": series.time_unit or None, "loglik": found.loglik, "aic": found.aic,
        "bic": found.bic, "converged": found.converged, "message": found.message,
        "dof": found.dof if follow else None,
    }  # fmt: skip
    sidecar = write_sidecar(sidecar_path(target), config, force=force)
    yield found.summary()
    if follow:
        yield f"the robust estimate with this noise: {follow}"
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
    from afafilter.learning.family import NO_STATE

    found = _family(tree, text)
    if found.dim == 0:
        raise ValueError(f"--family {text!r}: {NO_STATE}")
    return found


def _family(node: ast.expr, text: str) -> Family:
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
    except (ValueError, TypeError):
        raise ValueError(f"family {name.id!r} takes plain numbers, got {text!r}") from None
    function = getattr(families, name.id)
    takes = inspect.signature(function)
    try:
        takes.bind(*positional, **named)
    except TypeError:
        wanted = ", ".join(p.name + _default(p) for p in takes.parameters.values())
        raise ValueError(
            f"family {name.id!r} takes {f'({wanted})' if wanted else 'no arguments'}, "
            f"got {ast.unparse(node)}"
        ) from None
    try:
        found: Family = function(*positional, **named)
    except (ValueError, TypeError) as error:
        raise ValueError(f"family {name.id!r}: {error}") from None
    return found


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default}"
