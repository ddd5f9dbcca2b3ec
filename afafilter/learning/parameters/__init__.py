"""From an unconstrained vector theta to a model, and gradients back: families, free matrices, noise
levels of presets.
"""
