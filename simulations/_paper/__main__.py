"""`python -m simulations._paper [NAME...]`: run checks; without names, write docs/paper.rst."""

from __future__ import annotations

import sys
from pathlib import Path

from simulations._paper import run
from simulations._paper.claims import CLAIMS
from simulations._paper.page import page


def main(names: list[str]) -> None:
    """Run what is named, or everything, and say what was found."""
    known = {claim.key: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise SystemExit(f"no statement {name!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in names] or CLAIMS
    found = run(chosen)
    for claim in chosen:
        print(f"{claim.key}: {found[claim.key].verdict.value}. {found[claim.key].text}")
    if not names:
        target = Path(__file__).parents[2] / "docs" / "paper.rst"
        target.write_text(page(CLAIMS, found), encoding="utf-8")
        print(f"wrote {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
