"""The report in a real browser: what a reader sees, hovers and clicks."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from paretopath.front import Front, Point, select
from paretopath.showing.report import ReportRun, write_report
from tests.pipeline.search.example_search import example_run, with_policies

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

FRONT_POINTS = "#front-chart .scatterlayer .trace:nth-child(2) .points path"
OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def run() -> ReportRun:
    return example_run()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # a container's root may not open Chromium's sandbox
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def open_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    """Opens the report of some runs; at the end, nothing may have failed or been loaded."""
    problems: list[str] = []

    def opened(*runs: ReportRun, title: str = "Digits", address: str = "", **options: Any) -> Any:
        file = tmp_path_factory.mktemp("page") / "report.html"
        write_report(file, runs, title=title)
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **options)
        page.set_default_timeout(60_000)  # a busy machine takes its time to read 5 MB
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith("file:") else problems.append(r.url))
        page.goto(f"file://{file}{address}")
        page.wait_for_selector("#front-chart .scatterlayer")
        assert problems == []
        return page

    yield opened
    assert problems == []


@pytest.fixture(scope="module")
def opened(open_page: OpenPage, run: ReportRun) -> Any:
    """The report of one run, opened once: a page of 5 MB takes its time."""
    return open_page(run)


@pytest.fixture
def page(opened: Any) -> Any:
    """The same, with nothing pinned, no budget and validation accuracies."""
    opened.mouse.move(0, 0)
    opened.evaluate(
        "() => { unpin.click(); document.querySelector('[data-split=validation]').click();"
        " budget.value = 200; budget.dispatchEvent(new Event('input')); window.scrollTo(0, 0); }"
    )
    opened.wait_for_function("document.querySelector('#budget-text').innerText.includes('none')")
    return opened


def centre(element: Any) -> tuple[float, float]:
    box = element.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def zoom_out(page: Any) -> None:
    """Shows all of the front: its poorest paths start below the picture."""
    page.evaluate("Plotly.relayout('front-chart', {'yaxis.range': [0, 102]})")


def hover(page: Any, front: Front, index: int) -> None:
    """Points at a dot of the front and waits until the page says which one it is."""
    page.mouse.move(*centre(page.locator(FRONT_POINTS).nth(index)))
    page.wait_for_function(
        "id => document.querySelector('#front-chart .hoverlayer').textContent.includes(id)",
        arg=front.points[index].id,
    )


def click(page: Any, front: Front, index: int) -> None:
    """Clicks a dot of the front and waits until it is compared."""
    hover(page, front, index)
    page.wait_for_timeout(400)  # two clicks within 300 ms are a double click, wherever they fall
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function(
        "id => document.querySelector('#compare .path-heads').textContent.includes(id)",
        arg=front.points[index].id,
    )


def compared(page: Any) -> list[str]:
    return [head.text_content() for head in page.query_selector_all("#compare .path-id")]


def decision_rows(page: Any) -> dict[str, tuple[str, str]]:
    rows = page.query_selector_all(".decision-scroll tr")
    cells = [[cell.text_content() for cell in row.query_selector_all("th, td")] for row in rows]
    return {name: (a, b) for name, a, b in cells}


def written(value: Any) -> str:
    """A decision's value as the report writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\u2013" if value is None else f"{value:g}"


def test_opens_without_errors_and_compares_the_knee_with_the_full_path(
    page: Any, run: ReportRun
) -> None:
    assert page.title() == "Digits · paretopath"
    assert compared(page) == [select(run.front, "knee")[0].id, run.front.full.id]
    everyone = {point.id for point in (*run.front.points, run.front.full)}
    assert page.locator("#points tbody tr").count() == len(everyone)
    assert "magnet-16nm" in page.text_content("#subtitle")


def test_headline_is_the_cheapest_path_within_a_point(page: Any, run: ReportRun) -> None:
    front = run.front
    enough = [p for p in front.points if p.best_accuracy >= front.full.accuracy - 0.01]
    cheapest = min(enough, key=front.cost_of)
    tile = page.text_content("#summary .tile:first-child")
    assert f"{front.saved(cheapest) * 100:.0f} %" in tile
    assert cheapest.id in tile


def test_hover_gives_the_path(page: Any, run: ReportRun) -> None:
    zoom_out(page)
    hover(page, run.front, 2)
    third = run.front.points[2]
    text = page.text_content("#front-chart .hoverlayer")
    assert third.id in text
    assert f"({run.front.saved(third) * 100:.0f} % saved)" in text
    assert f"exit  {third.path['exit']}" in text


def test_clicks_on_the_chart_pin_and_compare(page: Any, run: ReportRun) -> None:
    points, full = run.front.points, run.front.full
    zoom_out(page)
    click(page, run.front, 1)
    assert compared(page) == [points[1].id, full.id]
    click(page, run.front, 9)
    assert compared(page) == [points[1].id, points[9].id]
    expected = {
        name: (written(points[1].path.get(name)), written(points[9].path.get(name)))
        for name in {**full.path, **points[1].path, **points[9].path}
        if points[1].path.get(name) != points[9].path.get(name)
    }
    assert decision_rows(page) == expected
    assert f"{len(expected)} of" in page.text_content(".decisions h3")
    energies = page.locator("#compare .versus").first.locator("tr", has_text="Energy")
    shown = energies.text_content()
    assert all(f"{point.energy_mj * 1e3:.2f}" in shown for point in (points[1], points[9]))

    click(page, run.front, 13)
    assert compared(page) == [points[1].id, points[13].id]
    page.click("#unpin")
    assert compared(page) == [select(run.front, "knee")[0].id, full.id]


def test_rows_pin_and_let_go(page: Any, run: ReportRun) -> None:
    row = page.locator("#points tbody tr").nth(4)
    row.click()
    assert compared(page)[0] == run.front.points[4].id
    assert (
        page.get_attribute(f"button[data-key='0/{run.front.points[4].id}']", "aria-pressed")
        == "true"
    )
    page.locator("#points tbody tr").nth(4).locator("button").press("Enter")
    assert compared(page)[0] == select(run.front, "knee")[0].id


def test_all_decisions_can_be_shown(page: Any, run: ReportRun) -> None:
    page.click(".decisions button")
    assert set(decision_rows(page)) == set(run.front.full.path)


def test_pins_stay_in_the_address(page: Any, run: ReportRun) -> None:
    for i in (3, 6):
        page.locator("#points tbody tr").nth(i).click()
    page.reload()
    page.wait_for_selector("#front-chart .scatterlayer")
    assert compared(page) == [run.front.points[3].id, run.front.points[6].id]


def test_budget_dims_what_is_beyond_and_names_the_best(page: Any, run: ReportRun) -> None:
    page.evaluate("budget.value = 60; budget.dispatchEvent(new Event('input'))")
    page.wait_for_selector("#points tr.beyond")
    low, high = run.front.cost_of(run.front.points[0]), run.front.cost_of(run.front.full)
    limit = low + (high - low) * 60 / 200
    fitting = [p for p in run.front.points if run.front.cost_of(p) <= limit]
    rows = page.locator("#points tbody tr").count()
    assert page.locator("#points tr.beyond").count() == rows - len(fitting)
    text = page.text_content("#budget-text")
    assert f"({limit / high * 100:.0f} % of the full path)" in text
    assert f"best: {fitting[-1].id}" in text


def test_test_accuracies_are_shown_apart_from_validation(page: Any, run: ReportRun) -> None:
    title = "#front-chart .ytitle"
    assert page.text_content(title) == "top-1 on validation (%)"
    assert "chosen" in page.text_content("#chart-note")
    page.click("[data-split=test]")
    page.wait_for_function(f"document.querySelector('{title}').textContent.includes('test')")
    assert page.text_content(title) == "top-1 on test, held out from the search (%)"
    heights = page.evaluate("document.querySelector('#front-chart').data[0].y")
    assert heights == pytest.approx([p.test_accuracy * 100 for p in run.front.points])


def test_without_test_accuracies_the_switch_says_why(open_page: OpenPage) -> None:
    page = open_page(example_run(retrained=False))
    assert page.is_disabled("[data-split=test]")
    assert "no path has been evaluated" in page.get_attribute("[data-split=test]", "title")


def test_retrained_paths_are_a_series_of_their_own(page: Any, run: ReportRun) -> None:
    names = page.evaluate("document.querySelector('#front-chart').data.map(t => t.name)")
    assert "retrained (shared)" in names
    shared = page.evaluate(
        "document.querySelector('#front-chart').data.find(t => t.name == 'retrained (shared)').y"
    )
    expected = [p.retrained["shared"].accuracy for p in run.front.points if p.retrained]
    assert shared == pytest.approx([100 * accuracy for accuracy in expected])


def test_table_sorts_by_any_column(page: Any, run: ReportRun) -> None:

    def order() -> list[str]:
        return [code.text_content() for code in page.query_selector_all("#points tbody code")]

    by_cost = list(dict.fromkeys(p.id for p in (*run.front.points, run.front.full)))
    assert order() == by_cost
    page.click("#points th button:text('Saved')")
    assert order() == by_cost
    page.click("#points th button:text('Saved')")
    assert order() == by_cost[::-1]


def test_costs_of_units_are_compared(page: Any, run: ReportRun) -> None:
    point = run.front.points[8]
    page.locator("#points tbody tr").nth(8).click()
    names = [n.text_content() for n in page.query_selector_all("#units .unit-name")]
    assert {u.unit for u in run.unit_costs[point.id]} <= set(names)
    assert {u.unit for u in run.unit_costs[run.front.full.id]} <= set(names)


def test_lines_of_parallel_coordinates_pin_and_filter(page: Any, run: ReportRun) -> None:
    point = run.front.points[6]
    page.locator(f"#parallel [data-key='0/{point.id}']").dispatch_event("click")
    assert compared(page)[0] == point.id
    strip = page.locator("#parallel .strip").first
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 3)
    page.mouse.up()
    fullest = [t for t in run.trials if t.state == "complete" and t.path["exit"] == 4]
    assert f"{len(fullest)} of 58 paths pass" in page.text_content("#parallel-note")
    assert page.locator("#parallel .faded").count() > 0
    page.click("#parallel-clear")
    assert "pass" not in page.text_content("#parallel-note")


def timed_only(front: Front) -> Front:
    """A front as a device leaves it that measures no energy."""

    def without_energy(point: Point) -> Point:
        return replace(point, costs={k: v for k, v in point.costs.items() if k != "energy_mj"})

    return Front.of(
        map(without_energy, front.points),
        full=without_energy(front.full),
        recipe={},
        hardware="CPU",
        metric=front.metric,
        cost="latency_ms",
    )


def test_runs_overlay_in_colours_of_their_own(open_page: OpenPage, run: ReportRun) -> None:
    other = example_run(name="simba", seed=1, scale=0.6, hardware="simba", retrained=False)
    timed = ReportRun("this CPU", timed_only(run.front))
    page = open_page(run, other, timed)
    assert page.locator("#summary tbody tr").count() == 3
    traces = page.evaluate(
        "document.querySelector('#front-chart').data.map(t => [t.name, t.line?.color, t.x.length])"
    )
    fronts = {name: (colour, count) for name, colour, count in traces}
    assert fronts["digits"][1] == len(run.front.points)
    assert fronts["simba"][1] == len(other.front.points)
    assert fronts["digits"][0] != fronts["simba"][0]
    page.click(f"button[data-key='1/{other.front.points[3].id}']")
    assert compared(page) == [other.front.points[3].id, other.front.full.id]
    assert "simba" in page.text_content("#compare .path-title")
    # a run that lacks the cost that the chart begins with comes in with one that it has
    assert "this CPU" not in fronts
    page.select_option("#cost", "latency_ms")
    page.wait_for_function("document.querySelector('#chart-title').innerText.includes('latency')")
    names = page.evaluate("document.querySelector('#front-chart').data.map(t => t.name)")
    assert {"digits", "simba", "this CPU"} <= set(names)


def test_text_of_users_stays_text(open_page: OpenPage, run: ReportRun) -> None:
    nasty = "<img src=x onerror='window.harmed=1'><b>bold</b>"
    front = replace(run.front, metric=nasty, hardware=nasty, recipe={"name": nasty})
    page = open_page(replace(run, name=nasty, front=front, versions={nasty: nasty}), title=nasty)
    zoom_out(page)
    hover(page, run.front, 2)
    assert page.text_content("h1") == nasty
    assert nasty in page.text_content("#front-chart .hoverlayer")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.harmed") is None


def test_dark_and_printed(open_page: OpenPage, run: ReportRun) -> None:
    page = open_page(run, color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(background) == "rgb(15, 17, 19)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(background) == "rgb(247, 247, 245)"
    sheet = page.locator("main").bounding_box()
    chart = page.locator("#front-chart svg").first.bounding_box()
    assert sheet["width"] <= 1039  # A4 across, less its margins
    assert chart["x"] + chart["width"] <= sheet["x"] + sheet["width"]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(background) == "rgb(15, 17, 19)"


def test_a_front_without_points_opens(open_page: OpenPage, run: ReportRun) -> None:
    page = open_page(ReportRun("empty", replace(run.front, points=())))
    assert compared(page) == [run.front.full.id] * 2
    assert page.is_hidden("#progress-card")


def test_sensitivity_says_which_decisions_to_touch_first(page: Any, run: ReportRun) -> None:
    assert run.sensitivity is not None
    best = run.sensitivity.ranked()[0]
    assert f"First to touch: {best.decision} = " in page.inner_text("#sensitivity-note")
    cells = page.evaluate(
        "document.querySelector('#sensitivity .plot').data[0].z.flat().filter((z) => z !== null)"
    )
    assert len(cells) == len(run.sensitivity.effects)


def test_without_sensitivity_there_is_no_card_for_it(open_page: OpenPage, run: ReportRun) -> None:
    page = open_page(replace(run, sensitivity=None))
    assert page.is_hidden("#sensitivity-card")
    page.close()


def test_bars_show_where_images_leave(open_page: OpenPage, run: ReportRun) -> None:
    page = open_page(with_policies(run))
    rows = page.locator("#leaving tbody tr")
    assert rows.count() == 2
    assert "margin" in rows.nth(0).inner_text() and "none leaves early" in rows.nth(1).inner_text()
    parts = rows.nth(0).locator(".leave span")
    assert [parts.nth(i).inner_text() for i in range(3)] == ["1: 70 %", "2: 30 %", ""]
    widths = [parts.nth(i).bounding_box()["width"] for i in range(2)]
    assert widths[0] / widths[1] == pytest.approx(7 / 3, rel=0.05)
    assert "leaving early" in (page.locator("#front-chart .legend").text_content() or "")


def test_without_policies_there_is_no_card_for_them(page: Any) -> None:
    assert page.locator("#leaving-card").is_hidden()
