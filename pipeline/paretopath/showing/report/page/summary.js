// The head of the page: what was searched, and what came out of it in a few numbers.

const TOLERATED = 0.01; // accuracy that the headline is ready to give up: one point

/** The cheapest front point at most `lost` under the full path on validation, searched or retrained. */
function cheapestWithin(run, lost) {
  const least = run.full.accuracy - lost - 1e-9;
  const candidates = run.points.flatMap((point) => [
    { point, score: searched(point, "validation"), stage: "" },
    { point, score: retrained(point, "validation"), stage: ", retrained" },
  ]);
  return candidates
    .filter(({ score }) => score && score.accuracy >= least)
    .reduce((best, c) => (!best || c.point.costs[run.cost] < best.point.costs[run.cost] ? c : best), null);
}

function savedShare(run, point) {
  return 1 - point.costs[run.cost] / run.full.costs[run.cost];
}

function renderHead() {
  byId("title").textContent = DATA.title;
  const hardware = [...new Set(DATA.runs.map((run) => run.hardware))].join(", ");
  const parts = [DATA.metric, `costs on ${hardware}`];
  if (SEVERAL) parts.push(plural(DATA.runs.length, "run"));
  byId("subtitle").textContent = parts.join("  ·  ");
}

function tile(value, label, detail) {
  return el("div.tile", {}, el("p.value", {}, value), el("p.label", {}, label), el("p.detail", {}, detail));
}

function trialsText(run) {
  const rest = Object.entries(run.states).filter(([state]) => state !== "complete");
  return rest.length ? rest.map(([state, count]) => `${count} ${state}`).join(", ") : "all complete";
}

function spanText(run) {
  const costs = run.points.map((point) => point.costs[run.cost]);
  const factor = Math.max(...costs) / Math.min(...costs);
  return `spanning ${threeDigits(factor)}× in ${COST_LABELS[run.cost].toLowerCase()}`;
}

function savingTile(run) {
  const found = cheapestWithin(run, TOLERATED);
  const what = `${COST_LABELS[run.cost].toLowerCase()} saved within 1 point of the full path`;
  if (!found) return tile("–", what, "no path is that accurate");
  const onTest = found.stage ? retrained(found.point, "test") : searched(found.point, "test");
  const test = onTest ? `, ${accuracyText({ accuracy: onTest.accuracy })} on test` : "";
  const detail = `${found.point.id}${found.stage} · ${accuracyText(found.score)} on validation${test}`;
  return tile(percent(savedShare(run, found.point)), what, detail);
}

function renderTiles(run) {
  const all = Object.values(run.states).reduce((sum, count) => sum + count, 0);
  return [
    savingTile(run),
    tile(`${(run.full.accuracy * 100).toFixed(DIGITS)} %`, `${DATA.metric} of the full path`,
      DATA.costs.slice(0, 2).map((name) => costText(run.full, name)).join(" · ")),
    tile(String(run.points.length), "paths on the front", run.points.length ? spanText(run) : "no path fits"),
    tile(all.toLocaleString("en"), "trials", trialsText(run)),
    tile((run.hypervolume * 100).toFixed(1) + " %", "hypervolume",
      `mean best ${DATA.metric} over all budgets`),
  ];
}

function renderRunTable() {
  const head = ["Run", "Hardware", "Full path", "Saved within 1 point", "On the front", "Trials", "Hypervolume"];
  const rows = DATA.runs.map((run, r) => {
    const found = cheapestWithin(run, TOLERATED);
    const all = Object.values(run.states).reduce((sum, count) => sum + count, 0);
    return el("tr", {},
      el("th", { scope: "row" }, el("span.swatch", { style: `background: var(--run-${r % 6})` }), run.name),
      el("td", {}, run.hardware),
      el("td.num", {}, `${accuracyText(searched(run.full, "validation"))} %`),
      el("td.num", {}, found ? percent(savedShare(run, found.point)) : "–"),
      el("td.num", {}, String(run.points.length)),
      el("td.num", {}, all.toLocaleString("en")),
      el("td.num", {}, (run.hypervolume * 100).toFixed(1) + " %"));
  });
  const header = head.map((text, i) => el(i < 2 ? "th" : "th.num", { scope: "col" }, text));
  return el("div.card.scroll", {}, el("table.runs", {}, el("thead", {}, el("tr", {}, header)), el("tbody", {}, rows)));
}

function renderSummary() {
  renderHead();
  const box = byId("summary");
  box.replaceChildren(...(SEVERAL ? [renderRunTable()] : renderTiles(DATA.runs[0])));
  box.classList.toggle("several", SEVERAL);
}
