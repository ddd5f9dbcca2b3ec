"""How good estimates are: errors, calibration and sharpness, reduced to sums per path and per step;
closed-form scores of Gaussian predictions; paired differences.
"""
