"""Heads of attention: from checked arguments to sweeps over tiles, and back to results.

`attend` is the prepared core: estimators enter here with arguments that they know to be right,
`functions` after checking them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.attention import pairs, sums
from afafilter.attention.inputs import NOISES, Inputs, Numbers, has_channels
from afafilter.attention.law import Law, log_prior
from afafilter.attention.recursions import Floats, rotated
from afafilter.attention.sums import Head, Model
from afafilter.attention.threads import Task, run
from afafilter.models.structured_noise import StructuredNoise

BATCH_WORK = 10_000_000_000
"""Multiplications to prepare before doing them: bounds the memory of many heads."""
STACKED_COLUMNS = 512
"""Value columns of paths with equal weights that one sweep takes."""


class AttentionResult(NamedTuple):
    """What attention returns.

    Attributes
    ----------
    output : ndarray, shape (..., Nq, m)
        Complex when v is. NaN where a query has no key of positive weight.
    weights : ndarray, shape (..., Nq, N), optional
        Normalised weights A_ij, rows summing to one, or None. The coefficient on
        the pulled value E_ij e^{Omega tau} v_j, without that factor. 0 at missing keys.
    precision : ndarray, shape (..., Nq)
        sum_j w_ij P_ij, per real component. With inverse_temperature = 1 its
        inverse is the claimed error variance; otherwise the plain sum of the tempered weights.
    """

    output: NDArray[Any]
    weights: NDArray[Any] | None
    precision: NDArray[Any]


class Request(NamedTuple):
    """Everything that attention needs to know, checked.

    parameters : those of `sums.Model`, one or one per leading index; omega, omega_value (..., n).
        With modes `apart` all but beta have a last axis of modes.
    lead : leading axes of the result.
    prior : "dle", or another of `law.PRIORS`; then, and where their noises differ from those of
        queries and keys, value_process_var, value_key_var, value_query_var are parameters too.
    structure : the course of process noise over the lag, for "structured".
    apart : whether every pair of channels is a mode with its own precision (tensor attention).
    kept : where requests that differ in q alone keep the head that they share.
    """

    inputs: Inputs
    lead: tuple[int, ...]
    parameters: Mapping[str, Array]
    law: Law
    backward: str | None
    window: int | None = None
    tolerance: float = 0.0
    return_weights: bool = False
    threads: int = 1
    prior: str = "dle"
    structure: StructuredNoise | None = None
    apart: bool = False
    kept: dict[tuple[int, ...], Head] | None = None


def attend(request: Request) -> AttentionResult:
    """Attention of all heads."""
    inputs, lead, m = request.inputs, request.lead, request.inputs.v.shape[-1]
    n, dtype, modes = len(inputs.t_query), inputs.v.dtype, ((m + 1) // 2,) * request.apart
    result = AttentionResult(
        np.empty((*lead, n, m), dtype),
        np.zeros((*lead, *modes, n, len(inputs.t)), dtype) if request.return_weights else None,
        np.empty((*lead, n, *modes), dtype),
    )
    batch: list[Task] = []
    pending = 0
    stacks = prod(lead) > 1 and _shares_weights(request)
    for head in _stacked(request, result) if stacks else _single(request, result):
        for task in sums.tasks(head) if head.is_summable else pairs.tasks(head):
            batch.append(task)
            pending += task.work
        if pending > BATCH_WORK:
            run(batch, request.threads)
            batch, pending = [], 0
    run(batch, request.threads)
    return result


# ----------------------------------------------------------------------- one head per leading index


def _at(request: Request, index: tuple[int, ...], name: str) -> Any:
    """A parameter of one head."""
    value = request.parameters[name]
    if value.ndim == 0:
        return float(value)
    if not has_channels(name, request.apart):
        return float(np.broadcast_to(value, request.lead)[index])
    return (
        value
        if value.ndim == 1
        else np.broadcast_to(value, (*request.lead, value.shape[-1]))[index]
    )


def _model(request: Request, index: tuple[int, ...]) -> Model:
    """The parameters of one head; of attention by modes also the precision of their prior."""
    some = Model._fields if request.apart else Model._fields[:-1]
    return Model(*[_at(request, index, name) for name in some])


def _rows(request: Request, x: Numbers, index: tuple[int, ...]) -> Numbers:
    """Data of one head."""
    own = x.shape[:-2]
    if own != request.lead:
        part = index[len(index) - len(own) :]
        index = tuple(i if n > 1 else 0 for i, n in zip(part, own))
    return np.asarray(x[index])


def _single(request: Request, result: AttentionResult, some: slice | None = None) -> Iterator[Head]:
    """One head per leading index, by rows."""
    inputs, kept, apart = request.inputs, request.kept or {}, request.apart
    for index in list(product(*map(range, request.lead)))[some or slice(None)]:
        q = np.empty((len(inputs.t_query), 0), inputs.v.dtype)
        if request.law.kind != "plain":
            assert inputs.q is not None
            q = _rows(request, inputs.q, index)
            q = q if inputs.q_complete else np.nan_to_num(q)
        precision = result.precision[index]
        weights = None if result.weights is None else result.weights[index]
        if not apart:
            precision, weights = precision[:, None], None if weights is None else weights[None]
        asked = q, result.output[index][:, None], precision, weights
        if index in kept:
            head = kept[index]._replace(**dict(zip(("q", "out", "precision", "weights"), asked)))
        else:
            head = _head(request, index, asked)
        if request.kept is not None:
            request.kept[index] = head
        yield head


def _head(
    request: Request, index: tuple[int, ...], asked: tuple[Floats, Floats, Floats, Floats | None]
) -> Head:
    """Keys, values and parameters of one head: complete keys alone, rotated."""
    inputs, at = request.inputs, partial(_at, request, index)
    t, seen, columns = inputs.t, inputs.n_visible, None
    if inputs.known is not None:
        known = np.broadcast_to(inputs.known, (*request.lead, len(t)))[index]
        if not known.all():
            columns = np.flatnonzero(known)
            t, seen = t[columns], np.concatenate([[0], np.cumsum(known)])[seen]
    pick: Any = slice(None) if columns is None else columns
    omega, omega_value = at("omega"), at("omega_value")
    v = rotated(_rows(request, inputs.v, index)[pick], t, omega_value, -1.0)
    nothing = k = v[:, :0]
    if request.law.kind != "plain":
        assert inputs.k is not None
        same = inputs.k is inputs.v and np.array_equal(omega, omega_value)
        k = v if same else rotated(_rows(request, inputs.k, index)[pick], t, omega, -1.0)
    prior = None
    if request.prior != "dle" or "value_key_var" in request.parameters:
        noise = (at(f"value_{name}") for name in ("decay", *NOISES))
        prior = log_prior(request.prior, request.structure, *noise)
    data = inputs.t_query, t, seen, k, v, nothing, omega, omega_value
    rules = _model(request, index), request.law, prior
    limits = request.backward, request.window, request.tolerance, request.apart, columns
    return Head(*data, *rules, *limits, *asked).ready()  # type: ignore[arg-type]


# -------------------------------------------------------------------- paths that have equal weights


def _shares_weights(request: Request) -> bool:
    """Whether all paths have the same weights, up to missing keys."""
    p, usual = request.parameters, request.prior == "dle" and not request.apart
    plain = request.law.kind == "plain" and usual and "value_key_var" not in p
    whole = request.window is None and request.tolerance == 0 and not request.return_weights
    shared = all(x.ndim == has_channels(name, False) for name, x in p.items())
    return plain and whole and shared


def _stacked(request: Request, result: AttentionResult) -> Iterator[Head]:
    """Groups of paths as columns of one head: their weights are computed once."""
    inputs, lead = request.inputs, request.lead
    n, m = inputs.v.shape[-2:]
    size, paths, queries = max(1, STACKED_COLUMNS // m), prod(lead), len(inputs.t_query)
    flat = np.broadcast_to(inputs.v, (*lead, n, m)).reshape(paths, n, m)
    out = result.output.reshape(paths, queries, m)
    precision = result.precision.reshape(paths, queries)
    omega, known = request.parameters["omega_value"], None
    if inputs.known is not None:
        known = np.broadcast_to(inputs.known, (*lead, n)).reshape(paths, n)
    rules = omega, omega, _model(request, ()), request.law, None
    limits = request.backward, None, 0.0, False, None
    for start in range(0, paths, size):
        group = slice(start, start + size)
        v = flat[group] if known is None else np.where(known[group][..., None], flat[group], 0)
        v = rotated(v, inputs.t, omega, -1.0).transpose(1, 0, 2)
        v = np.ascontiguousarray(v).reshape(n, -1)
        served = v[:, :0] if known is None else np.ascontiguousarray(known[group].T, dtype=v.dtype)
        q = np.empty((queries, 0), v.dtype)
        data = inputs.t_query, inputs.t, inputs.n_visible, v[:, :0], v, served
        into = out[group].transpose(1, 0, 2), precision[group].T
        head = Head(*data, *rules, *limits, q, *into).ready()
        if head.is_summable and (known is None or head.even_scale):
            yield head
        else:
            yield from _single(request, result, group)
