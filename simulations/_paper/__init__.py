"""The paper's statements, each with a check; `python -m simulations._paper` writes their page."""

from __future__ import annotations

from collections.abc import Iterable

from simulations._paper import estimator, extensions, mechanism, regimes, tables, weights
from simulations._paper.claims import CLAIMS, Claim, Found

PARTS = (estimator, weights, mechanism, regimes, extensions, tables)
CLAIMS.sort(key=lambda claim: [module.PART for module in PARTS].index(claim.part))


def run(claims: Iterable[Claim] = CLAIMS) -> dict[str, Found]:
    """What the checks find, by the claims' keys."""
    return {claim.key: claim.check() for claim in claims}
