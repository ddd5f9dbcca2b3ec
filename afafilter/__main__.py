"""`python -m afafilter` is the command `afafilter`."""

from __future__ import annotations

from afafilter.cli import main

main(prog_name="afafilter")
