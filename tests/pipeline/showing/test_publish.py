"""The report that `paretopath publish` builds, without a network, and gives to a local server."""

import builtins
import http.server
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretopath.cli.app import main
from paretopath.errors import InvalidValueError, MissingExtraError, PublishError, RunDirectoryError
from paretopath.run import Run
from paretopath.showing.publish import (
    PublishedSearch,
    build_report,
    published_search,
    report_spec,
    save_report,
)

SEARCH = PublishedSearch(
    directory=Path("runs/magnet"),
    group="magnet",
    project="paretopath",
    entity="lab",
    hardware="magnet-16nm",
    metric="top-1",
    cost="energy_mj",
    settings=("magnet-16nm", "200 trials, seed 0"),
    decisions=("blocks.0.heads", "exit"),
    retrained=True,
    summarized=True,
    sensitivity=True,
)


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no login and no variables of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def grids(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Panel grids by the heading above each."""
    found, heading = {}, ""
    for block in spec["spec"]["blocks"]:
        if block["type"] == "heading":
            heading = "".join(child.get("text", "") for child in block["children"])
        elif block["type"] == "panel-grid":
            found[heading] = block["metadata"]
    return found


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("wandb_workspaces"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'paretopath\[publish\]'"):
        build_report([SEARCH])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "must have distinct groups, but got magnet, magnet"),
        ({"group": "b", "project": "other"}, "must share one project, but have other, paretopath"),
        ({"group": "b", "metric": "mIoU"}, "must share one metric, but have mIoU, top-1"),
        ({"group": "b", "cost": "macs"}, "must share one cost, but have energy_mj, macs"),
    ],
)
def test_searches_that_cannot_share_a_report_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        build_report([SEARCH, replace(SEARCH, **changes)])


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one run directory"):
        build_report([])


def test_a_run_without_a_front_cannot_be_published(tiny_recipe: Path, tmp_path: Path) -> None:
    from paretopath.recipe import load_recipe

    run = Run.start(tmp_path / "run", load_recipe(tiny_recipe), device="cpu")
    with pytest.raises(RunDirectoryError, match=r"front\.json"):
        published_search(run)


class TestReport:
    """Its object, as wandb-workspaces has it."""

    @pytest.fixture(autouse=True)
    def library(self) -> None:
        pytest.importorskip("wandb_workspaces")

    def test_it_has_a_section_for_each_question(self) -> None:
        found = grids(report_spec(build_report([SEARCH])))
        kinds = {
            heading: [panel["viewType"] for panel in grid["panelBankSectionConfig"]["panels"]]
            for heading, grid in found.items()
        }
        assert set(kinds) == {
            "Fronts by hardware",
            "Retrained paths",
            "Before and after",
            "Searches",
        }
        lines = "Run History Line Plot"
        assert kinds["Fronts by hardware"] == ["Vega2", lines, lines]
        scatter = "Scatter Plot"
        assert kinds["Retrained paths"] == [scatter, scatter, "Parallel Coordinates Plot", lines]
        assert kinds["Before and after"] == ["Vega2", "Media Browser", "Weave"]
        assert "Weave" in kinds["Searches"]

    def test_what_was_not_done_has_no_panel(self) -> None:
        bare = replace(SEARCH, retrained=False, summarized=False, sensitivity=False)
        spec = report_spec(build_report([bare]))
        assert set(grids(spec)) == {"Fronts by hardware", "Searches"}
        assert "sensitivity" not in json.dumps(spec)

    def test_it_fits_the_schema_of_the_library(self) -> None:
        from wandb_workspaces.reports.v2 import internal

        spec = json.loads(json.dumps(report_spec(build_report([SEARCH])), allow_nan=False))
        model = internal.ReportViewspec.model_validate(spec)

        def without_comments(fields: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in fields.items() if name != "inlineComments"}

        text = model.model_dump_json(by_alias=True, exclude_none=True)
        assert json.loads(text, object_hook=without_comments) == spec
        assert not any("Unknown" in type(block).__name__ for block in model.spec.blocks)

    @pytest.mark.parametrize("group", ["magnet", 'it\'s "one"', "e<=70%, a=b", "back\\slash"])
    def test_each_search_is_a_run_set_of_its_group(self, group: str) -> None:
        other = replace(SEARCH, group="eyeriss", hardware="eyeriss-65nm")
        found = grids(report_spec(build_report([replace(SEARCH, group=group), other])))
        kinds = ("search", "retrain", "summary", "search")
        for kind, grid in zip(kinds, found.values(), strict=True):
            assert [runset["name"] for runset in grid["runSets"]] == [group, "eyeriss"]
            for runset in grid["runSets"]:
                wanted = {
                    leaf["key"]["name"]: leaf["value"] for leaf in runset["filters"]["filters"]
                }
                assert wanted == {"group": runset["name"], "jobType": kind}

    def test_decisions_of_all_searches_are_axes(self) -> None:
        other = replace(SEARCH, group="other", decisions=("exit", "blocks.1.run"))
        (plot,) = [
            panel
            for panel in grids(report_spec(build_report([SEARCH, other])))["Retrained paths"][
                "panelBankSectionConfig"
            ]["panels"]
            if panel["viewType"] == "Parallel Coordinates Plot"
        ]
        assert [column["accessor"] for column in plot["config"]["columns"]] == [
            "config:decisions.value.blocks/0/heads",
            "config:decisions.value.exit",
            "config:decisions.value.blocks/1/run",
            "summary:energy_mj",
            "summary:accuracy_before",
            "summary:accuracy_after",
        ]

    def test_a_title_may_be_given_and_is_never_too_long(self) -> None:
        assert report_spec(build_report([SEARCH], title="Ours"))["displayName"] == "Ours"
        many = [replace(SEARCH, group=f"a search on hardware {i}") for i in range(20)]
        assert len(report_spec(build_report(many))["displayName"]) == 128

    def test_a_real_run_says_what_tells_it_from_others(self, searched: Path) -> None:
        found = published_search(Run.open(searched, device="cpu"))
        assert found.group == searched.name
        assert found.settings == (found.hardware, "24 trials, seed 0")
        assert not found.retrained
        assert "exit" in found.decisions

    @pytest.mark.usefixtures("no_account")
    def test_without_a_key_it_is_refused_in_one_sentence(self) -> None:
        with pytest.raises(PublishError, match=r"needs a key for https://.*: run `wandb login`"):
            save_report(build_report([SEARCH]), [SEARCH])


class Server:
    """What `publish` asks of W&B, answered on this machine; keeps what it was told."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []
        self.refuses = False
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                asked = json.loads(body) if self.path == "/graphql" else None
                # the rest is what W&B's client tells about itself
                code, content = server.answer(asked) if asked else (404, {})
                data = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """To a query of GraphQL."""
        query, values = asked["query"], asked.get("variables") or {}
        if "upsertView" in query:
            if self.refuses:
                return 200, {"errors": [{"message": "permission denied"}], "data": None}
            self.saved.append(values)
            view = {
                "id": values.get("id") or f"VmlldzoxMjM{len(self.saved)}",
                "type": "runs",
                "name": values["name"],
                "displayName": values["displayName"],
                "description": values["description"],
                "project": {"id": "1", "name": values["projectName"], "entityName": "lab"},
                "spec": values["spec"],
                "updatedAt": None,
            }
            return 200, {"data": {"upsertView": {"view": view, "inserted": True}}}
        if "models(" in query:  # the projects of an entity
            node = {
                "id": "1",
                "name": "paretopath",
                "entityName": "lab",
                "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False,
                "user": None,
            }
            page = {
                "edges": [{"node": node, "cursor": ""}],
                "pageInfo": {"endCursor": None, "hasNextPage": False},
            }
            return 200, {"data": {"models": page}}
        viewer = {"id": "1", "entity": "lab", "username": "lab", "flags": "{}", "teams": None}
        return 200, {"data": {"viewer": viewer, "serverInfo": None, "__typename": "Query"}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(no_account: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("wandb_workspaces")
    import wandb

    made = Server()
    monkeypatch.setenv("WANDB_BASE_URL", made.address)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.teardown()  # it keeps the settings of its first use
    yield made
    wandb.teardown()
    made.close()


def test_a_second_call_updates_the_report_of_the_first(server: Server, tmp_path: Path) -> None:
    first = replace(SEARCH, directory=tmp_path / "a")
    other = replace(SEARCH, directory=tmp_path / "b", group="other")
    saved = save_report(build_report([first, other]), [first, other])
    assert saved.url.endswith(f"--{saved.id}")
    again = save_report(build_report([other, first]), [other, first])
    assert again.id == saved.id
    assert [values["id"] for values in server.saved] == [None, saved.id]
    spec = json.loads(server.saved[0]["spec"])
    assert [block["type"] for block in spec["blocks"]].count("panel-grid") == 4
    # other searches, or --new, are another report
    alone = save_report(build_report([first]), [first])
    assert alone.id != saved.id
    assert save_report(build_report([first]), [first], new=True).id != alone.id
    assert [values["id"] for values in server.saved[2:]] == [None, None]

    server.refuses = True
    with pytest.raises(PublishError, match=r"did not take the report: .*--new makes another"):
        save_report(build_report([first]), [first])


def test_a_server_that_is_not_there_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.close()
    with pytest.raises(PublishError, match=f"W&B does not answer at {server.address}"):
        save_report(build_report([SEARCH]), [SEARCH])
    assert server.saved == []


def test_offline_runs_that_were_not_uploaded_are_named(
    searched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("wandb_workspaces")
    directory = tmp_path / "run"
    shutil.copytree(searched, directory)
    folder = directory / "wandb" / "offline-run-20261121_143811-osuwsaifze"
    folder.mkdir(parents=True)
    (folder / "run-osuwsaifze.wandb").touch()
    monkeypatch.setattr(sys, "argv", ["paretopath", "publish", str(directory), "--dry-run"])

    def publish() -> str:
        with pytest.raises(SystemExit, match="0"):
            main()
        out, err = capsys.readouterr()
        assert json.loads(out)["displayName"] == "Pareto fronts: run"
        return err

    assert f"wandb sync {directory}/wandb/offline-run-*" in publish()
    (folder / "run-osuwsaifze.wandb.synced").touch()  # as `wandb sync` does
    assert "wandb sync" not in publish()
