// Every path of the fronts in a table: sortable, a click pins.

let sorting = { column: 0, down: false };

function tableRecords() {
  return DATA.runs.flatMap((run) => {
    const full = RECORDS.get(run.full.key);
    return full.onFront ? run.points : [...run.points, run.full];
  });
}

/** The columns: {group, label, value (to sort by), cell (to show), text (left-aligned)}. */
function tableColumns() {
  const accuracy = (group, label, scoreOf) => ({
    group, label, value: (record) => scoreOf(record)?.accuracy ?? -1, cell: (record) => accuracyText(scoreOf(record)),
  });
  const columns = [
    { group: "", label: "Path", text: true, value: (record) => record.costs[DATA.runs[0].cost], cell: pathCell },
  ];
  if (SEVERAL) columns.push({ group: "", label: "Run", text: true, value: (record) => record.run, cell: runCell });
  const validation = "Validation (chosen on)";
  columns.push(accuracy(validation, HAS_RETRAINED ? "Searched" : DATA.metric, (r) => searched(r, "validation")));
  if (HAS_RETRAINED) columns.push(accuracy(validation, "Retrained", (r) => retrained(r, "validation")));
  if (DATA.runs.some((run) => [...run.points, run.full].some((p) => p.test))) {
    columns.push(accuracy("Test (held out)", HAS_RETRAINED ? "Searched" : DATA.metric, (r) => searched(r, "test")));
  }
  if (DATA.runs.some((run) => [...run.points, run.full].some((p) => retrained(p, "test")))) {
    columns.push(accuracy("Test (held out)", "Retrained", (r) => retrained(r, "test")));
  }
  for (const name of DATA.costs) {
    const unit = SCALES[name].unit;
    columns.push({ group: "Cost of one image", label: unit ? `${COST_LABELS[name]}, ${unit}` : COST_LABELS[name],
      value: (record) => record.costs[name] ?? -1, cell: (record) => costText(record, name, false) });
  }
  columns.push({ group: "", label: "Saved", value: (record) => savedShare(DATA.runs[record.run], record), cell: savedCell });
  return columns;
}

function pathCell(record) {
  const letter = pinLetter(record.key);
  const tag = record.isFull ? el("span.tag", {}, "full path") : record.isKnee ? el("span.tag", {}, "knee") : null;
  return el("button.path", { type: "button", "aria-pressed": String(letter !== null), "data-key": record.key, onclick: (event) => { event.stopPropagation(); togglePin(record.key); } },
    letter ? badge(letter) : el("span.badge.badge-none", {}, ""), el("code", {}, record.id), tag);
}

function runCell(record) {
  return el("span", {}, el("span.swatch", { style: `background: var(--run-${record.run % 6})` }), DATA.runs[record.run].name);
}

function savedCell(record) {
  const share = savedShare(DATA.runs[record.run], record);
  return el("span.saved", {}, el("span.saved-bar", { style: `--share: ${Math.max(0, share)}` }), percent(share));
}

function headRows(columns) {
  const groups = [];
  for (const { group } of columns) {
    const last = groups[groups.length - 1];
    if (last && last.group === group) last.span += 1;
    else groups.push({ group, span: 1 });
  }
  const sortBy = (i) => () => { sorting = { column: i, down: sorting.column === i ? !sorting.down : i !== 0 }; renderTable(); };
  const label = (column, i) => el(column.text ? "th" : "th.num",
    { scope: "col", "aria-sort": sorting.column === i ? (sorting.down ? "descending" : "ascending") : null },
    el("button.sort", { type: "button", onclick: sortBy(i) }, column.label));
  return el("thead", {},
    el("tr.groups", {}, groups.map(({ group, span }) => el(group ? "th.grouped" : "th", { colspan: span, scope: "colgroup" }, group))),
    el("tr", {}, columns.map(label)));
}

function renderTable() {
  const columns = tableColumns();
  const { column, down } = sorting;
  const records = tableRecords().sort((a, b) =>
    (columns[column].value(a) - columns[column].value(b)) * (down ? -1 : 1));
  const rows = records.map((record) => {
    const classes = ["tr", pinLetter(record.key) && "pinned", !fitsBudget(record) && "beyond"].filter(Boolean);
    return el(classes.join("."), { onclick: () => togglePin(record.key) },
      columns.map((c) => el(c.text ? "td" : "td.num", {}, c.cell(record))));
  });
  byId("points").replaceChildren(headRows(columns), el("tbody", {}, rows));
  const count = DATA.runs.reduce((sum, run) => sum + run.points.length, 0);
  byId("table-title").textContent = SEVERAL ? "Paths of the fronts" : `${plural(count, "path")} on the front`;
  byId("table-note").textContent = tableNote();
}

function tableNote() {
  const modes = [...new Set(DATA.runs.flatMap((run) => [...run.points, run.full]).flatMap((p) => Object.keys(p.retrained)))];
  const both = modes.length > 1 ? ` Retrained: the better of ${modes.join(" and ")} on validation.` : modes.length ? ` Retrained: ${modes[0]}.` : "";
  const predicted = DATA.runs.map((run) => run.accuracySource).filter((source) => !source.startsWith("measured"));
  const warning = predicted.length ? ` Accuracies are ${[...new Set(predicted)].join("; ")}, not measured.` : "";
  return `${DATA.metric} in %, ± one standard error. Saved: ${COST_LABELS[DATA.runs[0].cost].toLowerCase()} against the full path.${both}${warning}`;
}
