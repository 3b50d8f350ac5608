// Hypervolume over trials.

/** From what a twentieth of the trials had reached, so that the first leap does not flatten the rest. */
function volumeRange(runs) {
  const early = runs.map(({ run: { history } }) => {
    const from = history.trials.findIndex((number) => number >= history.trials[history.trials.length - 1] / 20);
    return history.hypervolume[Math.max(0, from - 1)] * 100;
  });
  const low = Math.min(...early);
  const high = Math.max(...runs.map(({ run }) => Math.max(...run.history.hypervolume))) * 100;
  const margin = Math.max((high - low) * 0.08, 0.1);
  return [Math.max(0, low - margin), high + margin];
}

function renderProgress() {
  const runs = DATA.runs.map((run, r) => ({ run, r })).filter(({ run }) => run.history.trials.length);
  byId("progress-card").hidden = runs.length === 0;
  if (!runs.length) return;
  const traces = runs.map(({ run, r }) => ({
    type: "scatter",
    mode: "lines",
    x: run.history.trials.map((number) => number + 1),
    y: run.history.hypervolume.map((share) => share * 100),
    line: { shape: "hv", width: 2, color: runColour(r) },
    name: run.name,
    hovertemplate: "after %{x} trials: %{y:.2f} %<extra></extra>",
    showlegend: SEVERAL,
  }));
  const base = baseLayout(byId("progress-chart"));
  const last = Math.max(...runs.map(({ run }) => run.history.trials[run.history.trials.length - 1])) + 1;
  Plotly.react(byId("progress-chart"), traces, {
    ...base,
    hovermode: "x",
    margin: { ...base.margin, t: 8 },
    xaxis: { ...base.xaxis, title: { ...base.xaxis.title, text: "trials" }, range: [0, last] },
    yaxis: { ...base.yaxis, title: { ...base.yaxis.title, text: "hypervolume (%)" }, range: volumeRange(runs) },
    legend: { x: 1, y: 0.02, xanchor: "right", yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
  }, { ...PLOT_OPTIONS, displayModeBar: false });
  byId("progress-note").textContent =
    `Hypervolume: the best ${DATA.metric} to be had, averaged over all budgets from zero to the full path's cost.`;
}
