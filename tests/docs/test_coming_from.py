"""The pages "Coming from ...": every row of their tables stands for something that runs here."""

from __future__ import annotations

import re
import textwrap
import warnings
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "coming_from"
LIBRARY = {
    "filterpy": "filterpy",
    "pykalman": "pykalman",
    "statsmodels": "statsmodels",
    "kfas": None,
    "pytorch": "torch",
}
"""What a page's code needs beside ours; KFAS is R: its page runs our side on published values."""
NOT_RUN = {"kfas": {0}}
"""Columns of a page's table that are of another language."""


def code_of(page: str) -> str:
    found = re.search(r"code-block:: python\n\n(.*?)(?=\n\S|\Z)", page, flags=re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1])


def rows_of(page: str) -> list[list[str]]:
    """The cells of the page's list-table, without its header."""
    table = page.partition("list-table::")[2].partition("\n\n.")[0]
    rows = re.findall(r"^   \* - (.*?)\n     - (.*?)(?=^   \* - |^\S|\Z)", table, re.M | re.S)
    return [list(row) for row in rows[1:]]


def test_the_pages_are_these():
    assert {path.stem for path in PAGES.glob("*.rst")} == {*LIBRARY, "index"}


@pytest.mark.parametrize("name", LIBRARY)
def test_names_in_the_table_are_used_in_the_code(name):
    page = (PAGES / f"{name}.rst").read_text(encoding="utf-8")
    code, rows = code_of(page).lower(), rows_of(page)
    assert len(rows) >= 9
    for row in rows:
        for column, cell in enumerate(row):
            if column not in NOT_RUN.get(name, ()):
                words = re.findall(r"[A-Za-z_][\w.]{2,}", " ".join(re.findall(r"``(.*?)``", cell)))
                unused = [word for word in words if word.split(".")[-1].lower() not in code]
                assert not unused, (row, unused)


@pytest.mark.parametrize("name", LIBRARY)
def test_the_code_runs(name):
    library = LIBRARY[name]
    if library is not None:
        pytest.importorskip(library, reason=f"{library} is not installed")
    code = code_of((PAGES / f"{name}.rst").read_text(encoding="utf-8"))
    assert code.count("assert") >= 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, f"{name}.rst", "exec"), {})
