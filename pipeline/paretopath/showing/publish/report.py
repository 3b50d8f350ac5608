"""The report: sections of panels over the runs of some groups. Nothing here needs a network."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from paretopath.errors import MissingExtraError
from paretopath.showing.publish.content import PublishedSearch, require_one_place
from paretopath.showing.tracking import RunKind, axis_name

MOST_AXES = 12
"""How many decisions the parallel coordinates show."""

_MOST_TITLE = 128  # characters that W&B takes


def build_report(searches: Sequence[PublishedSearch], *, title: str | None = None) -> Any:
    """A report over some searches, as an object of wandb-workspaces that is not saved yet.

    Its run sets are one a search, by the group, so that each can be hidden or shown; they take the
    report's own project.

    Args:
        searches: of one project, metric and cost.
        title: of the report; the groups by default.

    Raises:
        InvalidValueError: the searches can't stand in one report.
        MissingExtraError: wandb-workspaces is not installed.
    """
    require_one_place(searches)
    reports = _reports()
    groups = ", ".join(search.group for search in searches)
    blocks = [*_introduction(reports, searches), *_fronts(reports, searches)]
    if any(search.retrained for search in searches):
        blocks += _retrained(reports, searches)
    if any(search.summarized for search in searches):
        blocks += _summaries(reports, searches)
    blocks += _search(reports, searches)
    return reports.Report(
        project=searches[0].project,
        entity=searches[0].entity or "",  # the library would ask W&B for the account's
        title=_shortened(title or f"Pareto fronts: {groups}"),
        description=f"Execution paths of {groups}, published by paretopath.",
        blocks=blocks,
        width="fluid",
    )


def report_spec(report: Any) -> dict[str, Any]:
    """What W&B would be given of a report, as plain data; wandb-workspaces validates it."""
    content: dict[str, Any] = report._to_model().model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    return content


def _reports() -> ModuleType:
    try:
        import wandb_workspaces.reports.v2 as reports
    except ImportError as error:
        raise MissingExtraError(
            f"publishing needs wandb-workspaces: pip install 'paretopath[publish]' ({error})"
        ) from error
    module: ModuleType = reports
    return module


def _introduction(reports: ModuleType, searches: Sequence[PublishedSearch]) -> list[Any]:
    items = [f"{search.group}: {', '.join(search.settings)}" for search in searches]
    return [reports.UnorderedList(items=items), reports.TableOfContents()]


def _fronts(reports: ModuleType, searches: Sequence[PublishedSearch]) -> list[Any]:
    """Every front as a line, told apart by search and hardware."""
    panels = [
        _lines(reports, searches),
        reports.LinePlot(
            title="Hypervolume over evaluations",
            x="trial",
            y=["hypervolume"],
            title_x="evaluations",
            layout=reports.Layout(y=12, w=12, h=8),
        ),
        reports.LinePlot(
            title="Best accuracy over evaluations",
            x="trial",
            y=["best_accuracy"],
            title_x="evaluations",
            layout=reports.Layout(x=12, y=12, w=12, h=8),
        ),
    ]
    return [
        reports.H2("Fronts by hardware"),
        reports.PanelGrid(runsets=_runsets(reports, searches, "search"), panels=panels),
    ]


def _retrained(reports: ModuleType, searches: Sequence[PublishedSearch]) -> list[Any]:
    """All retrained paths."""
    cost = reports.SummaryMetric(searches[0].cost)
    after = reports.SummaryMetric("accuracy_after")
    before = reports.SummaryMetric("accuracy_before")
    decisions = list(dict.fromkeys(name for search in searches for name in search.decisions))
    column = reports.ParallelCoordinatesPlotColumn
    axes = [
        column(metric=reports.Config(f"decisions.{axis_name(name)}"), display_name=name)
        for name in decisions[:MOST_AXES]
    ]
    axes += [column(metric=cost), column(metric=before), column(metric=after)]
    panels = [
        reports.ScatterPlot(
            title=f"{searches[0].metric} after retraining",
            x=cost,
            y=after,
            layout=reports.Layout(w=12, h=10),
        ),
        reports.ScatterPlot(
            title=f"{searches[0].metric} before",
            x=cost,
            y=before,
            layout=reports.Layout(x=12, w=12, h=10),
        ),
        reports.ParallelCoordinatesPlot(
            title="Decisions of the retrained paths",
            columns=axes,
            layout=reports.Layout(y=10, w=24, h=10),
        ),
        reports.LinePlot(
            title="Validation accuracy while retraining",
            x="epoch",
            y=["validation_accuracy"],
            layout=reports.Layout(y=20, w=24, h=8),
        ),
    ]
    return [
        reports.H2("Retrained paths"),
        reports.PanelGrid(runsets=_runsets(reports, searches, "retrain"), panels=panels),
    ]


def _summaries(reports: ModuleType, searches: Sequence[PublishedSearch]) -> list[Any]:
    """What came of each search's front."""
    panels = [
        _lines(reports, searches),
        _media(reports, "outcome_figure", "Before and after, with what was measured", y=12),
        reports.WeavePanelSummaryTable(table_name="paths", layout=reports.Layout(y=24, w=24, h=12)),
    ]
    return [
        reports.H2("Before and after"),
        reports.PanelGrid(runsets=_runsets(reports, searches, "summary"), panels=panels),
    ]


def _search(reports: ModuleType, searches: Sequence[PublishedSearch]) -> list[Any]:
    """What a search saw: trials, costs, sensitivity."""
    figures = {
        "front_figure": "Trials and front",
        "trials_figure": "Every trial with its decisions",
        "unit_costs_figure": "Costs of the selected paths by unit",
        "kind_costs_figure": "Costs of the selected paths by kind of operator",
    }
    if any(search.sensitivity for search in searches):
        figures["sensitivity_figure"] = "Sensitivity: each decision alone"
    panels = [
        _media(reports, key, title, y=12 * i) for i, (key, title) in enumerate(figures.items())
    ]
    panels += [
        reports.WeavePanelSummaryTable(
            table_name="trials", layout=reports.Layout(y=12 * len(figures), w=24, h=12)
        )
    ]
    return [
        reports.H2("Searches"),
        reports.PanelGrid(runsets=_runsets(reports, searches, "search"), panels=panels),
    ]


def _lines(reports: ModuleType, searches: Sequence[PublishedSearch]) -> Any:
    """The lines of all fronts in one chart: W&B joins the tables of the runs."""
    cost = searches[0].cost
    return reports.CustomChart(
        query={"summaryTable": {"tableKey": "front_chart_table"}},
        chart_name="wandb/line/v0",
        chart_fields={"x": cost, "y": "accuracy", "stroke": "line"},
        chart_strings={"title": f"{searches[0].metric} over {cost}, by search and hardware"},
        layout=reports.Layout(w=24, h=12),
    )


def _media(reports: ModuleType, key: str, title: str, *, y: int) -> Any:
    """A panel that shows a figure of each run."""
    return reports.MediaBrowser(
        title=title, media_keys=[key], num_columns=1, layout=reports.Layout(y=y, w=24, h=12)
    )


def _runsets(reports: ModuleType, searches: Sequence[PublishedSearch], kind: RunKind) -> list[Any]:
    """One set a search: the runs of its group that are of one kind."""
    return [
        reports.Runset(
            name=search.group,
            filters=(
                f"Metric('Group') == {_literal(search.group)} and Metric('JobType') == {kind!r}"
            ),
        )
        for search in searches
    ]


def _literal(text: str) -> str:
    """A text in a filter: the library rewrites operators wherever they stand, then parses Python,
    and its own expression objects do not quote at all.
    """
    return repr(text).replace("=", r"\x3d").replace("<", r"\x3c").replace(">", r"\x3e")


def _shortened(title: str) -> str:
    return title if len(title) <= _MOST_TITLE else title[: _MOST_TITLE - 1] + "…"
