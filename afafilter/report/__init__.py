"""Pages to look at: one self-contained HTML file with interactive pictures and all numbers.

Pictures are drawn by plotly.js, which PyPI's package `plotly` brings along (the extra `report`);
it goes into the page, so that the page needs no network.
"""

from __future__ import annotations

from afafilter.report.analysis import Analysis, analyse
from afafilter.report.page import comparison_page, plan_page, report_page, require_plotly

__all__ = ["Analysis", "analyse", "comparison_page", "plan_page", "report_page", "require_plotly"]
