"""Diagonal blocks, squaring, and the series of a defective eigenvalue, by direct arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from afafilter.linalg.doubling import components, single_eigenvalue_blocks, square


@pytest.mark.parametrize("seed", range(20))
def test_components_are_those_of_the_graph(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 9))
    A = rng.standard_normal((d, d)) * (rng.random((d, d)) < 1.0 / d)
    count, label = connected_components(A != 0, directed=False)
    found = components(A)
    assert len(found) == count
    assert [int(part[0]) for part in found] == sorted(int(part[0]) for part in found)
    for part in found:
        np.testing.assert_array_equal(part, np.flatnonzero(label == label[part[0]]))


def test_a_squaring_keeps_what_is_near_one_and_what_has_decayed():
    """P = diag(e^{-1e-12}, e^{-40}): 1 - P^2 and P^2 keep their relative accuracy."""
    x = np.array([[np.expm1(-1e-12), np.expm1(-40.0)]])
    P = np.diag(np.exp([-1e-12, -40.0]))[None]
    new_x, squared = square(x, P)
    assert new_x[0, 0] == pytest.approx(np.expm1(-2e-12), rel=1e-15)
    assert squared[0, 1, 1] == pytest.approx(np.exp(-80.0), rel=1e-14)


def test_the_series_of_a_defective_block():
    A = np.array([[-0.5, 1.0, 0.3], [0.0, -0.5, 1.0], [0.0, 0.0, -0.5]])
    (cluster,) = single_eigenvalue_blocks(A)
    np.testing.assert_array_equal(cluster.members, [0, 1, 2])
    tau = np.array([0.1, 30.0, 100.0])
    found = cluster(tau).astype(float)
    for k, step in enumerate(tau):
        with mpmath.workdps(60):
            exact = np.array(mpmath.expm(mpmath.matrix(A * step), method="taylor").tolist(), float)
        np.testing.assert_allclose(found[k], exact, rtol=1e-13, atol=0)


def test_distinct_eigenvalues_have_no_series():
    assert single_eigenvalue_blocks(np.array([[-0.5, 1.0], [0.0, -0.6]])) == []
    assert single_eigenvalue_blocks(np.diag([-1.0, -1.0])) == []
