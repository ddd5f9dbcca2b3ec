"""Filter attention on queries, keys and values: a weighted mean over keys with precisions

    P_ij^-1 = V(|t_i - t_j|) + e^{A tau} R e^{A^T tau} (+ query noise),   w(d2_ij) a robust weight,

for isotropic dynamics and for diagonal modes, in tiles, without a T x T array.
"""
