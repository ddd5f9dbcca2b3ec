"""Learning models from data: maximum likelihood with its exact gradient, expectation-maximisation,
Student-t noise, AFA's own objective; intervals, bootstrap, likelihood ratios and residual checks.
"""
