"""The report of one or more searches: one HTML file that opens from disk and loads nothing else.

:mod:`~paretopath.showing.report.content` turns fronts and trials into plain data,
:mod:`~paretopath.showing.report.html` puts them into the page. What the page shows and how it
behaves is written in ``page/`` (HTML, CSS, JavaScript).
"""

from paretopath.showing.report.content import ReportRun, UnitCost
from paretopath.showing.report.html import render_report, write_report

__all__ = ["ReportRun", "UnitCost", "render_report", "write_report"]
