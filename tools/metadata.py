"""What a package index shows: project addresses, and README with its pictures and links absolute.

No address is written down in the repository: a package that is built where it is published (by the
workflow) takes it from there. Elsewhere README goes out without pictures, since relative ones are
broken on an index.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

PAPER = "https://arxiv.org/abs/2509.04154"
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def repository(environment: Mapping[str, str] = os.environ) -> str:
    """Address of the public repository that this is built in, or "" elsewhere."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY")
    return "/".join(environment[name] for name in names) if names[1] in environment else ""


def project_urls(address: str) -> dict[str, str]:
    """The addresses of the metadata."""
    if not address:
        return {"Paper": PAPER}
    owner, name = address.split("/")[-2:]
    return {
        "Source": address,
        "Documentation": f"https://{owner}.github.io/{name}/",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
        "Paper": PAPER,
    }


def description(readme: str, address: str, version: str) -> str:
    """README for an index: pictures and links of that version, absolute."""
    if not address:
        shown = re.sub(r"<sub>.*?</sub>", "", PICTURE.sub("", readme))
        return LINK.sub(r"\1", shown)
    shown = PICTURE.sub(rf"![\1]({address}/raw/v{version}/\2)", readme)
    return LINK.sub(rf"[\1]({address}/blob/v{version}/\2)", shown)
