// Parallel coordinates: every trial a line through its decisions, its cost and its accuracy.
// Drawn as SVG rather than with plotly's own, which needs WebGL and prints as a blurred picture.

const PARALLEL = { height: 330, top: 74, bottom: 22, side: 46, gap: 78, lines: 600, spread: 9 };
const FILTERS = new Map(); // axis name -> [low, high] in pixels

/** The records that are drawn: the fronts, and trials evenly thinned. */
function parallelRecords() {
  const front = DATA.runs.flatMap((run) => run.points);
  const trials = DATA.runs.flatMap((run) => run.trials).filter((t) => !t.onFront && t.state === "complete");
  const step = Math.max(1, Math.ceil(trials.length / PARALLEL.lines));
  return [...trials.filter((_, i) => i % step === 0), ...front];
}

/** The share of the variance of `values` between the groups that `keys` make (the correlation ratio eta squared). */
function explained(keys, values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const total = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  const groups = new Map();
  values.forEach((value, i) => {
    const group = groups.get(keys[i]) ?? { sum: 0, count: 0 };
    groups.set(keys[i], { sum: group.sum + value, count: group.count + 1 });
  });
  let between = 0;
  for (const { sum, count } of groups.values()) between += count * (sum / count - mean) ** 2;
  return total > 0 ? between / total : 0;
}

/** Indices of the decisions to draw: those that vary, cut down to the ones that say most. */
function chosenDecisions(records, room) {
  const varying = DATA.decisions.map((_, i) => i)
    .filter((i) => new Set(records.map((record) => record.path[i])).size > 1);
  if (byId("parallel-all").checked || varying.length <= room) return { chosen: varying, varying };
  const accuracy = records.map((record) => record.accuracy);
  const cost = records.map((record) => Math.log(record.costs[STATE.cost] || 1e-12));
  const weight = new Map(varying.map((i) => {
    const keys = records.map((record) => record.path[i]);
    return [i, explained(keys, accuracy) + explained(keys, cost)];
  }));
  const best = [...varying].sort((i, j) => weight.get(j) - weight.get(i)).slice(0, room);
  return { chosen: best.sort((i, j) => i - j), varying };
}

function decisionAxis(i, records) {
  const { name, values } = DATA.decisions[i];
  const absent = records.some((record) => record.path[i] < 0);
  const places = absent ? values.length + 1 : values.length;
  const y = (index) => place(places === 1 ? 0.5 : (index + (absent ? 1 : 0)) / (places - 1));
  const ticks = values.map((value, index) => ({ y: y(index), text: valueText(value) }));
  if (absent) ticks.unshift({ y: y(-1), text: "–" });
  return { name, ticks, discrete: true, y: (record) => y(record.path[i]) };
}

function numberAxis(name, records, valueOf, text) {
  const known = records.map(valueOf).filter((value) => value != null);
  const low = Math.min(...known), high = Math.max(...known);
  const y = (value) => place(high > low ? (value - low) / (high - low) : 0.5);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => ({ y: place(share), text: text(low + share * (high - low)) }));
  return { name, ticks, discrete: false, y: (record) => y(valueOf(record) ?? low) };
}

/** From a share of the axis (0 at its foot) to pixels. */
function place(share) {
  const span = PARALLEL.height - PARALLEL.top - PARALLEL.bottom;
  return PARALLEL.height - PARALLEL.bottom - share * span;
}

function parallelAxes(records, decisions) {
  const { factor, unit } = SCALES[STATE.cost];
  const costName = unit ? `${COST_LABELS[STATE.cost]}, ${unit}` : COST_LABELS[STATE.cost];
  return [
    ...decisions.map((i) => decisionAxis(i, records)),
    numberAxis(costName, records, (r) => r.costs[STATE.cost], (value) => threeDigits(value / factor)),
    numberAxis(`${DATA.metric}, %`, records, (r) => r.accuracy, (value) => (value * 100).toFixed(1)),
  ];
}

/** Where a record's line stands at an axis. Lines of one value are fanned out by accuracy, best on top. */
function lineHeights(record, axes, best, worst) {
  const standing = best > worst ? (record.accuracy - worst) / (best - worst) - 0.5 : 0;
  return axes.map((axis) => axis.y(record) - (axis.discrete ? standing * 2 * PARALLEL.spread : 0));
}

function passes(heights, axes) {
  return axes.every((axis, i) => {
    const range = FILTERS.get(axis.name);
    return !range || (heights[i] >= range[0] && heights[i] <= range[1]);
  });
}

function lineClass(record, passing) {
  const letter = pinLetter(record.key);
  if (letter) return "line pinned";
  if (!passing || !fitsBudget(record)) return "line faded";
  return record.onFront ? "line front" : "line";
}

/** An axis with its name, ticks and the strip that a reader drags over to filter. */
function drawAxis(axis, x) {
  const range = FILTERS.get(axis.name);
  const strip = svg("rect", {
    class: "strip", x: x - 12, y: PARALLEL.top - 14, width: 24, height: PARALLEL.height - PARALLEL.top - PARALLEL.bottom + 28,
  });
  strip.addEventListener("pointerdown", (event) => startFilter(event, strip, axis));
  return svg("g", { class: "axis" },
    svg("line", { x1: x, x2: x, y1: place(0), y2: place(1) }),
    svg("text", { class: "axis-name", transform: `translate(${x - 2}, ${PARALLEL.top - 20}) rotate(-24)` },
      svg("title", {}, axis.name), shortName(axis.name)),
    axis.ticks.map((tick) => svg("text", { class: "tick", x: x - 7, y: tick.y + 4 }, tick.text)),
    range ? svg("rect", { class: "filter", x: x - 5, y: range[0], width: 10, height: range[1] - range[0] }) : null,
    strip);
}

function shortName(name) {
  return name.length <= 21 ? name : `…${name.slice(-20)}`;
}

function startFilter(event, strip, axis) {
  const box = strip.ownerSVGElement.getBoundingClientRect();
  const from = event.clientY - box.top;
  strip.setPointerCapture(event.pointerId);
  const finish = (end) => {
    const to = end.clientY - box.top;
    if (Math.abs(to - from) < 4) FILTERS.delete(axis.name);
    else FILTERS.set(axis.name, [Math.min(from, to), Math.max(from, to)]);
    renderParallel();
  };
  strip.addEventListener("pointerup", finish, { once: true });
}

function renderParallel() {
  const records = parallelRecords().filter((record) => record.accuracy != null);
  const box = byId("parallel");
  byId("parallel-card").hidden = records.length < 2;
  if (records.length < 2) return;
  const available = box.parentElement.clientWidth;
  const room = Math.max(3, Math.floor((available - 2 * PARALLEL.side) / PARALLEL.gap) - 1);
  const { chosen, varying } = chosenDecisions(records, room);
  const axes = parallelAxes(records, chosen);
  const width = Math.max(available, (axes.length - 1) * PARALLEL.gap + 2 * PARALLEL.side);
  const x = (i) => PARALLEL.side + (i * (width - 2 * PARALLEL.side)) / Math.max(1, axes.length - 1);
  const accuracies = records.map((record) => record.accuracy);
  const best = Math.max(...accuracies), worst = Math.min(...accuracies);
  let passing = 0;
  const rank = { "line faded": 0, line: 1, "line front": 2, "line pinned": 3 };
  const lines = records.map((record) => {
    const heights = lineHeights(record, axes, best, worst);
    const through = passes(heights, axes);
    passing += through;
    const shape = lineClass(record, through);
    const points = heights.map((y, i) => `${x(i).toFixed(1)},${y.toFixed(1)}`).join(" ");
    const style = shape === "line front" ? `stroke: ${runColour(record.run)}` : null;
    const line = svg("polyline", { class: shape, style, points, "data-key": record.key, onclick: () => togglePin(record.key) },
      svg("title", {}, `${record.id} · ${titleOf(record)}\n${accuracyText(searched(record, "validation"))} % · ${costText(record, STATE.cost)}`));
    return { line, rank: rank[shape] };
  });
  lines.sort((a, b) => a.rank - b.rank);
  box.replaceChildren(svg("svg", { class: "parallel", width, height: PARALLEL.height },
    lines.map(({ line }) => line), axes.map((axis, i) => drawAxis(axis, x(i)))));
  byId("parallel-all-field").hidden = varying.length <= room;
  byId("parallel-clear").hidden = FILTERS.size === 0;
  byId("parallel-clear").onclick = () => { FILTERS.clear(); renderParallel(); };
  byId("parallel-note").textContent = parallelNote(chosen, varying, passing, records);
}

function parallelNote(chosen, varying, passing, records) {
  const which = chosen.length < varying.length
    ? `The ${chosen.length} of ${varying.length} decisions that explain most of the spread in accuracy and ${COST_LABELS[STATE.cost].toLowerCase()}. `
    : "";
  const filtered = FILTERS.size ? `${passing} of ${plural(records.length, "path")} pass the filters. ` : "";
  return `${which}${filtered}In colour: the front. A dash: the decision has no effect on that path. Drag along an axis to filter, click a line to pin it.`;
}
