"""The report of one or more searches: one HTML file that opens from disk and loads nothing else.

:mod:`~pipeline.report.content` turns fronts and trials into plain data,
:mod:`~pipeline.report.html` puts them into the page. What the page shows and how it behaves is
written in ``page/`` (HTML, CSS, JavaScript).
"""

from pipeline.report.content import ReportRun, UnitCost
from pipeline.report.html import render_report, write_report

__all__ = ["ReportRun", "UnitCost", "render_report", "write_report"]
