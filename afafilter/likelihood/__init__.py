"""Log-likelihood of linear Gaussian models, exact diffuse, and its exact gradient: the score of the
disturbance smoother, carried through the discretisation. Durbin & Koopman (2012), ch. 7.
"""
