"""What families are sums of: components, their parameters and their matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from afafilter.learning.start_values import Scales


class Block(NamedTuple):
    """State of one component: matrices, stationary covariance, flat start directions.

    R and offset are added to those of the other components. All must be computed by plain
    arithmetic from the parameters: they are also called with complex numbers, whose tiny
    imaginary parts carry the derivatives.
    """

    A: Any  # (d, d)
    Q: Any  # (d, d)
    C: Any  # (p, d)
    cov: Any  # (d, d), 0 along flat directions
    flat: Any  # (d, q)
    R: Any = None  # (p, p)
    offset: Any = None  # (p,)


@dataclass(frozen=True)
class Param:
    """A parameter: its name, where it may lie, and how to guess it from data.

    domain : "real"; "positive" (fitted by its logarithm); "nonnegative" (fitted by its square root,
        can be or become 0).
    """

    name: str
    domain: str
    guess: Callable[[Scales, int], float]


@dataclass(frozen=True)
class Component:
    """One summand of a family: `build(values) -> Block`, values in the order of `params`.

    affine : whether the block is an affine function of the values. Its derivatives are then
        computed once per fit instead of at every evaluation.
    """

    label: str
    params: tuple[Param, ...]
    build: Callable[..., Block]
    obs_dim: int = 1
    dim: int = 1
    affine: bool = False
