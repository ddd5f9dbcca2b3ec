"""Groups of paths with the same gaps, against comparison of every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from afafilter._base.patterns import group_alike, members, require_whole_rows, whole_rows

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=3, max_side=6))


@given(MASKS)
def test_groups_are_the_classes_of_equal_masks(masks):
    group, first = group_alike(masks)
    for i, a in enumerate(masks):
        for j, b in enumerate(masks):
            assert (group[i] == group[j]) == np.array_equal(a, b)
    assert [int(group[k]) for k in first] == list(range(len(first)))
    assert sorted(first) == list(first)
    assert all(k == min(np.flatnonzero(group == group[k])) for k in first)


@given(MASKS)
def test_members_part_the_paths_in_order_of_appearance(masks):
    found = members(masks)
    group, _ = group_alike(masks)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(masks)))
    for g, mine in enumerate(found):
        np.testing.assert_array_equal(mine, np.flatnonzero(group == g))


@given(arrays(float, (3, 4, 2), elements=st.sampled_from([0.0, np.nan])))
def test_whole_rows(z):
    partly = [(i, k) for i in range(3) for k in range(4) if np.isnan(z[i, k]).sum() == 1]
    assert whole_rows(z) == (not partly)
    if not partly:
        require_whole_rows(z, "remedy")
        return
    i, k = partly[0]
    with pytest.raises(ValueError, match=rf"path {i}, row {k}\): leave it out"):
        require_whole_rows(z, "leave it out")


def test_one_path_names_the_row_alone():
    z = np.array([[1.0, 2.0], [np.nan, 2.0]])
    with pytest.raises(ValueError, match=r"in part \(row 1\)"):
        require_whole_rows(z, "x")
