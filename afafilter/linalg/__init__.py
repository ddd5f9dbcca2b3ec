"""Exact discretisation and small dense linear algebra.

    Phi(tau) = e^{A tau},   psi(tau) = int_0^tau e^{As} u ds,
    V(tau) = int_0^tau e^{As} Q e^{A^T s} ds,

by Taylor series and doubling or in eigenmodes, whichever errs less; rotations of channel pairs.
"""
