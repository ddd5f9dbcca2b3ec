"""Matrices side by side."""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array


def block_diagonal(*blocks: Array) -> Array:
    """Matrices (m_k, n_k) along the diagonal of one of 0, (sum m, sum n); m_k or n_k may be 0."""
    whole = np.zeros((sum(len(block) for block in blocks), sum(b.shape[1] for b in blocks)))
    row = column = 0
    for block in blocks:
        m, n = block.shape
        whole[row : row + m, column : column + n] = block
        row, column = row + m, column + n
    return whole
