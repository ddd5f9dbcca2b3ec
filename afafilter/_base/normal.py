"""Numbers of the standard normal law that intervals are made of."""

from __future__ import annotations


def half_width(level: float) -> float:
    """Half of the central interval of N(0, 1) with that probability: 1.96 for 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + 0.5 * level))
