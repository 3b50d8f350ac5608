// Wires the page together: controls, the theme, printing, and the pins in the address.

const BUDGET_STEPS = 200;

function renderSplit() {
  const choices = [["validation", "Validation", true], ["test", "Test", HAS_TEST]];
  byId("split").replaceChildren(...choices.map(([name, label, known]) =>
    el("button", {
      type: "button", "aria-pressed": String(STATE.split === name), disabled: !known, "data-split": name,
      title: known ? null : "no path has been evaluated on the test split yet",
      onclick: () => change({ split: name }),
    }, label)));
}

/** The costs between which the budget slides, in the stored unit. */
function budgetEnds() {
  const costs = tableRecords().map((record) => record.costs[STATE.cost]).filter((value) => value != null);
  return [Math.min(...costs), Math.max(...costs)];
}

function readBudget() {
  const step = Number(byId("budget").value);
  const [low, high] = budgetEnds();
  change({ budget: step >= BUDGET_STEPS ? null : low + (high - low) * (step / BUDGET_STEPS) });
}

let waiting = false;

/** Runs what a dragged slider asks for as often as the screen can show it. */
function oncePerFrame(action) {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; action(); });
}

function renderBudget() {
  const text = byId("budget-text");
  if (STATE.budget === null) {
    text.replaceChildren("none: every path");
    return;
  }
  const { factor, unit } = SCALES[STATE.cost];
  const amount = `≤ ${threeDigits(STATE.budget / factor)} ${unit}`.trim();
  const share = SEVERAL ? "" : ` (${percent(STATE.budget / DATA.runs[0].full.costs[STATE.cost])} of the full path)`;
  const best = SEVERAL ? null : bestWithin(DATA.runs[0]);
  text.replaceChildren(amount + share, best ? el("button.quiet", {
    type: "button", onclick: () => togglePin(best.key),
  }, `best: ${best.id}, ${accuracyText(searched(best, "validation"))} %`) : "");
}

function renderProvenance() {
  byId("provenance").replaceChildren(...DATA.runs.map((run) => el("div.run-provenance", {},
    SEVERAL ? el("h3", {}, run.name) : null,
    el("div.columns", {},
      el("pre", {}, run.recipe),
      Object.keys(run.versions).length
        ? el("dl", {}, Object.entries(run.versions).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))
        : null))));
}

function renderAll() {
  renderSummary();
  renderSplit();
  renderBudget();
  renderChart();
  renderTable();
  renderCompare();
  renderProgress();
  renderParallel();
  renderSensitivity();
  renderLeaving();
  renderPictures();
  renderProvenance();
}

/** Pins live in the address (#3f2a…,9c0b…), so that a comparison can be sent to somebody. */
function pinsFromAddress() {
  const wanted = decodeURIComponent(location.hash.slice(1)).split(",").filter(Boolean);
  return wanted.filter((key) => RECORDS.has(key)).slice(0, 2);
}

function start() {
  byId("cost").replaceChildren(...DATA.costs.map((name) => el("option", { value: name, selected: name === STATE.cost }, COST_LABELS[name])));
  byId("cost").addEventListener("change", (event) => {
    byId("budget").value = BUDGET_STEPS;
    change({ cost: event.target.value, budget: null });
  });
  byId("show-trials").addEventListener("change", (event) => change({ showTrials: event.target.checked }));
  byId("budget").addEventListener("input", () => oncePerFrame(readBudget));
  byId("unpin").addEventListener("click", () => change({ pins: [] }));
  STATE.pins = pinsFromAddress();
  renderAll();
  onChange((changed) => {
    renderChart();
    if (changed.has("split")) {
      renderSplit();
      renderLeaving();
    }
    if (changed.has("budget") || changed.has("cost")) renderBudget();
    if (changed.has("pins") || changed.has("budget") || changed.has("cost")) {
      renderTable();
      renderParallel();
    }
    if (changed.has("pins") || changed.has("cost")) renderCompare();
    if (changed.has("pins")) renderPictures();
    if (changed.has("pins")) history.replaceState(null, "", `#${STATE.pins.join(",")}`);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderAll);
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
  addEventListener("resize", renderParallel);
}

/** Paper is light and narrower than a screen: colours and widths are drawn anew for it. */
function setPrinting(printing) {
  document.documentElement.classList.toggle("printing", printing);
  renderAll();
  if (!printing) for (const plot of document.querySelectorAll(".plot")) if (plot.data) Plotly.Plots.resize(plot);
}

start();
