"""The simulator's recursions in the core: states and observations from standard normal draws."""

from __future__ import annotations

from afafilter._core import core

propagate = core.propagate
observe = core.observe
