"""Matrices along a diagonal, beside SciPy's."""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag

from afafilter.linalg.block_diagonal import block_diagonal


def test_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.standard_normal(shape) for shape in ((2, 2), (1, 0), (0, 0), (3, 1), (0, 2))]
    for some in (blocks, blocks[:1], blocks[1:3]):
        np.testing.assert_array_equal(block_diagonal(*some), block_diag(*some))
