"""Robust weights of attention: from variances and squared distances to weights of pairs."""

from __future__ import annotations

import numpy as np

from afafilter.attention.law import Law
from afafilter.attention.tiles import F64, Floats, Head, Side


def linear_weights(law: Law, beta: float, S: Floats, X: Floats | None) -> Floats:
    """W without a running maximum, in place."""
    from afafilter._core.attention_kernels import power_weights

    exponent = law.exponent
    if X is None:
        X, exponent = S, 1.0
    power_weights(X, S, X.dtype.type(exponent), X.dtype.type(beta))
    return X


def log_weights(head: Head, side: Side, S: Floats, X: Floats | None, tau: F64 | None) -> Floats:
    """Logits beta (log P + log w), without the factor E^{2 beta} of exact acausal pairs."""
    law, dtype = head.law, head.v.dtype
    info = np.finfo(dtype)
    degenerate = side.degenerate(head)
    if degenerate:
        assert tau is not None
        log_s: Floats = (np.log(side.var_early) - 2.0 * head.mu * tau).astype(dtype)
        S = np.exp(np.maximum(log_s, -0.9 * np.log(info.max)))
    if law.kind == "general":
        assert X is not None
        np.maximum(X, 0.0, out=X)
        X /= S
        np.minimum(X, info.max, out=X)
    if not degenerate:
        log_s = np.log(S, out=S)
    if law.kind == "plain":
        np.negative(log_s, out=log_s)
    elif law.kind == "power":
        assert X is not None
        np.log(np.maximum(X, info.tiny, out=X), out=X)
        X *= law.exponent
        log_s *= law.exponent - 1.0
        log_s -= X
    else:
        assert X is not None
        assert law.weight is not None
        np.subtract(law.weight.log(X, law.dim), log_s, out=log_s)
    if head.beta != 1.0:
        log_s *= head.beta
    return log_s
