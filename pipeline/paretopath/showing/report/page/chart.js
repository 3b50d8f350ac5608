// The main chart: accuracy against cost. Trials in grey, the front as a stair, retrained paths as diamonds.

const MODE_SYMBOLS = { separate: "diamond", shared: "square" };
const DIFFERENCES_SHOWN = 9; // lines of a tooltip

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A #rrggbb colour, mostly transparent. */
function faint(colour) {
  return `${colour}66`;
}

function runColour(r) {
  return cssColour(SEVERAL ? `--run-${r % 6}` : "--accent");
}

function retrainedColour(r) {
  return SEVERAL ? runColour(r) : cssColour("--second");
}

const tooltipLines = new Map(); // by key: the slow part of a tooltip, which never changes

/** How a path differs from its run's full path, as lines of a tooltip. */
function tooltipDecisions(record) {
  if (!tooltipLines.has(record.key)) tooltipLines.set(record.key, differencesInWords(record).join("<br>"));
  return tooltipLines.get(record.key);
}

function differencesInWords(record) {
  if (record.isFull) return ["full path: every decision at its fullest"];
  const rows = differences(record, DATA.runs[record.run].full);
  const gone = rows.filter((row) => row.a === undefined).length;
  const kept = rows.filter((row) => row.a !== undefined);
  const lines = kept.slice(0, DIFFERENCES_SHOWN)
    .map((row) => `${plotlyText(row.name)}  <b>${plotlyText(valueText(row.a))}</b>`);
  if (kept.length > DIFFERENCES_SHOWN) lines.push(`and ${plural(kept.length - DIFFERENCES_SHOWN, "decision")} more`);
  if (gone) lines.push(`${plural(gone, "decision")} without effect`);
  return lines;
}

function tooltip(record, heading, score) {
  const run = DATA.runs[record.run];
  const name = SEVERAL ? `${plotlyText(run.name)} · ` : "";
  const saved = record.isFull ? "" : `  (${percent(savedShare(run, record))} saved)`;
  const cost = record.costs[run.cost] == null ? "" : `<br>${costText(record, run.cost)}${saved}`;
  return `${name}<b>${record.id}</b>  ${plotlyText(heading)}<br>` +
    `${accuracyText(score)} % ${plotlyText(DATA.metric)}${cost}<br><br>` +
    tooltipDecisions(record) + "<extra></extra>";
}

/** What every series shares: positions, error bars, tooltips and the keys that a click pins. */
function series(records, scoreOf, heading, marker) {
  const shown = records.filter((record) => scoreOf(record) && record.costs[STATE.cost] != null);
  const scores = shown.map(scoreOf);
  return {
    type: "scatter",
    mode: "markers",
    x: shown.map((record) => scaledCost(record, STATE.cost)),
    y: scores.map((score) => score.accuracy * 100),
    customdata: shown.map((record) => record.key),
    hovertemplate: shown.map((record, i) => tooltip(record, heading(record), scores[i])),
    marker: {
      ...marker,
      opacity: shown.map((record) => (fitsBudget(record) ? 1 : 0.25) * (marker.opacity ?? 1)),
    },
  };
}

function errorBars(records, scoreOf, colour) {
  const errors = records.filter((r) => scoreOf(r) && r.costs[STATE.cost] != null).map((r) => (scoreOf(r).error ?? 0) * 100);
  return { type: "data", array: errors, visible: errors.some((e) => e > 0), color: faint(colour), thickness: 1, width: 0 };
}

function trialSeries(run) {
  const colour = SEVERAL ? runColour(run.full.run) : cssColour("--trial");
  const trials = run.trials.filter((trial) => !trial.onFront && !trial.isFull);
  return {
    ...series(trials, (t) => searched(t, "validation"),
      (t) => (t.state === "stopped" ? `trial ${t.number}, stopped early` : `trial ${t.number}`),
      { color: colour, size: 5, opacity: 0.45, symbol: trials.map((t) => (t.state === "stopped" ? "circle-open" : "circle")) }),
    name: "all trials",
    legendgroup: "trials",
    showlegend: !SEVERAL,
  };
}

function frontSeries(run, r) {
  const scoreOf = (record) => searched(record, STATE.split);
  const colour = runColour(r);
  const made = series(run.points, scoreOf, titleOf,
    { color: colour, size: 9, line: { color: cssColour("--card"), width: 1.5 } });
  const asSearched = HAS_RETRAINED ? "front, before retraining" : "front";
  return {
    ...made,
    // a stair: up to the next path's cost, this one is the best to be had
    mode: STATE.split === "validation" && STATE.cost === run.cost ? "lines+markers" : "markers",
    line: { shape: "hv", width: 1.5, color: colour },
    error_y: errorBars(run.points, scoreOf, colour),
    name: SEVERAL ? run.name : asSearched,
    legendgroup: run.name,
  };
}

function retrainedSeries(run, r, mode) {
  const records = [...run.points, ...(run.points.some((p) => p.id === run.full.id) ? [] : [run.full])]
    .filter((record) => record.retrained[mode]);
  const scoreOf = (record) => record.retrained[mode][STATE.split];
  const colour = retrainedColour(r);
  return {
    ...series(records, scoreOf, (record) => `${titleOf(record)}, retrained (${mode})`,
      { color: colour, size: 9, symbol: MODE_SYMBOLS[mode] ?? "triangle-up", line: { color: cssColour("--card"), width: 1.5 } }),
    mode: "lines+markers",
    line: { width: 1, color: colour, dash: "dot" },
    error_y: errorBars(records, scoreOf, colour),
    name: `${SEVERAL ? `${run.name}, ` : ""}retrained (${mode})`,
    legendgroup: run.name,
  };
}

function policySeries(run, r) {
  const shown = run.policies.filter((policy) => policy.splits[STATE.split] && policy.costs[STATE.cost] != null);
  const scores = shown.map((policy) => policy.splits[STATE.split]);
  const colour = SEVERAL ? runColour(r) : cssColour("--run-1");
  return {
    type: "scatter",
    mode: "markers",
    x: shown.map((policy) => scaledCost(policy, STATE.cost)),
    y: scores.map((split) => split.accuracy * 100),
    customdata: shown.map(() => null),
    hovertemplate: shown.map((policy, i) =>
      `<b>${policy.pathId}</b>  left early, ${plotlyText(policy.confidence)}<br>${accuracyText(scores[i])} % ${plotlyText(DATA.metric)}<br>` +
      `${costText(policy, STATE.cost)}  (${percent(savedShare(run, policy))} saved)<br><br>` +
      policy.exits.map((exit, e) => `${plotlyText(exit)}  ${percent(scores[i].shares[e], 1)} leave`).join("<br>") + "<extra></extra>"),
    marker: { color: colour, size: 8, symbol: "triangle-left", line: { color: cssColour("--card"), width: 1 } },
    error_y: { type: "data", array: scores.map((split) => split.error * 100), color: faint(colour), thickness: 1, width: 0 },
    name: SEVERAL ? `${run.name}, leaving early` : "leaving early",
    legendgroup: run.name,
  };
}

function fullSeries(run, r) {
  return {
    ...series([run.full], (record) => searched(record, STATE.split), () => "full path",
      { color: SEVERAL ? runColour(r) : cssColour("--ink"), size: 12, symbol: "star", line: { color: cssColour("--card"), width: 1 } }),
    name: "full path",
    legendgroup: SEVERAL ? run.name : "full",
    showlegend: !SEVERAL,
  };
}

/**
 * Invisible dots over all of `traces`, which answer the pointer in their place. Where dots overlap plotly takes the
 * smallest and of equals the last, so that a trial would hide the front's dot that it lies under.
 */
function targetSeries(traces) {
  const all = (name) => traces.flatMap((trace) => trace[name]);
  return {
    type: "scatter",
    mode: "markers",
    x: all("x"),
    y: all("y"),
    customdata: all("customdata"),
    hovertemplate: all("hovertemplate"),
    marker: { size: 6, opacity: 0 },
    showlegend: false,
  };
}

/** Rings with letters around what is compared. */
function pinSeries() {
  const records = compared().map((record, i) => ({ record, letter: "AB"[i] }))
    .map((pin) => ({ ...pin, score: searched(pin.record, STATE.split) ?? retrained(pin.record, STATE.split) }))
    .filter(({ record, score }) => score && record.costs[STATE.cost] != null);
  return {
    type: "scatter",
    mode: "markers+text",
    x: records.map(({ record }) => scaledCost(record, STATE.cost)),
    y: records.map(({ score }) => score.accuracy * 100),
    text: records.map(({ letter }) => `<b>${letter}</b>`),
    textposition: "bottom right",
    textfont: { color: cssColour("--ink"), size: 13 },
    marker: { symbol: "circle-open", size: 18, color: cssColour("--ink"), line: { width: 1.5 } },
    hoverinfo: "skip",
    showlegend: false,
    cliponaxis: false,
  };
}

/** All accuracies (searched and retrained) of the fronts and full paths on the split that is shown. */
function shownScores() {
  return DATA.runs.flatMap((run) => [...run.points, run.full]).flatMap((record) =>
    [searched(record, STATE.split), ...Object.values(record.retrained).map((result) => result[STATE.split])])
    .filter(Boolean);
}

/**
 * The span of accuracies to draw. A few very cheap and very poor paths would press all others against the
 * top: what lies further below the median than 2.5 times the distance from it to the best is left to zooming out.
 */
function accuracyRange() {
  const scores = shownScores();
  const accuracies = scores.map(({ accuracy }) => accuracy).sort((x, y) => x - y);
  const best = accuracies[accuracies.length - 1], median = accuracies[Math.floor(accuracies.length / 2)];
  const floor = best - 3.5 * Math.max(best - median, 0.005);
  const ends = scores.filter(({ accuracy }) => accuracy >= floor)
    .flatMap(({ accuracy, error }) => [accuracy - (error ?? 0), accuracy + (error ?? 0)]);
  const low = Math.min(...ends) * 100, high = Math.max(...ends) * 100;
  const margin = Math.max((high - low) * 0.06, 0.2);
  return [low - margin, high + margin];
}

function costRange() {
  const shown = DATA.runs.flatMap((run) => [...run.points, run.full])
    .map((record) => scaledCost(record, STATE.cost)).filter((value) => value !== null);
  const low = Math.min(...shown), high = Math.max(...shown);
  return [Math.max(0, low - (high - low) * 0.06), high + (high - low) * 0.06];
}

/** Colours, fonts and, on paper, the size that every plot of the page shares with `plot`. */
function baseLayout(plot) {
  const printing = document.documentElement.classList.contains("printing");
  const axis = {
    gridcolor: cssColour("--line"), linecolor: cssColour("--line"), zeroline: false, ticks: "",
    tickfont: { color: cssColour("--muted") }, title: { font: { color: cssColour("--muted"), size: 13 }, standoff: 12 },
    automargin: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: cssColour("--ink") },
    hoverlabel: {
      bgcolor: cssColour("--card"), bordercolor: cssColour("--line-strong"), align: "left",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: cssColour("--ink") },
    },
    hovermode: "closest",
    margin: { l: 56, r: 20, t: 26, b: 48 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: cssColour("--line-strong"), activecolor: cssColour("--accent") },
    // on a screen plotly follows its box by itself, but only after the sheet would have been printed
    ...(printing ? { width: plot.clientWidth, height: plot.clientHeight } : { autosize: true }),
    xaxis: axis,
    yaxis: axis,
  };
}

const PLOT_OPTIONS = {
  displaylogo: false,
  responsive: true,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg", filename: "paretopath-front" },
};

function frontLayout() {
  const base = baseLayout(byId("front-chart"));
  const where = STATE.split === "test" ? "test, held out from the search" : "validation";
  const unit = SCALES[STATE.cost].unit;
  const layout = {
    ...base,
    xaxis: { ...base.xaxis, range: costRange(), title: { ...base.xaxis.title, text: COST_LABELS[STATE.cost] + (unit ? ` (${unit} per image)` : "") } },
    yaxis: { ...base.yaxis, range: accuracyRange(), title: { ...base.yaxis.title, text: `${plotlyText(DATA.metric)} on ${where} (%)` } },
    legend: { x: 1, y: 0.02, xanchor: "right", yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { size: 12 } },
    shapes: [],
  };
  if (STATE.budget !== null) {
    const x = STATE.budget / SCALES[STATE.cost].factor;
    layout.shapes.push(
      { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: cssColour("--muted"), width: 1, dash: "dash" } },
      { type: "rect", x0: x, x1: costRange()[1], yref: "paper", y0: 0, y1: 1, fillcolor: cssColour("--shade"), line: { width: 0 }, layer: "below" },
    );
  }
  return layout;
}

function renderChart() {
  const trials = STATE.showTrials && STATE.split === "validation" ? DATA.runs.map(trialSeries) : [];
  const found = DATA.runs.flatMap((run, r) => {
    const modes = new Set([...run.points, run.full].flatMap((point) => Object.keys(point.retrained)));
    return [frontSeries(run, r), ...[...modes].map((mode) => retrainedSeries(run, r, mode)), policySeries(run, r), fullSeries(run, r)];
  });
  const still = found.map((trace) => ({ ...trace, hovertemplate: null, hoverinfo: "skip" }));
  const traces = [...trials, ...still, targetSeries(found), pinSeries()];
  const plot = byId("front-chart");
  const first = !plot.data;
  Plotly.react(plot, traces.filter((trace) => trace.x.length), frontLayout(), PLOT_OPTIONS);
  if (first) plot.on("plotly_click", (event) => {
    const key = event.points[0]?.customdata;
    if (key) togglePin(key);
  });
  byId("chart-title").textContent = `${DATA.metric} against ${COST_LABELS[STATE.cost].toLowerCase()}`;
  byId("chart-note").textContent = chartNote();
}

function chartNote() {
  const hidden = shownScores().filter(({ accuracy }) => accuracy * 100 < accuracyRange()[0]).length;
  const below = hidden ? ` ${plural(hidden, "accuracy").replace("ys", "ies")} below the picture: double-click it to zoom out.` : "";
  return noteOfSource() + below;
}

function noteOfSource() {
  const sources = [...new Set(DATA.runs.map((run) => run.accuracySource))].join("; ");
  const errors = DATA.runs.some((run) => run.points.some((p) => p.error)) ? " Bars are one standard error." : "";
  if (STATE.split === "test") {
    return `Test accuracies of paths that were chosen on validation: the honest figures.${errors}`;
  }
  return `Accuracies ${sources}; paths are chosen by them, so they flatter a little.${errors} ` +
    "Hover for a path, click to pin it, click another to compare.";
}
