// Leaving early: where images leave by each policy, and how often they are right there.

const LEAST_LABELLED = 0.06; // share that has room for its number
const LEAVER_WIDTH = 92; // pixels on the screen

/** ["exits.3", "exits.12"] -> ["3", "12"]: what their names don't share. */
function exitLabels(exits) {
  return exits.map((name) => name.split(".").pop());
}

/** A bar from the first exit to the last, each as long as the share of the images that leave there. */
function leaveBar(policy, split) {
  const labels = exitLabels(policy.exits);
  const parts = split.shares.map((share, i) => {
    const right = split.right[i] === null ? "nobody" : `${percent(split.right[i], 1)} right`;
    return el("span", {
      style: `width: ${share * 100}%; opacity: ${0.45 + 0.55 * ((labels.length - i) / labels.length)}`,
      title: `${policy.exits[i]}: ${percent(share, 1)} leave, ${right}`,
    }, share < LEAST_LABELLED ? "" : `${labels[i]}: ${percent(share)}`);
  });
  const text = labels.map((label, i) => `${percent(split.shares[i], 1)} at ${label}`).join(", ");
  return el("div.leave", { role: "img", "aria-label": text }, parts);
}

function leavingRow(run, policy) {
  const split = policy.splits[STATE.split] ?? policy.splits.validation;
  return el("tr", {},
    SEVERAL ? el("td", {}, run.name) : null,
    el("td", {}, el("code", {}, policy.pathId)),
    el("td", {}, policy.exits.length > 1 ? policy.confidence : "none leaves early"),
    el("td.num", {}, accuracyText(split)),
    el("td.num", {}, signed(split.loss * 100, 1)),
    el("td.num", {}, signed(policy.promisedLoss * 100, 1)),
    el("td.num", {}, costText(policy, STATE.cost)),
    el("td.num", {}, percent(savedShare(run, policy))),
    el("td", {}, leaveBar(policy, split)));
}

/** An image, what it is, and what each exit said that it was asked at. */
function leaver(run, image) {
  const classes = run.pictures.classes;
  const [truth] = image.truth;
  const said = Object.entries(image.found).map(([exit, [mark]]) =>
    el(mark.label === truth.label ? "div" : "div.wrong", {},
      `exit ${exitLabels([exit])[0]}: ${classes[mark.label]}, ${percent(mark.score)}`));
  return el("figure", {}, picture(run, image, [], "leaver", LEAVER_WIDTH),
    el("figcaption", {}, el("b", {}, classes[truth.label]), ...said));
}

function renderLeavers(runs) {
  const shown = runs.filter((run) => run.policies.some((policy) => policy.id === run.pictures?.leaving?.policy));
  byId("leavers").replaceChildren(...shown.flatMap((run) => {
    const { policy, first, last } = run.pictures.leaving;
    const path = run.policies.find(({ id }) => id === policy).pathId;
    return [["first", first], ["last", last]].flatMap(([when, images]) => [
      el("h3", {}, `Leave ${when} `, el("code", {}, path), SEVERAL ? ` of ${run.name}` : ""),
      el("div.leavers", {}, images.map((image) => leaver(run, image)))]);
  }));
}

function renderLeaving() {
  const runs = DATA.runs.filter((run) => run.policies.length);
  byId("leaving-card").hidden = runs.length === 0;
  if (!runs.length) return;
  const where = STATE.split === "test" ? "test" : "validation";
  byId("leaving-title").textContent = `Leaving early, on ${where}`;
  const head = [...(SEVERAL ? ["Run"] : []), "Path", "Confidence", DATA.metric, "Lost", "Promised", COST_LABELS[STATE.cost], "Saved", "Who leaves where"];
  const numbers = new Set([DATA.metric, "Lost", "Promised", COST_LABELS[STATE.cost], "Saved"]);
  byId("leaving").replaceChildren(
    el("thead", {}, el("tr", {}, head.map((text) => el(numbers.has(text) ? "th.num" : "th", { scope: "col" }, text)))),
    el("tbody", {}, runs.flatMap((run) => run.policies.map((policy) => leavingRow(run, policy)))));
  renderLeavers(runs);
  byId("leaving-note").textContent =
    `Images leave at the first exit that is sure of them; costs are expected on validation. Lost: points of ${DATA.metric} against the full ` +
    `path on the same images; promised: what is not exceeded on others, within a standard error, which policies are chosen by.` +
    (byId("leavers").children.length ? " Images: of validation, the surest at the first exit and the least sure at the last, by the policy that is promised to lose " +
      "least; under each what it is, then what each exit that was asked took it for, and how sure it was." : "");
}
