"""Models with flat starts, times and data with gaps, for laws that hold on all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from afafilter import LinearSDE

VELOCITY = np.array([[0.0, 1.0], [0.0, 0.0]])


def two_sensors(sds, process_var=1.0):
    """Constant velocity, its position seen by two sensors."""
    return LinearSDE(
        VELOCITY,
        Q=np.diag([0.0, process_var]),
        R=np.diag(np.square(sds)),
        C=[[1.0, 0.0], [1.0, 0.0]],
        prior="diffuse",
    )


BLOCKS = {
    "walk": ([[0.0]], [[1.0]]),
    "velocity": (VELOCITY, np.diag([0.0, 1.0])),
    "acceleration": (np.diag([1.0, 1.0], 1), np.diag([0.0, 0.0, 1.0])),
    "decay": ([[-0.7]], [[1.0]]),
    "pair": (np.diag([-1.0, -5.0]), np.diag([0.0, 1.0])),
    "shortest": ([[0.0, -np.pi], [np.pi, 0.0]], 0.1 * np.eye(2)),
    "cycle": ([[-0.1, -1.1], [1.1, -0.1]], np.zeros((2, 2))),
}
GAPS = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 7.0])
SMALL = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def cases(draw, longest=6):
    """A model of one or two blocks, one or two sensors, times and data with gaps."""
    chosen = draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=2))
    A, Q = (block_diag(*(BLOCKS[name][k] for name in chosen)) for k in (0, 1))
    d, p = len(A), draw(st.integers(1, 2))
    entries = st.sampled_from([0.0, 1.0, 1.0, -1.0, 0.5])
    C = np.array(draw(st.lists(entries, min_size=p * d, max_size=p * d))).reshape(p, d)
    sds = 10.0 ** np.array(draw(st.lists(st.integers(-4, 0), min_size=p, max_size=p)))
    R = np.diag(sds**2)
    if p == 2 and draw(st.booleans()):
        R[0, 1] = R[1, 0] = 0.7 * sds[0] * sds[1]
    gaps = draw(st.lists(GAPS, min_size=1, max_size=longest - 1))
    t = np.concatenate([[0.0], np.cumsum(gaps)])
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    z = 3 * rng.standard_normal((len(t), p))
    gone = draw(st.lists(st.integers(0, 3), min_size=z.size, max_size=z.size))
    z[np.array(gone).reshape(z.shape) == 0] = np.nan
    return LinearSDE(A, Q=Q, R=R, C=C, prior="diffuse"), t, z
