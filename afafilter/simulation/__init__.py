"""Draws from models: exactly in law, x(s + tau) | x(s) ~ N(Phi x + psi, V), for linear ones; by
sub-steps for the radial-tangential SDE. Outliers and missing values.
"""
