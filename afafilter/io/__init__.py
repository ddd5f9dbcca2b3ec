"""Measurements, tables and configurations: CSV, Parquet and TOML in and out.

Nothing is ever half written. Models and studies are described in TOML: see `read_model` and
`Study.from_toml`.
"""

from __future__ import annotations

from afafilter.io.dialect import Dialect
from afafilter.io.files import atomic_path
from afafilter.io.model_toml import read_model, write_model
from afafilter.io.output import write_table
from afafilter.io.series import Panel, Series, read_panel, read_series
from afafilter.io.sidecar import write_sidecar
from afafilter.io.source import read_metadata

__all__ = [
    "Dialect",
    "Panel",
    "Series",
    "atomic_path",
    "read_metadata",
    "read_model",
    "read_panel",
    "read_series",
    "write_model",
    "write_sidecar",
    "write_table",
]
