"""Heads of attention: from checked arguments to sweeps over tiles, and back to results.

`isotropic` and `tensor` are the prepared core: estimators enter here with arguments that they know
to be right, `functions` after checking them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from math import log, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.attention.inputs import Inputs, Numbers
from afafilter.attention.law import Law, Noise, log_prior
from afafilter.attention.pairs import ModeHead
from afafilter.attention.recursions import Floats, Index, rotated
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

    parameters : decay, process_var, key_var, query_var (and for isotropic attention value_decay)
        one or one per leading index, for tensor attention with a last axis of modes, which also
        has prior_precision; beta one or one per leading index; omega, omega_value (..., n).
    lead : leading axes of the result.
    prior : "dle", or another of `law.PRIORS`; then, and where their noises differ from those of
        queries and keys, value_process_var, value_key_var, value_query_var are parameters too.
    structure : the course of process noise over the lag, for "structured".
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
    kept: dict[tuple[int, ...], Head] | None = None


def isotropic(request: Request) -> AttentionResult:
    """Isotropic attention of all heads."""
    inputs, lead = request.inputs, request.lead
    n, dtype = len(inputs.t_query), inputs.v.dtype
    result = AttentionResult(
        np.empty((*lead, n, inputs.v.shape[-1]), dtype),
        np.zeros((*lead, n, len(inputs.t)), dtype) if request.return_weights else None,
        np.empty((*lead, n), dtype),
    )
    stacks = prod(lead) > 1 and _shares_weights(request)
    heads = _stacked(request, result) if stacks else _single(request, result, _indices(lead))
    summable = (
        head.tasks(request.threads) if head.is_summable else _as_mode(head).tasks()
        for head in heads
    )
    _run(summable, request.threads)
    return result


def tensor(request: Request) -> AttentionResult:
    """Tensor attention of all heads."""
    inputs, lead = request.inputs, request.lead
    n_query, d, dtype = len(inputs.t_query), inputs.v.shape[-1], inputs.v.dtype
    n = (d + 1) // 2
    result = AttentionResult(
        np.empty((*lead, n_query, d), dtype),
        np.zeros((*lead, n, n_query, len(inputs.t)), dtype) if request.return_weights else None,
        np.empty((*lead, n_query, n), dtype),
    )
    heads = (_modal(request, result, index) for index in _indices(lead))
    _run((head.tasks() for head in heads), request.threads)
    return result


def _indices(lead: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """One for each head, by rows; an iterator of NumPy's takes longer to begin."""
    return product(*map(range, lead))


def _run(heads: Iterable[Iterator[Task]], threads: int) -> None:
    """Sweep all heads, preparing no more than a batch ahead."""
    batch: list[Task] = []
    pending = 0
    for tasks in heads:
        for task in tasks:
            batch.append(task)
            pending += task.work
        if pending > BATCH_WORK:
            run(batch, threads)
            batch, pending = [], 0
    run(batch, threads)


# ----------------------------------------------------------------------- one head per leading index


def _at(request: Request, name: str, index: tuple[int, ...], channelled: bool) -> Any:
    """A parameter of one head."""
    value = request.parameters[name]
    if channelled:
        if value.ndim == 1:
            return value
        return np.broadcast_to(value, (*request.lead, value.shape[-1]))[index]
    return float(value if value.ndim == 0 else np.broadcast_to(value, request.lead)[index])


def _rows(request: Request, x: Numbers, index: tuple[int, ...]) -> Numbers:
    """Data of one head."""
    own = x.shape[:-2]
    if own != request.lead:
        part = index[len(index) - len(own) :]
        index = tuple(i if n > 1 else 0 for i, n in zip(part, own))
    return np.asarray(x[index])


def _without_missing(request: Request, index: tuple[int, ...]) -> tuple[Array, Index, Index | None]:
    """Times of one head's complete keys, how many of them queries see, and which keys they are."""
    inputs = request.inputs
    if inputs.known is not None:
        known = np.broadcast_to(inputs.known, (*request.lead, len(inputs.t)))[index]
        if not known.all():
            columns = np.flatnonzero(known)
            seen = np.concatenate([[0], np.cumsum(known)])[inputs.n_visible]
            return inputs.t[columns], seen, columns
    return inputs.t, inputs.n_visible, None


def _single(request: Request, result: AttentionResult, indices: Any) -> Iterator[Head]:
    """One head per leading index."""
    inputs, law, kept = request.inputs, request.law, request.kept
    for index in indices:
        q = None
        if law.kind != "plain":
            assert inputs.q is not None
            q = _rows(request, inputs.q, index)
            if not inputs.q_complete:
                q = np.nan_to_num(q)
        into = result.output[index][:, None, :], result.precision[index][:, None]
        weights = None if result.weights is None else result.weights[index]
        head = None if kept is None else kept.get(index)
        head = _head(request, index, q, *into) if head is None else head
        if kept is not None:
            kept[index] = head
        out, precision = into
        yield head._replace(q=q, out=out, precision=precision, weights=weights)


def _head(
    request: Request, index: tuple[int, ...], q: Floats | None, out: Floats, precision: Floats
) -> Head:
    """Keys, values and parameters of one head: complete keys alone, rotated."""
    inputs = request.inputs
    at = partial(_at, request, index=index)
    t, seen, columns = _without_missing(request, index)
    pick: Any = slice(None) if columns is None else columns
    omega, omega_value = at("omega", channelled=True), at("omega_value", channelled=True)
    v = rotated(_rows(request, inputs.v, index)[pick], t, omega_value, -1.0)
    k = None
    if request.law.kind != "plain":
        assert inputs.k is not None
        if inputs.k is inputs.v and np.array_equal(omega, omega_value):
            k = v
        else:
            k = rotated(_rows(request, inputs.k, index)[pick], t, omega, -1.0)
    model = Model(*(at(name, channelled=False) for name in Model._fields))
    data = inputs.t_query, t, seen, q, k, v, None
    rules = omega, omega_value, model, request.law, _prior(request, index)
    limits = request.backward, request.window, request.tolerance
    return Head(*data, *rules, *limits, out, precision, None, columns).ready()


def _prior(request: Request, index: tuple[int, ...]) -> Any:
    """The prior weight of one head where it is not the precision of its distances."""
    if request.prior == "dle" and "value_key_var" not in request.parameters:
        return None
    names = ("value_decay", "value_process_var", "value_key_var", "value_query_var")
    noise = Noise(*(_at(request, name, index, False) for name in names))
    return log_prior(request.prior, noise, request.structure)


def _as_mode(head: Head) -> ModeHead:
    """A head as one mode of all channels."""
    law, model = head.law, head.model

    def one(x: float) -> Array:
        return np.array([x])

    power, log_weight = law.kind == "power", None
    if power:
        log_weight = partial(_log_power, log(law.peak), law.exponent)
    elif law.weight is not None:
        log_weight = partial(law.weight.log, dim=law.dim)
    q = None if head.q is None else rotated(head.q, head.t_query, head.omega, -1.0)[None]
    k = None if head.k is None else head.k[None]
    data = head.t_query, head.t, head.n_visible, q, k, head.v[None]
    decays = one(model.decay), one(model.value_decay)
    noise = one(model.process_var), one(model.key_var), one(model.query_var), one(0.0), one(1.0)
    scale = law.scale if power else None
    rules: Any = head.omega_out, model.beta, log_weight, scale, head.log_prior
    limits: Any = head.backward, head.window, head.tolerance
    weights = None if head.weights is None else head.weights[None]
    into: Any = head.out[:, 0], head.precision, weights, head.columns
    return ModeHead(*data, *decays, *noise, *rules, *limits, *into)


def _log_power(log_peak: float, exponent: float, log_ratio: Floats) -> Floats:
    """log peak (1 + d2 / scale)^-exponent of log(1 + d2 / scale)."""
    return np.asarray(log_peak - exponent * log_ratio, dtype=log_ratio.dtype)


# -------------------------------------------------------------------- paths that have equal weights


def _shares_weights(request: Request) -> bool:
    """Whether all paths have the same weights, up to missing keys."""
    p, usual = request.parameters, request.prior == "dle"
    plain = request.law.kind == "plain" and usual and "value_key_var" not in p
    whole = request.window is None and request.tolerance == 0 and not request.return_weights
    return plain and whole and sum(x.ndim for x in p.values()) == 2  # those of omega


def _stacked(request: Request, result: AttentionResult) -> Iterator[Head]:
    """Groups of paths as columns of one head: their weights are computed once."""
    inputs, lead = request.inputs, request.lead
    n, m = inputs.v.shape[-2:]
    size, paths = max(1, STACKED_COLUMNS // m), prod(lead)
    par, v = request.parameters, inputs.v
    whole = v if v.shape[:-2] == lead else np.broadcast_to(v, (*lead, n, m))
    flat = whole.reshape(paths, n, m)
    queries = result.precision.shape[-1]
    out = result.output.reshape(paths, queries, m)
    precision = result.precision.reshape(paths, queries)
    known = None
    if inputs.known is not None:
        known = np.broadcast_to(inputs.known, (*lead, n)).reshape(paths, n)
    model = Model(*(float(par[name]) for name in Model._fields))
    for start in range(0, paths, size):
        group = slice(start, min(start + size, paths))
        v = flat[group]
        mask = None if known is None else known[group]
        if mask is not None:
            v = np.where(mask[..., None], v, 0)
        v = rotated(v, inputs.t, par["omega_value"], -1.0)
        columns = np.ascontiguousarray(v.transpose(1, 0, 2)).reshape(n, -1)
        served = None if mask is None else np.ascontiguousarray(mask.T, dtype=v.dtype)
        data = inputs.t_query, inputs.t, inputs.n_visible, None, None, columns, served
        rules = par["omega_value"], par["omega_value"], model, request.law, None
        limits = request.backward, None, 0.0
        into = out[group].transpose(1, 0, 2), precision[group].T
        head = Head(*data, *rules, *limits, *into).ready()
        if head.is_summable and (mask is None or head.even_scale):
            yield head
        else:
            yield from _single(request, result, list(_indices(lead))[group])


# --------------------------------------------------------------------------------- every mode apart


def _modal(request: Request, result: AttentionResult, index: tuple[int, ...]) -> ModeHead:
    """Data and parameters of one head of tensor attention, without its missing keys."""
    inputs, law = request.inputs, request.law
    t, seen, columns = _without_missing(request, index)
    pick: Any = slice(None) if columns is None else columns
    at = partial(_at, request, index=index, channelled=True)
    omega, d = at("omega"), inputs.v.shape[-1]

    def modes(x: Numbers, times: Array) -> Floats:
        """(N, d) real channels as (n, N, 2), an odd last one padded by zeros."""
        x = rotated(x, times, omega, -1.0)
        if d % 2:
            x = np.concatenate([x, np.zeros((len(x), 1), x.dtype)], axis=1)
        return np.ascontiguousarray(x.reshape(len(x), (d + 1) // 2, 2).swapaxes(0, 1))

    v = modes(_rows(request, inputs.v, index)[pick], t)
    q = k = log_weight = None
    if law.weight is not None:
        assert inputs.k is not None
        assert inputs.q is not None
        k = v if inputs.k is inputs.v else modes(_rows(request, inputs.k, index)[pick], t)
        q = modes(np.nan_to_num(_rows(request, inputs.q, index)), inputs.t_query)
        log_weight = partial(law.weight.log, dim=law.dim)
    share = np.full((d + 1) // 2, 2.0 / d)
    share[-1] = (2 - d % 2) / d
    decay, beta = at("decay"), _at(request, "beta", index, False)
    data = inputs.t_query, t, seen, q, k, v
    own = at("process_var"), at("key_var"), at("query_var"), at("prior_precision")
    noise = decay, decay, *own, share
    limits: Any = request.backward, request.window, 0.0
    weights = None if result.weights is None else result.weights[index]
    into: Any = result.output[index], result.precision[index], weights, columns
    rules: Any = omega, beta, log_weight, None, None
    return ModeHead(*data, *noise, *rules, *limits, *into)
