"""Adaptive Filter Attention: every observation pulled to the query time, then averaged.

    zhat_ij = e^{A tau} z_j,   P_ij^-1 = V(tau) + e^{A tau} R e^{A^T tau},
    zbar_i = (sum_j w_ij P_ij)^-1 sum_j w_ij P_ij zhat_ij

(Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154.) With full matrices, in the
isotropic and the modal form, with exact correlation, radial-tangential, and under structured noise.
"""
