"""Giving a report to W&B, once: a second call updates the report that the first one made."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paretopath.errors import PublishError, RunDirectoryError
from paretopath.files import write_atomically
from paretopath.showing.publish.content import PublishedSearch
from paretopath.showing.tracking.identity import FOLDER
from paretopath.showing.tracking.mode import answers, has_key

PROBE_S = 10.0  # for the server to say anything at all

_FILE = "reports.json"


@dataclass(frozen=True)
class SavedReport:
    """A report in W&B.

    Attributes:
        id: W&B's.
        url: where people read it.
        server, entity, project: where it is.
        groups: of the searches that it shows, sorted.
    """

    id: str
    url: str
    server: str
    entity: str
    project: str
    groups: tuple[str, ...]


def save_report(
    report: Any, searches: Sequence[PublishedSearch], *, new: bool = False
) -> SavedReport:
    """Creates a report, or updates the one that was made of the same searches before.

    Which that is, every run directory of them remembers.

    Args:
        report: of :func:`~paretopath.showing.publish.report.build_report`; gets its entity and id.
        searches: that it shows.
        new: makes another one in any case.

    Raises:
        PublishError: no key is configured, W&B does not answer, or it refuses the report.
        RunDirectoryError: a run directory's list of reports can't be read.
    """
    import wandb

    server = _server()
    if not has_key(server, os.environ, Path.home()):
        raise PublishError(
            f"publishing needs a key for {server}: run `wandb login`, or set WANDB_API_KEY; "
            f"--dry-run shows the report without one"
        )
    if not answers(server, timeout_s=PROBE_S):
        raise PublishError(f"W&B does not answer at {server}; the same command tries again")
    groups = tuple(sorted(search.group for search in searches))
    try:
        if not report.entity:
            report.entity = wandb.Api().default_entity or ""
        where = (server, report.entity, report.project, groups)
        known = [] if new else [one for s in searches for one in _load(s) if _where(one) == where]
        if known:
            report.id = known[-1].id
        report.save()
    except RunDirectoryError:
        raise
    except Exception as error:  # W&B's client raises whatever its transport does
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PublishError(
            f"W&B at {server} did not take the report: {reason}"
            + ("; if it was deleted there, --new makes another" if report.id else "")
        ) from error
    saved = SavedReport(report.id, report.url, server, report.entity, report.project, groups)
    for search in searches:
        _keep(search, saved)
    return saved


def _server() -> str:
    import wandb

    address: str = wandb.setup().settings.base_url
    return address


def _where(saved: SavedReport) -> tuple[str, str, str, tuple[str, ...]]:
    return saved.server, saved.entity, saved.project, saved.groups


def _file(search: PublishedSearch) -> Path:
    return search.directory / FOLDER / _FILE


def _load(search: PublishedSearch) -> list[SavedReport]:
    file = _file(search)
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return [SavedReport(**{**one, "groups": tuple(one["groups"])}) for one in found]
    except (ValueError, TypeError, KeyError) as error:
        raise RunDirectoryError(
            f"{file} must list the reports that were published, but can't be read: {error}"
        ) from error


def _keep(search: PublishedSearch, saved: SavedReport) -> None:
    others = [one for one in _load(search) if _where(one) != _where(saved)]
    content = [asdict(one) for one in (*others, saved)]
    write_atomically(_file(search), json.dumps(content, indent=1) + "\n")
