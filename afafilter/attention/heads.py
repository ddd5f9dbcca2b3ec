"""Heads of attention: from checked arguments to sweeps over tiles, and back to results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, positive_int, scalar
from afafilter._base.threads import available_threads
from afafilter.attention import tiles
from afafilter.attention.blocks import sweep
from afafilter.attention.inputs import Inputs, Numbers, Projections, times_matrix
from afafilter.attention.law import Law
from afafilter.attention.threads import run
from afafilter.linalg.rotation import to_rotating_frame

BATCH_PAIRS = 100_000_000
"""Pairs of query and key to prepare before computing them: bounds the memory of many heads."""
STACKED_COLUMNS = 512
"""Value columns of paths with equal weights that one sweep takes."""


class AttentionResult(NamedTuple):
    """What attention returns.

    Attributes
    ----------
    output : (..., Nq, m), complex when v is. NaN where a query has no key of positive weight.
    weights : (..., Nq, N) normalised weights A_ij, rows summing to one, or None. The coefficient on
        the pulled value E_ij e^{Omega tau} v_j, without that factor. 0 at missing keys.
    precision : (..., Nq) sum_j w_ij P_ij, per real component. With inverse_temperature = 1 its
        inverse is the claimed error variance; otherwise the plain sum of the tempered weights.
    """

    output: NDArray[Any]
    weights: NDArray[Any] | None
    precision: NDArray[Any]


def empty_result(inputs: Inputs, lead: tuple[int, ...], weights: bool) -> AttentionResult:
    """Arrays that the sweeps fill."""
    n, dtype = len(inputs.t_query), inputs.v.dtype
    return AttentionResult(
        np.empty((*lead, n, inputs.v.shape[-1]), dtype),
        np.zeros((*lead, n, len(inputs.t)), dtype) if weights else None,
        np.empty((*lead, n), dtype),
    )


@dataclass(frozen=True, eq=False)
class Heads:
    """Prepares the heads one by one: drops missing keys, rotates, picks parameters."""

    inputs: Inputs
    lead: tuple[int, ...]
    p: dict[str, Array]
    law: Law
    backward: str | None
    window: int | None
    tolerance: float
    result: AttentionResult

    def at(self, name: str, index: tuple[int, ...]) -> Any:
        """A parameter of one head."""
        value = self.p[name]
        if name.startswith("omega"):
            return np.broadcast_to(value, (*self.lead, value.shape[-1]))[index]
        return float(np.broadcast_to(value, self.lead)[index])

    def rows(self, x: Numbers, index: tuple[int, ...]) -> Numbers:
        """Data of one head: not a broadcast view, which may not be written to.

        Kernels would be compiled for it anew.
        """
        own = x.shape[:-2]
        part = index[len(index) - len(own) :]
        return np.asarray(x[tuple(i if n > 1 else 0 for i, n in zip(part, own))])

    def single(self, indices: Any) -> Iterator[tiles.Head]:
        """One head per leading index."""
        inputs, result = self.inputs, self.result
        robust = self.law.kind != "plain"
        for index in indices:
            t, seen, columns = inputs.t, inputs.n_visible, None
            if inputs.known is not None:
                known = np.broadcast_to(inputs.known, (*self.lead, len(t)))[index]
                if not known.all():
                    columns = np.flatnonzero(known)
                    t, seen = t[columns], np.concatenate([[0], np.cumsum(known)])[seen]
            pick: Any = slice(None) if columns is None else columns
            omega, omega_value = self.at("omega", index), self.at("omega_value", index)
            v = self.rows(inputs.v, index)[pick]
            k = q = None
            if robust:
                assert inputs.k is not None
                assert inputs.q is not None
                k = self.rows(inputs.k, index)[pick]
                if not np.array_equal(omega, omega_value):
                    (v,) = to_rotating_frame([v], t, omega_value)
                    (k,) = to_rotating_frame([k], t, omega)
                elif inputs.k is inputs.v:
                    k = v = to_rotating_frame([v], t, omega)[0]
                else:
                    k, v = to_rotating_frame([k, v], t, omega)
                q = self.rows(inputs.q, index)
                if not inputs.q_complete:
                    q = np.nan_to_num(q)
            else:
                (v,) = to_rotating_frame([v], t, omega_value)
            yield tiles.Head(
                inputs.t_query, t, seen, q, k, v, None, omega, omega_value,
                self.at("mu", index), self.at("mu_value", index), self.at("sigma2", index),
                self.at("key_var", index), self.at("query_var", index), self.at("beta", index),
                self.law, self.backward, self.window, self.tolerance,
                result.output[index][:, None, :], result.precision[index][:, None],
                None if result.weights is None else result.weights[index], columns,
            )  # fmt: skip

    def share_weights(self) -> bool:
        """Whether all paths have the same weights, up to missing keys."""
        return (
            self.law.kind == "plain"
            and len(self.lead) > 0
            and self.result.weights is None
            and self.window is None
            and self.tolerance == 0
            and all(x.ndim == (1 if name.startswith("omega") else 0) for name, x in self.p.items())
        )

    def stacked(self) -> Iterator[tiles.Head]:
        """Groups of paths as columns of one head: their weights are computed once."""
        inputs, m = self.inputs, self.inputs.v.shape[-1]
        indices = list(np.ndindex(self.lead))
        size = max(1, STACKED_COLUMNS // m)
        origin = (0,) * len(self.lead)
        par = {name: self.at(name, origin) for name in self.p}
        values = np.broadcast_to(inputs.v, (*self.lead, *inputs.v.shape[-2:]))
        flat = values.reshape(-1, *values.shape[-2:])
        out = self.result.output.reshape(flat.shape[0], -1, m)
        precision = self.result.precision.reshape(flat.shape[0], -1)
        known = None
        if inputs.known is not None:
            known = np.broadcast_to(inputs.known, (*self.lead, len(inputs.t))).reshape(
                len(flat), -1
            )
        for start in range(0, len(indices), size):
            group = slice(start, min(start + size, len(indices)))
            v = flat[group]
            mask = None if known is None else known[group]
            if mask is not None:
                v = np.where(mask[..., None], v, 0)
            (v,) = to_rotating_frame([v], inputs.t, par["omega_value"])
            head = tiles.Head(
                inputs.t_query, inputs.t, inputs.n_visible, None, None,
                np.ascontiguousarray(v.transpose(1, 0, 2)).reshape(len(inputs.t), -1),
                None if mask is None else np.ascontiguousarray(mask.T, dtype=v.dtype),
                None, par["omega_value"], par["mu"], par["mu_value"], par["sigma2"],
                par["key_var"], par["query_var"], par["beta"], self.law, self.backward, None, 0.0,
                out[group].transpose(1, 0, 2), precision[group].T,
            )  # fmt: skip
            if mask is None or head.even_scale:
                yield head
            else:
                yield from self.single(indices[group])


def run_heads(heads: Iterator[tiles.Head], threads: int) -> None:
    """Sweep all heads, preparing no more than a batch ahead."""
    batch: list[tuple[int, Any]] = []
    pending = 0
    for head in heads:
        for start, stop, cost in head.blocks():
            batch.append((cost, partial(sweep, head, start, stop)))
            pending += cost
        if pending > BATCH_PAIRS:
            run(batch, threads)
            batch, pending = [], 0
    run(batch, threads)


def thread_count(threads: int | None) -> int:
    return available_threads() if threads is None else positive_int(threads, "threads")


def finish(
    inputs: Inputs,
    result: AttentionResult,
    residual_step: float | None,
    projections: Projections | None,
    robust: bool,
) -> AttentionResult:
    """Unknown queries, residual step, complex channels, output projection."""
    output = result.output
    if robust and inputs.q is not None and not inputs.q_complete:
        lost = np.broadcast_to(np.isnan(inputs.q).any(axis=-1), output.shape[:-1])
        output[lost], result.precision[lost] = np.nan, 0.0
        if result.weights is not None:
            modes = result.weights.ndim > lost.ndim + 1
            (np.moveaxis(result.weights, -2, -3) if modes else result.weights)[lost] = 0.0
    if residual_step is not None:
        step = scalar(residual_step, "residual_step")
        if inputs.q is None or inputs.q.shape[-1] != output.shape[-1]:
            raise ValueError("residual_step needs q with as many channels as v")
        output = inputs.q + output.dtype.type(step) * (output - inputs.q)
    if inputs.complex_values:
        output = output.view(np.complex64 if output.dtype == np.float32 else np.complex128)
    if projections is not None and projections[3] is not None:
        output = times_matrix(output, projections[3], "o")
    return result._replace(output=output)
