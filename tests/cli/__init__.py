"""Tests of the command; how they call it."""

from __future__ import annotations

import inspect
from typing import Any

from click.testing import CliRunner


def runner() -> CliRunner:
    """A runner that keeps stdout and stderr apart, which click 8.1 does only when asked."""
    apart: dict[str, Any] = {"mix_stderr": False}
    return CliRunner(**apart if "mix_stderr" in inspect.signature(CliRunner).parameters else {})
