"""From an unconstrained vector theta to a model, and gradients back.

A parametrisation knows its natural parameters (what is reported), the arrays of the model at theta,
and the chain rule from gradients by those arrays to the gradient by theta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array
from afafilter.learning.family import NO_STATE, Component, Family
from afafilter.learning.parameters.base import Parametrisation
from afafilter.learning.parameters.matrices import MatrixParameters
from afafilter.learning.parameters.noise_levels import NoiseLevels
from afafilter.learning.start_values import data_scales
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.models.blocks import Block
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE

TINY = 1e-30
TRIED_PEAKS = 4
"""Peaks of the periodogram at which a cycle may start."""
LOG_REACH = 25.0
"""Logarithms of positive parameters stay within this of their start."""


class FamilyParameters(Parametrisation):
    """Free parameters of a family: positive ones by their logarithm, nonnegative by their root.

    The root makes a maximum at 0 an ordinary one: the likelihood is smooth in the root and its
    slope there is 0, whereas a logarithm would run away. Derivatives of the matrices by complex
    steps: exact to rounding for the analytic formulas of which families are made.
    """

    def __init__(
        self,
        family: Family,
        start: Mapping[str, float],
        sizes: Array,
        others: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """`sizes` (p,) of the components of the observations."""
        if family.dim == 0:
            raise ValueError(NO_STATE)
        self.family = family
        self.names = family.free
        if not self.names:
            raise ValueError("nothing to fit: every parameter of the family is fixed or tied")
        parameters = family.parameters
        domains = [parameters[name].domain for name in self.names]
        self.logs = np.array([domain == "positive" for domain in domains])
        self.roots = np.array([domain == "nonnegative" for domain in domains])
        self.positive, self._logs = self.logs | self.roots, np.flatnonzero(self.logs)
        self._levels = {
            k: parameters[name].axis for k, name in enumerate(self.names) if "offset" in name
        }
        self._set_start(start, sizes, others)
        self._layout = _layout(family, self.names)
        self._dims = family.dim, family.obs_dim
        self._prepare_flat()

    def _set_start(
        self, start: Mapping[str, float], sizes: Array, others: Sequence[Mapping[str, float]]
    ) -> None:
        self._start = np.array([float(start[name]) for name in self.names])
        for name, value, positive in zip(self.names, self._start, self.positive, strict=True):
            if not math.isfinite(value) or (positive and value <= 0):
                raise ValueError(f"start value of {name} must be finite and > 0, got {value:g}")
        real = np.maximum(np.abs(self._start), TINY)
        for k, c in self._levels.items():
            real[k] = sizes[c]
        root = np.sqrt(np.abs(self._start))
        self.typical = np.where(self.logs, 1.0, np.where(self.roots, root, real))
        self._others = others

    def restarted(
        self, start: Mapping[str, float], sizes: Array, others: Sequence[Mapping[str, float]]
    ) -> FamilyParameters:
        """The same parameters with another start."""
        found = copy(self)
        found._set_start(start, sizes, others)
        return found

    def start(self) -> Array:
        return self._theta(self._start)

    def theta(self, values: Mapping[str, float]) -> Array:
        """Theta at these values of the free parameters."""
        return self._theta(np.array([float(values[name]) for name in self.names]))

    def alternatives(self) -> list[Array]:
        """At other peaks of the periodogram."""
        first = self.start()
        found = [self.theta(values) for values in self._others]
        return [theta for theta in found if (theta != first).any()]

    def _theta(self, values: Array) -> Array:
        x = np.abs(values)
        logs = np.log(np.where(self.logs, x, 1.0))
        return np.where(self.logs, logs, np.where(self.roots, np.sqrt(x), values))

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        reach = np.where(self.logs, LOG_REACH, np.inf)
        return theta - reach, theta + reach

    def natural(self, theta: Array) -> Array:
        """Of one theta (n,), or of many (M, n)."""
        return self._with_logs(theta, np.where(self.roots, theta * theta, theta))

    def slope(self, theta: Array) -> Array:
        """d natural / d theta, each by its own, of one theta (n,) or of many (M, n)."""
        return self._with_logs(theta, np.where(self.roots, 2 * theta, 1.0))

    def _with_logs(self, theta: Array, others: Array) -> Array:
        """Exponentials where theta is a logarithm, `others` elsewhere."""
        if len(self._logs):
            others[..., self._logs] = np.exp(theta[..., self._logs])
        return others

    def jacobian(self, theta: Array) -> Array:
        return np.diag(self.slope(theta))

    def vanishing(self, theta: Array) -> list[int]:
        """Coordinates that may be exactly 0: nonnegative parameters that are nearly so."""
        return np.flatnonzero(self.roots & (np.abs(theta) < 0.03 * self.typical)).tolist()

    def _prepare_flat(self) -> None:
        """What every evaluation shares: the constant part of the arrays and their known slopes.

        All arrays lie end to end in one vector, so that components affine in their parameters
        cost one product with a constant matrix, however many there are.
        """
        d, p = self._dims
        size = 3 * d * d + p * d + p * p + p + 2 * d
        numbers: Any = np.arange(size)
        places = System.of_vector(numbers, d, p)
        self._constant, self._affine = np.zeros(size), np.zeros((len(self.names), size))
        self._curved: list[_Curved] = []
        flat = np.zeros((d, d))
        row = column = 0
        for component, sources in self._layout:
            affine = component.affine or all(k < 0 for k, _ in sources)
            moving = 0.0 if affine else 1.0
            given = [moving * self._start[k] if k >= 0 else fixed for k, fixed in sources]
            block = component.build(*given)
            own = slice(row, row + component.dim)
            width = block.flat.shape[1]
            flat[own, column : column + width] = block.flat
            row, column = row + component.dim, column + width
            where = _run(_end_to_end(_of_block(places, own, block)))
            if affine:
                self._constant[where] += _vector(block)
                for k, slope in _derivatives(component, sources, given):
                    self._affine[k, where] += slope
            else:
                self._curved.append(_Curved.of(component, where, sources, len(self.names)))
        self.flat = np.ascontiguousarray(flat[:, :column])
        moves = bool(self._curved) or self._affine[:, : d * d].any()
        self.fixed_A = None if moves else self._constant[: d * d].reshape(d, d)

    def system(self, theta: Array) -> System:
        (vector,), _ = self.at(theta[None])
        return System.of_vector(np.append(vector, self.flat.T), *self._dims)

    def at(self, thetas: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The arrays of the models at many theta (M, n), end to end as `System.vector` has them.

        Beside them the map from gradients by these arrays (M, ...) to those by the natural
        parameters (M, n).
        """
        values = self.natural(thetas)
        flat = self._constant + values @ self._affine
        curved = []
        for part in self._curved:
            vectors, slopes = part.at(values)
            flat[:, part.where] += vectors
            curved.append((part.free, part.where, slopes))

        def pullback(grads: Array) -> Array:
            out = grads[:, : len(self._constant)] @ self._affine.T
            for free, where, slopes in curved:
                out[:, free] += (slopes @ grads[:, where, None])[..., 0]
            return np.asarray(out)

        return flat, pullback

    def pullback(self, theta: Array, grad: System) -> Array:
        return np.asarray(self.by_naturals(theta, grad) * self.slope(theta))

    def by_naturals(self, theta: Array, grad: System) -> Array:
        """Gradient by the natural parameters."""
        return np.asarray(self.at(theta[None])[1](grad.vector()[None])[0])

    def model(self, theta: Array) -> LinearSDE:
        return self.family.model_of(self.system(theta))


def _layout(family: Family, names: tuple[str, ...]) -> list[tuple[Component, list[Any]]]:
    """Per component the source of each argument: (index into the free values, -1: fixed value)."""
    order = iter(family.parameters)
    out = []
    for component in family.components:
        sources = []
        for _ in component.params:
            name = next(order)
            name = family.ties.get(name, name)
            free = name in names
            sources.append((names.index(name) if free else -1, family.fixed.get(name)))
        out.append((component, sources))
    return out


def _end_to_end(arrays: Any) -> Array:
    return np.concatenate([array.ravel() for array in arrays])


def _run(indices: Any) -> Any:
    """Indices, as a slice where they follow each other: views cost less than copies."""
    first = int(indices[0])
    whole = list(indices) == list(range(first, first + len(indices)))
    return slice(first, first + len(indices)) if whole else indices


def _of_block(places: System, own: slice, block: Block) -> list[Any]:
    """The places of the system's A, Q, cov, C, R, offset that a component's block fills."""
    assert isinstance(places.prior, PriorArrays)
    parts = [places.A[own, own], places.Q[own, own], places.prior.cov[own, own], places.C[:, own]]
    more = (places.R, block.R), (places.offset, block.offset)
    return parts + [x for x, y in more if y is not None]


def _vector(block: Block) -> Any:
    """The arrays of a component's block, end to end in the order of `_of_block`."""
    arrays = (block.A, block.Q, block.cov, block.C, block.R, block.offset)
    return _end_to_end([x for x in arrays if x is not None])


class _Curved(NamedTuple):
    """A component that is no affine function of its arguments, linearised at every evaluation.

    From one building: complex steps leave the real part as it is.
    """

    component: Component
    where: Any  # places of its arrays in the vector of all
    free: Any  # the free parameters that it uses (m)
    sources: list[Any]  # of each argument, the free parameter or -1, and the fixed value
    steps: Any  # (m, n) i TINY of one free parameter each

    @classmethod
    def of(cls, component: Component, where: Any, sources: list[Any], n: int) -> _Curved:
        """The component at these places, of n free parameters in all."""
        free = list(dict.fromkeys(k for k, _ in sources if k >= 0))
        return cls(component, where, _run(free), sources, TINY * 1j * np.eye(n)[free])

    def at(self, values: Array) -> tuple[Array, Array]:
        """The arrays (M, size) at values (M, n), and their derivatives (M, m, size)."""
        M, m = len(values), len(self.steps)
        stepped = (values[:, None] + self.steps).reshape(M * m, -1).T
        with np.errstate(all="ignore"):
            block = self.component.build(*(stepped[k] if k >= 0 else x for k, x in self.sources))
        parts = block.A, block.Q, block.cov, block.C  # with a leading axis if they depend on it
        sizes = [x.shape[-2] * x.shape[-1] for x in parts]
        found: Any = np.empty((M * m, sum(sizes)), complex)
        end = 0
        for x, size in zip(parts, sizes, strict=True):
            begin, end = end, end + size
            found[:, begin:end] = x.reshape(-1, end - begin)
        found = found.reshape(M, m, -1)
        return found[:, 0].real, found.imag / TINY


def _derivatives(
    component: Component, sources: list[Any], given: list[float]
) -> Iterator[tuple[int, Array]]:
    """Index of each free parameter that a component uses, and its derivative of the block."""
    for i, (k, _) in enumerate(sources):
        if k >= 0:
            stepped: list[Any] = list(given)
            stepped[i] = complex(given[i], TINY)
            yield k, _vector(component.build(*stepped)).imag / TINY


def family_start(
    family: Family, t: ArrayLike, z: Array
) -> tuple[dict[str, float], Array, list[dict[str, float]]]:
    """Starting values, sizes (p,) of the observations, and other starts.

    Of a cycle these are at lesser peaks of the periodogram, and narrow at the largest.
    """
    scales = data_scales(np.asarray(t, float), z, family.obs_dim)
    others = []
    if _has_frequency(family):
        tried = [*map(scales.skipping, range(1, TRIED_PEAKS)), scales.skipping(0, width=0.0)]
        cycles = sum(name.rpartition(".")[2] == "frequency" for name in family.parameters)
        if cycles > 1:
            tried = [scales.in_turn(cycles, k, width=0.0) for k in range(TRIED_PEAKS)] + tried
        others = [family.guess_from(one) for one in tried]
    return family.guess_from(scales), np.sqrt(scales.each[:, 0]), others


def _has_frequency(family: Family) -> bool:
    """Whether a frequency is to be fitted."""
    return any(name.rpartition(".")[2] == "frequency" for name in family.free)


def parametrisation(
    model: LinearSDE | DiscreteModel | Family,
    t: ArrayLike,
    z: Array,
    free: Sequence[str] | Mapping[str, Any] | NoiseLevels | None = None,
    *,
    stable: bool | None = None,
    obs_cov: bool = False,
) -> Parametrisation:
    """The parametrisation that `fit` works with."""
    if isinstance(free, NoiseLevels):
        return free
    if isinstance(model, Family):
        start, sizes, others = family_start(model, t, z)
        if free is not None:
            if isinstance(free, Mapping):
                raise ValueError("free of a family must be names, not masks")
            for name in free:
                if name not in model.free:
                    raise ValueError(f"free must name {', '.join(model.free)}; got {name!r}")
            model = model.fix({n: start[n] for n in model.free if n not in free})
        return FamilyParameters(model, start, sizes, others if _has_frequency(model) else [])
    if free is None:
        usual = ("A", "Q", "R", "drift") if isinstance(model, LinearSDE) else ("F", "Q", "R", "b")
        kept = (*getattr(model, "time_varying", ()), *(("R",) if obs_cov else ()))
        free = [name for name in usual if name not in kept]
    elif isinstance(free, str):
        free = [free]
    scales = data_scales(np.asarray(t, float), z, model.obs_dim)
    units = np.sqrt(scales.each[:, 0]), scales.gap
    return MatrixParameters(model, free, units, stable=stable, obs_cov=obs_cov)
