"""The report's page: template, style, scripts and data put into one file."""

import html
import json
import os
import re
from collections.abc import Sequence
from importlib import resources

from paretopath.files import write_atomically
from paretopath.showing.report.content import ReportRun, report_content

# in the order of their use: each one only names what stands before it
_SCRIPTS = (
    "format.js",
    "model.js",
    "summary.js",
    "chart.js",
    "compare.js",
    "table.js",
    "progress.js",
    "parallel.js",
    "sensitivity.js",
    "leaving.js",
    "pictures.js",
    "main.js",
)


def write_report(
    file: str | os.PathLike[str], runs: Sequence[ReportRun], *, title: str = "Execution paths"
) -> None:
    """Writes the report of one or more searches.

    The file holds everything, plotly.js included (about 5 MB): it opens from disk, in a browser
    without a network.

    Args:
        file: where to write.
        runs: what to show, overlaid in this order. They share one metric and have distinct names.
        title: the page's heading.

    Raises:
        InvalidValueError: no run, runs of different metrics, or two of one name.
    """
    write_atomically(file, render_report(runs, title=title))


def render_report(runs: Sequence[ReportRun], *, title: str = "Execution paths") -> str:
    """The report as text; see :func:`write_report`."""
    from plotly.offline import get_plotlyjs  # takes a second to import

    parts = {
        "title": html.escape(title),
        "style": _page_file("style.css"),
        "plotly": get_plotlyjs(),
        "data": _embedded(report_content(runs, title)),
        "script": "\n".join(_page_file(name) for name in _SCRIPTS),
    }
    # one pass over the template alone, so that nothing inside a part is taken for a placeholder
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], _page_file("template.html"))


def _page_file(name: str) -> str:
    return (resources.files("paretopath.showing.report") / "page" / name).read_text(
        encoding="utf-8"
    )


def _embedded(content: object) -> str:
    """JSON that can stand inside a script element: no ``</script>`` or ``<!--`` can occur in it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
