// Sensitivity: what each decision alone loses for what it saves, as a heat map of parts and changes.

const SENSITIVITY = { row: 26, top: 92, bottom: 16, columnText: 11 };

/** Points of accuracy lost for each per cent that is saved; null where nothing is saved. */
function priceOf(cell) {
  return cell.saved > 0 ? cell.lost / cell.saved : null;
}

/** Columns in the order in which things stand in the model, the gentlest change of each first. */
function sensitivityColumns(cells) {
  const kinds = [...new Set(cells.map((cell) => cell.what))];
  return kinds.flatMap((what) => {
    const values = [...new Set(cells.filter((cell) => cell.what === what).map((cell) => cell.value))];
    const known = values.every((value) => typeof value === "number");
    return (known ? values.sort((a, b) => b - a) : values).map((value) => ({ what, value }));
  });
}

function columnText({ what, value }) {
  return value === false ? `no ${what}` : value === true ? what : `${what} ${valueText(value)}`;
}

/** The largest price that the colours tell apart: one outlier must not make all others look alike. */
function colourLimit(prices) {
  const sizes = prices.map(Math.abs).sort((a, b) => a - b);
  return Math.max(sizes[Math.floor((sizes.length - 1) * 0.9)] ?? 0, 1e-6);
}

function sensitivityHover(cell, cost) {
  const lost = `${signed(cell.lost * 100, 2)} ± ${(cell.error * 100).toFixed(2)} points of ${plotlyText(DATA.metric)} lost`;
  const price = priceOf(cell);
  const rate = price === null ? "saves nothing" : `${signed(price, 3)} points for each per cent`;
  return `<b>${plotlyText(cell.decision)}</b>  ${plotlyText(valueText(cell.value))}<br>${lost}<br>` +
    `${percent(cell.saved, 2)} of ${COST_LABELS[cost].toLowerCase()} saved<br>${rate}`;
}

function drawSensitivity(plot, { cells, cost }) {
  const rows = [...new Set(cells.map((cell) => cell.row))];
  const columns = sensitivityColumns(cells);
  const names = columns.map(columnText);
  const at = new Map(cells.map((cell) => [`${cell.row}\n${columnText(cell)}`, cell]));
  const grid = rows.map((row) => names.map((name) => at.get(`${row}\n${name}`) ?? null));
  const limit = colourLimit(cells.map(priceOf).filter((price) => price !== null));
  const height = SENSITIVITY.top + SENSITIVITY.bottom + rows.length * SENSITIVITY.row;
  plot.style.height = `${height}px`;
  const base = baseLayout(plot);
  Plotly.react(plot, [{
    type: "heatmap",
    x: names,
    y: rows,
    z: grid.map((line) => line.map((cell) => cell && priceOf(cell))),
    text: grid.map((line) => line.map((cell) => (cell ? signed(cell.lost * 100, 1) : ""))),
    texttemplate: "%{text}",
    textfont: { size: SENSITIVITY.columnText },
    customdata: grid.map((line) => line.map((cell) => (cell ? sensitivityHover(cell, cost) : ""))),
    hovertemplate: "%{customdata}<extra></extra>",
    hoverongaps: false,
    zmin: -limit, zmax: limit, zmid: 0,
    xgap: 2, ygap: 2,
    // green gains or loses little, red is dear; pale in between on either theme
    colorscale: [[0, cssColour("--second")], [0.5, cssColour("--line")], [1, cssColour("--run-1")]],
    colorbar: {
      title: { text: "points lost per<br>1 % saved", font: { size: 11, color: cssColour("--muted") } },
      thickness: 10, len: 1, outlinewidth: 0, tickfont: { size: 11, color: cssColour("--muted") },
    },
  }], {
    ...base,
    height,
    hovermode: "closest",
    margin: { l: 56, r: 20, t: SENSITIVITY.top, b: SENSITIVITY.bottom },
    xaxis: { ...base.xaxis, side: "top", tickangle: -40, showgrid: false, type: "category", fixedrange: true },
    yaxis: { ...base.yaxis, autorange: "reversed", showgrid: false, type: "category", fixedrange: true },
  }, { ...PLOT_OPTIONS, displayModeBar: false });
}

function firstToTouch({ cells }) {
  const saving = cells.filter((cell) => cell.saved > 0.001).sort((a, b) => priceOf(a) - priceOf(b));
  return saving.slice(0, 3).map((cell) => `${cell.decision} = ${valueText(cell.value)} (${percent(cell.saved, 1)} saved)`);
}

function renderSensitivity() {
  const runs = DATA.runs.filter((run) => run.sensitivity && run.sensitivity.cells.length);
  byId("sensitivity-card").hidden = runs.length === 0;
  if (!runs.length) return;
  const box = byId("sensitivity");
  if (box.childElementCount === 0) {
    box.replaceChildren(...runs.map(() => el("div.plot.sensitivity", { role: "img", "aria-label": "Accuracy lost by each decision alone" })));
  }
  runs.forEach((run, i) => drawSensitivity(box.children[i], run.sensitivity));
  const first = firstToTouch(runs[0].sensitivity);
  byId("sensitivity-note").textContent =
    `Each cell changes one decision of the full path and nothing else: points of ${DATA.metric} lost, coloured by what each per cent ` +
    `saved costs.` + (first.length ? ` First to touch: ${first.join("; ")}.` : "");
}
