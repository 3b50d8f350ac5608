"""A report in W&B over one search or several: what :mod:`~pipeline.tracking` left there, in panels.

:mod:`~pipeline.publish.content` says what is shown of a run directory,
:mod:`~pipeline.publish.report` builds the report, without a network, and
:mod:`~pipeline.publish.saving` creates it or updates the one of before.
"""

from pipeline.publish.content import PublishedSearch, published_search, require_one_place
from pipeline.publish.report import build_report, report_spec
from pipeline.publish.saving import SavedReport, save_report

__all__ = [
    "PublishedSearch",
    "SavedReport",
    "build_report",
    "published_search",
    "report_spec",
    "require_one_place",
    "save_report",
]
