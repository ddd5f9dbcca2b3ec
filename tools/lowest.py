"""Prints the lowest versions that setup.cfg declares, as requirements for pip.

python tools/lowest.py > lowest.txt
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

EXTRAS = "options.extras_require"
TESTED = ("parquet", "report", "dask", "polars", "xarray", "test")
"""The extras that the tests install."""
SECTIONS = (("options", "install_requires"), *((EXTRAS, extra) for extra in TESTED))


def lowest(line: str) -> str | None:
    """`name==version` for `name>=version,...`; None for what names no version."""
    found = re.match(r"([\w-]+)\s*[>=]=\s*([\w.]+)", line)
    return f"{found[1]}=={found[2]}" if found else None


def main() -> None:
    """Write one line per declared requirement."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).resolve().parent.parent / "setup.cfg")
    for section, key in SECTIONS:
        for line in config[section][key].splitlines():
            if pinned := lowest(line.strip()):
                print(pinned)


if __name__ == "__main__":
    main()
