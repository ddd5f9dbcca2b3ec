"""The page "The paper, reproduced" as reStructuredText."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

from simulations._paper.claims import Claim, Found, Verdict

CLASSES = {
    Verdict.HOLDS: "v-holds",
    Verdict.CORRECTED: "v-corrected",
    Verdict.FAILS: "v-fails",
    Verdict.CONTRADICTS: "v-contradicts",
}
HEAD = """\
.. Written by `python -m simulations._paper` (`make paper`).

The paper, reproduced
=====================

P. Racioppo, `arXiv:2509.04154 <https://arxiv.org/abs/2509.04154>`_: "Attention as an Adaptive
Filter" (v1 to v3, 2025) and "Robust Filter Attention" (v4 to v6; v6, ICML 2026, is the reference).
Every statement that can be checked has a row: where it stands, what it says in the notation of
:doc:`guide`, what does it here, what a run found, and the verdict, which follows from the number
and a tolerance. ``make paper`` runs all of them again, ``python -m simulations._paper NAME`` one.

Numbered as in v6, of which v4 and v5 are earlier states; v1 and v2 share their sections, v3 moves
the radial-tangential model from section 4 to 5. Not here: the perplexities of Tables 1 to 3 and the
training curves of Figures 7 to 11, which need trained language models. What those tables are taken
to show is checked as a statement about estimators, in the last part.

"""
FILTER = """\
.. raw:: html

   <fieldset class="verdicts"><legend>Show</legend>
   <label><input type="radio" name="v" id="v-all" checked> all</label>
{labels}
   </fieldset>

"""


def counts(found: Mapping[str, Found], claims: list[Claim], verdict: Verdict) -> int:
    """How many of the claims have a verdict."""
    return sum(found[c.key].verdict is verdict for c in claims)


def summary(claims: list[Claim], found: Mapping[str, Found]) -> list[str]:
    """A table of parts and verdicts."""
    lines = [".. list-table::", "   :header-rows: 1", "   :class: counts", ""]

    def row(cells: list[str]) -> None:
        marks = ["*", *" " * (len(cells) - 1)]
        lines.extend(f"   {mark} - {cell}".rstrip() for mark, cell in zip(marks, cells))

    row(["Part", *(v.value for v in Verdict)])
    for part, own in groupby(claims, lambda c: c.part):
        rows = list(own)
        row([f"`{part}`_", *(str(counts(found, rows, v) or "") for v in Verdict)])
    row(["all", *(str(counts(found, claims, v)) for v in Verdict)])
    return [*lines, ""]


def name_of(function: str) -> str:
    """A link to the reference."""
    return f":py:obj:`{function} <afafilter.{function}>`"


def block(claim: Claim, found: Found) -> list[str]:
    """One row."""
    ways = [", ".join(name_of(f) for f in claim.functions)]
    if claim.experiment:
        anchor = claim.experiment.replace("_", "-")
        ways.append(f"experiment :ref:`{claim.experiment} <experiment-{anchor}>`")
    ways.append(f"``python -m simulations._paper {claim.key}``")
    mark = CLASSES[found.verdict]
    cells = {
        "where": f"`{claim.where} <#paper-{claim.key}>`__",
        "says": claim.says,
        "ways": " · ".join(ways),
        "found": f":{mark}:`{found.verdict.value}` {found.text}.",
    }
    lines = [f".. _paper-{claim.key}:", "", f".. container:: claim {mark}", ""]
    for name, text in cells.items():
        lines += [f"   .. container:: {name}", "", f"      {text}", ""]
    return lines


def page(claims: list[Claim], found: Mapping[str, Found]) -> str:
    """The whole page."""
    roles = [f".. role:: {mark}" for mark in CLASSES.values()]
    labels = "\n".join(
        f'   <label><input type="radio" name="v" id="only-{mark}"> {verdict.value} '
        f"({counts(found, claims, verdict)})</label>"
        for verdict, mark in CLASSES.items()
    )
    lines = [HEAD, *roles, "", *summary(claims, found), FILTER.format(labels=labels)]
    for part, own in groupby(claims, lambda c: c.part):
        lines += [part, "-" * len(part), ""]
        for claim in own:
            lines += block(claim, found[claim.key])
    return "\n".join(lines).rstrip("\n") + "\n"
