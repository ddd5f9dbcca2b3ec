"""The paper's statements: every check runs, and the committed page says what they find."""

from __future__ import annotations

import importlib
import operator
import re
from pathlib import Path
from typing import Any

import pytest

import afafilter

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "paper.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def paper() -> Any:
    """The statements; experiments are not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield importlib.import_module("simulations._paper")


@pytest.fixture(scope="module")
def found(paper: Any) -> Any:
    return paper.run()


def test_the_committed_page_gives_the_verdicts_of_a_run(paper, found):
    shown = dict(re.findall(r"^\.\. _paper-([\w-]+):$.*?:v-\w+:`([^`]+)`", PAGE, re.M | re.S))
    assert shown == {key: one.verdict.value for key, one in found.items()}
    assert len(shown) >= 55


def test_the_page_is_what_the_tool_writes_but_for_the_numbers(paper, found):
    page = importlib.import_module("simulations._paper.page")

    def bare(text: str) -> str:
        return re.sub(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", "#", text)

    assert bare(page.page(paper.CLAIMS, found)) == bare(PAGE)


def test_the_papers_own_contradictions_are_found(found):
    names = {key for key, one in found.items() if one.verdict.value == "contradicts itself"}
    assert {"per-channel-or-summed", "the-two-dimensional-system", "stacked-layers"} <= names


def test_statements_name_what_is_there(paper):
    experiments = {path.stem for path in (ROOT / "simulations").glob("*.py")}
    for claim in paper.CLAIMS:
        assert re.match(r"v\d", claim.where), claim.key
        for name in claim.functions:
            assert callable(operator.attrgetter(name)(afafilter)), (claim.key, name)
        assert claim.experiment in experiments | {""}, claim.key


def test_verdicts_follow_from_numbers(paper):
    claims = importlib.import_module("simulations._paper.claims")
    verdict = claims.Verdict
    assert claims.holds(1e-13, 1e-12).verdict is verdict.HOLDS
    assert claims.holds(float("nan"), 1e-12).verdict is verdict.FAILS
    assert claims.corrected(0.0, 0.0, 1e-9, "").verdict is verdict.HOLDS
    assert claims.corrected(1.0, 0.0, 1e-9, "").verdict is verdict.CORRECTED
    assert claims.corrected(1.0, 1.0, 1e-9, "").verdict is verdict.FAILS
    assert claims.contradiction(1.0, 1e-9, "").verdict is verdict.CONTRADICTS
    assert claims.contradiction(0.0, 1e-9, "").verdict is verdict.HOLDS
    assert claims.when(False, "").verdict is verdict.FAILS


def test_a_name_that_is_unknown_is_refused(paper):
    main = importlib.import_module("simulations._paper.__main__").main
    with pytest.raises(SystemExit, match="no statement 'nothing'"):
        main(["nothing"])
