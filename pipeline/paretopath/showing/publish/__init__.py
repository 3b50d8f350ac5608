"""A report in W&B over one search or several: what :mod:`~paretopath.showing.tracking` left there,
in panels.

:mod:`~paretopath.showing.publish.content` says what is shown of a run directory,
:mod:`~paretopath.showing.publish.report` builds the report, without a network, and
:mod:`~paretopath.showing.publish.saving` creates it or updates the one of before.
"""

from paretopath.showing.publish.content import PublishedSearch, published_search, require_one_place
from paretopath.showing.publish.report import build_report, report_spec
from paretopath.showing.publish.saving import SavedReport, save_report

__all__ = [
    "PublishedSearch",
    "SavedReport",
    "build_report",
    "published_search",
    "report_spec",
    "require_one_place",
    "save_report",
]
