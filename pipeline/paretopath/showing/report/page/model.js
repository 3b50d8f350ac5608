// The report's data, ready to use, and the few things that a reader can change.

const DATA = JSON.parse(byId("data").textContent);
const COST_LABELS = DATA.costTitles;
// from the stored unit: the largest scale that keeps the reference at 1 or more
const COST_SCALES = DATA.costScales;
const SEVERAL = DATA.runs.length > 1;

/** All records by "run/id"; a front's record before a trial's of the same path. */
const RECORDS = new Map();
DATA.runs.forEach((run, r) => {
  const onFront = new Set(run.points.map((point) => point.id));
  for (const record of [...run.points, run.full, ...run.trials]) {
    record.key = `${r}/${record.id}`;
    record.run = r;
    record.onFront = onFront.has(record.id);
    record.isFull = record.id === run.full.id;
    record.isKnee = record.id === run.knee;
    if (!RECORDS.has(record.key)) RECORDS.set(record.key, record);
  }
});

const STATE = {
  split: "validation", // or "test": which accuracies the chart shows
  cost: DATA.runs[0].cost,
  budget: null, // in the unit of the cost as stored; null: none
  showTrials: true,
  pins: [], // keys of at most two records
};
const LISTENERS = [];

/** Calls `listener(changed)` after each change, `changed` being the set of names that changed. */
function onChange(listener) {
  LISTENERS.push(listener);
}

function change(values) {
  const changed = new Set(Object.keys(values));
  Object.assign(STATE, values);
  for (const listener of LISTENERS) listener(changed);
}

/** Pins a path, or lets go of one that is pinned; a third one takes the place of the second. */
function togglePin(key) {
  const held = STATE.pins;
  if (held.includes(key)) change({ pins: held.filter((other) => other !== key) });
  else change({ pins: held.length < 2 ? [...held, key] : [held[0], key] });
}

/** The two records that are compared, A and B. Where nothing is pinned: the knee with the full path. */
function compared() {
  const [first, second] = STATE.pins.map((key) => RECORDS.get(key));
  const run = DATA.runs[first ? first.run : 0];
  const full = RECORDS.get(run.full.key);
  const a = first ?? RECORDS.get(`0/${run.knee}`) ?? full;
  return [a, second ?? full];
}

/** "A", "B" or null: what a record is in the comparison, as far as the reader chose it. */
function pinLetter(key) {
  const position = STATE.pins.indexOf(key);
  return position < 0 ? null : "AB"[position];
}

/** The accuracy (with error) of a record before retraining on a split; null if it was not measured. */
function searched(record, split) {
  if (split === "test") return record.test ?? null;
  return record.accuracy == null ? null : { accuracy: record.accuracy, error: record.error };
}

/** The accuracy after retraining on a split: the mode that is best on validation. */
function retrained(record, split) {
  const best = Object.values(record.retrained ?? {})[0];
  return best?.[split] ?? null;
}

const HAS_TEST = DATA.runs.some((run) =>
  [...run.points, run.full].some((point) => point.test || retrained(point, "test")));
const HAS_RETRAINED = DATA.runs.some((run) =>
  [...run.points, run.full].some((point) => retrained(point, "validation")));

function fitsBudget(record) {
  if (STATE.budget === null) return true;
  const cost = record.costs[STATE.cost];
  return cost != null && cost <= STATE.budget * (1 + 1e-9);
}

/** The most accurate front point of a run within the budget, by the search's accuracy. */
function bestWithin(run) {
  const fitting = run.points.filter(fitsBudget);
  return fitting.reduce((best, p) => (!best || p.accuracy > best.accuracy ? p : best), null);
}

// one unit per cost for the whole page, so that columns and axes compare
const SCALES = Object.fromEntries(DATA.costs.map((name) => {
  const largest = Math.max(...DATA.runs.flatMap((run) => [...run.points, run.full].map((p) => p.costs[name] ?? 0)));
  return [name, costScale(name, largest)];
}));

function scaledCost(record, name) {
  const value = record.costs[name];
  return value == null ? null : value / SCALES[name].factor;
}

function costText(record, name, withUnit = true) {
  const value = scaledCost(record, name);
  if (value === null) return "–";
  return threeDigits(value) + (withUnit ? ` ${SCALES[name].unit}` : "");
}

// a tenth of a point, and a hundredth where the accuracies are known that well
const DIGITS = DATA.runs.every((run) => run.points.every((p) => p.error < 0.002)) ? 2 : 1;

function accuracyText(score) {
  if (!score) return "–";
  const value = (score.accuracy * 100).toFixed(DIGITS);
  return score.error ? `${value} ± ${(score.error * 100).toFixed(DIGITS)}` : value;
}

/** The decisions of a record: [{name, value}], value undefined where absent. */
function decisionsOf(record) {
  return DATA.decisions.map(({ name, values }, i) => ({ name, value: values[record.path[i]] }));
}

/** How a record differs from another: [{name, a, b}] in the order of the decisions. */
function differences(a, b) {
  return DATA.decisions
    .map(({ name, values }, i) => ({ name, a: values[a.path[i]], b: values[b.path[i]] }))
    .filter((row) => row.a !== row.b);
}

/** What a reader calls a record. */
function titleOf(record) {
  if (record.isFull) return "full path";
  if (record.isKnee) return "knee of the front";
  return record.onFront ? "on the front" : `trial ${record.number}`;
}
