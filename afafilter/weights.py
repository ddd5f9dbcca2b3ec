"""Robust weight functions of the squared Mahalanobis distance."""
