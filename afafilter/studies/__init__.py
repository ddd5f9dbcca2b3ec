"""Estimators compared on the same simulated paths, once or over a grid of models and scenarios.

Common random numbers make differences paired; results depend neither on jobs nor interruptions.
"""
