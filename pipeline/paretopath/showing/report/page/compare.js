// Two paths side by side: accuracies, costs, decision by decision; and where each unit's cost goes.

let showAllDecisions = false;

function badge(letter) {
  return el(`span.badge.badge-${letter.toLowerCase()}`, {}, letter);
}

function pathHead(letter, record) {
  const run = SEVERAL ? `${DATA.runs[record.run].name} · ` : "";
  return el("div.path-head", { "data-key": record.key },
    badge(letter),
    el("div", {}, el("p.path-id", {}, record.id), el("p.path-title", {}, run + titleOf(record))));
}

/** A row "label, A, B, A against B"; null where neither is known. */
function row(label, a, b, difference) {
  if (a === "–" && b === "–") return null;
  return el("tr", {}, el("th", { scope: "row" }, label),
    el("td.num", {}, a), el("td.num", {}, b), el("td.num.delta", {}, difference));
}

function accuracyRow(label, a, b) {
  const delta = a && b ? signed((a.accuracy - b.accuracy) * 100, DIGITS) : "";
  return row(label, accuracyText(a), accuracyText(b), delta);
}

function costRow(name, a, b) {
  const [first, second] = [a.costs[name], b.costs[name]];
  const known = first != null && second;
  const delta = known ? (first === second ? "same" : `${signed((first / second - 1) * 100, 0)} %`) : "";
  return row(COST_LABELS[name], costText(a, name), costText(b, name), delta);
}

function measures(a, b) {
  const rows = [
    accuracyRow(`${DATA.metric}, validation`, searched(a, "validation"), searched(b, "validation")),
    accuracyRow("after retraining", retrained(a, "validation"), retrained(b, "validation")),
    accuracyRow(`${DATA.metric}, test`, searched(a, "test"), searched(b, "test")),
    accuracyRow("after retraining", retrained(a, "test"), retrained(b, "test")),
    ...DATA.costs.map((name) => costRow(name, a, b)),
  ];
  return el("table.versus", {},
    el("thead", {}, el("tr", {}, el("th"), el("th.num", { scope: "col" }, badge("A")),
      el("th.num", { scope: "col" }, badge("B")), el("th.num", { scope: "col" }, "A vs B"))),
    el("tbody", {}, rows));
}

function decisionTable(a, b) {
  const differing = new Set(differences(a, b).map(({ name }) => name));
  const first = decisionsOf(a), second = decisionsOf(b);
  const rows = first
    .map(({ name, value }, i) => ({ name, a: value, b: second[i].value }))
    .filter(({ name, a: x, b: y }) => differing.has(name) || (showAllDecisions && (x !== undefined || y !== undefined)))
    .map(({ name, a: x, b: y }) =>
      el(differing.has(name) ? "tr.differs" : "tr", {}, el("th", { scope: "row" }, name),
        el("td.num", {}, valueText(x)), el("td.num", {}, valueText(y))));
  const heading = differing.size
    ? `${differing.size} of ${plural(first.length, "decision")} differ`
    : "The same decisions";
  const toggle = el("button.quiet", { type: "button", onclick: () => { showAllDecisions = !showAllDecisions; renderCompare(); } },
    showAllDecisions ? "only differences" : "show all");
  return el("div.decisions", {},
    el("div.sub-head", {}, el("h3", {}, heading), toggle),
    el("div.decision-scroll", { tabindex: "0" }, el("table.versus", {}, el("tbody", {}, rows))));
}

function renderCompare() {
  const [a, b] = compared();
  byId("compare").replaceChildren(
    el("div.path-heads", {}, pathHead("A", a), pathHead("B", b)),
    el("p.hint", {}, [
      "Click two points, or rows of the table, to compare them.",
      "Compared with the full path; click a second point to choose another.",
      "",
    ][STATE.pins.length]),
    measures(a, b),
    decisionTable(a, b));
  byId("unpin").hidden = STATE.pins.length === 0;
  renderUnits(a, b);
}

const UNITS_SHOWN = 14;

/** Units of A and B under one list of names, in the order of the forward pass, the least costly summed up. */
function unitRows(a, b) {
  const unitsOf = (record) => DATA.runs[record.run].units[record.id] ?? [];
  const all = unitsOf(b).map((unit) => ({ unit: unit.unit, a: 0, b: unit[STATE.cost] ?? 0 }));
  let next = 0; // where a unit that only A has belongs: behind the last one that both have
  for (const unit of unitsOf(a)) {
    const found = all.findIndex((r) => r.unit === unit.unit);
    if (found < 0) all.splice(next, 0, { unit: unit.unit, a: unit[STATE.cost] ?? 0, b: 0 });
    else all[found].a = unit[STATE.cost] ?? 0;
    next = (found < 0 ? next : found) + 1;
  }
  const least = all.map((r) => Math.max(r.a, r.b)).sort((x, y) => y - x)[UNITS_SHOWN - 1] ?? 0;
  const shown = all.length <= UNITS_SHOWN ? all : all.filter((r) => Math.max(r.a, r.b) > least);
  const rest = all.filter((r) => !shown.includes(r));
  if (rest.length) {
    const sum = (side) => rest.reduce((total, r) => total + r[side], 0);
    shown.push({ unit: plural(rest.length, "other unit"), a: sum("a"), b: sum("b") });
  }
  return shown;
}

function renderUnits(a, b) {
  const anywhere = DATA.runs.some((run) => Object.keys(run.units).length);
  byId("units-card").hidden = !anywhere;
  if (!anywhere) return;
  byId("units-title").textContent = `Where the ${COST_LABELS[STATE.cost].toLowerCase()} goes`;
  byId("units-key").replaceChildren(badge("A"), ` ${a.id}`, badge("B"), ` ${b.id}`);
  const missing = [a, b].filter((record) => !DATA.runs[record.run].units[record.id]);
  if (missing.length) {
    byId("units").replaceChildren(el("p.note", {}, `No costs by unit for ${missing.map((m) => m.id).join(" and ")}; paths of the front have them.`));
    return;
  }
  const rows = unitRows(a, b);
  const largest = Math.max(...rows.flatMap((r) => [r.a, r.b])) || 1;
  const scale = costScale(STATE.cost, largest);
  const bar = (side, value) => el("div.bar-line", {},
    value ? el(`div.bar.bar-${side}`, { style: `width: ${(value / largest) * 100}%` }) : null,
    el("span.bar-value", {}, value ? threeDigits(value / scale.factor) : "–"));
  byId("units").replaceChildren(
    el("div.unit-rows", {}, rows.map((r) => el("div.unit-row", {}, el("span.unit-name", { title: r.unit }, r.unit), el("div.bars", {}, bar("a", r.a), bar("b", r.b))))),
    el("p.note", {}, `In ${scale.unit || "units"} per image, in the order of the forward pass.`));
}
