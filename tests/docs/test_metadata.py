"""What a package index shows: every picture and link absolute, or none."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delitem(sys.modules, "metadata", raising=False)
    import metadata

    return metadata


def test_where_it_is_published_addresses_are_absolute(metadata):
    place = {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "someone/some-name"}
    address = metadata.repository(place)
    assert metadata.project_urls(address)["Documentation"] == "https://someone.github.io/some-name/"
    text = metadata.description(README, address, "9.8.7")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert all(target.startswith("https://") for target in targets)
    assert f"({address}/raw/v9.8.7/figures/overview.png)" in text
    assert len(targets) == len(re.findall(r"\]\(([^)]+)\)", README))


def test_elsewhere_nothing_is_broken(metadata):
    assert metadata.repository({}) == ""
    assert metadata.project_urls("") == {"Paper": "https://arxiv.org/abs/2509.04154"}
    text = metadata.description(README, "", "9.8.7")
    assert "figures/" not in re.sub(r"`[^`]*`", "", text)
    assert set(re.findall(r"\]\((?!https:)([^)]+)\)", text)) == set()
    assert "| AFA |" in text


def test_what_readme_links_to_is_there():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
