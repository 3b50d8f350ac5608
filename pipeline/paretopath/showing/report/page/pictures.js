// Images with what is there and what two paths find, side by side; accuracies by class.

const PICTURE_WIDTH = 220; // pixels on the screen

/** An image with boxes; names stand above them. */
function picture(run, image, marks, kind, screenWidth = PICTURE_WIDTH) {
  const [height, width] = image.size;
  const unit = width / screenWidth; // a pixel of the screen, in those of the image
  const boxes = marks.flatMap(({ box: [x0, y0, x1, y1], label, score }) => {
    const name = run.pictures.classes[label];
    const text = score === null ? name : `${name} ${Math.round(score * 100)}`;
    return [
      svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, "stroke-width": 1.5 * unit }),
      svg("text", { x: x0, y: Math.max(y0 - 2 * unit, 9 * unit), "font-size": 10 * unit, "stroke-width": 2.5 * unit }, text),
    ];
  });
  return svg("svg", {
    class: `picture ${kind}`, viewBox: `0 0 ${width} ${height}`, width: screenWidth, role: "img",
    "aria-label": `${marks.length} boxes`,
  }, svg("image", { href: `data:image/png;base64,${image.png}`, width, height }), ...boxes);
}

function byClassRows(run, a, b) {
  const [first, second] = [a, b].map((record) => run.pictures.by_class[record.id]);
  const text = (value) => (value == null ? "–" : (value * 100).toFixed(1));
  return run.pictures.classes.map((name, i) => el("tr", {},
    el("th", { scope: "row" }, name), el("td.num", {}, text(first?.[i])), el("td.num", {}, text(second?.[i]))));
}

function renderPictures() {
  const [a, b] = compared();
  const run = DATA.runs[a.run];
  const known = a.run === b.run && run.pictures?.images.length;
  byId("pictures-card").hidden = !known;
  if (!known) return;
  const shown = [["truth", null], ["a", a], ["b", b]];
  const heads = [el("span", {}, "There"), el("span", {}, badge("A"), ` ${a.id}`), el("span", {}, badge("B"), ` ${b.id}`)];
  const cells = run.pictures.images.flatMap((image) => shown.map(([kind, record]) => {
    const marks = record ? image.found[record.id] : image.truth;
    return marks ? picture(run, image, marks, kind) : el("span.note", {}, "not on the front");
  }));
  byId("pictures").replaceChildren(...heads, ...cells);
  byId("by-class").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, `${DATA.metric} by class, test`),
      el("th.num", { scope: "col" }, badge("A")), el("th.num", { scope: "col" }, badge("B")))),
    el("tbody", {}, byClassRows(run, a, b)));
  byId("pictures-note").textContent = "The first images of validation; numbers are scores in percent, shown from 30 on.";
}
