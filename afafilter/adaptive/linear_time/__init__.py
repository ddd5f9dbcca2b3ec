"""Plain AFA of isotropic models in linear time: the weight as a short sum of exponentials,
P(tau) ~ sum_k c_k e^{-s_k tau}, and with it banks of first-order recurrences, streams and layers.
"""
