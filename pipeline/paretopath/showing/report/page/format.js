// Numbers and elements. Text reaches the page as text nodes only, so nothing in a recipe can become markup.

/** An element: tag.class.class, attributes (on* are listeners), children (strings, elements, null). */
function el(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

/** Text for plotly, which reads some tags and entities in its labels. */
function plotlyText(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const MINUS = "\u2212";
/** {factor, unit} in which a cost of about `reference` reads well. */
function costScale(name, reference) {
  const scales = COST_SCALES[name];
  const [factor, unit] = scales.find(([f]) => reference >= f) ?? scales[scales.length - 1];
  return { factor, unit };
}

/** Three significant digits, never in exponents. */
function threeDigits(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6)).replace("-", MINUS);
}

/** A share as a percentage with a sign only where it falls. */
function percent(share, digits = 0) {
  return `${(share * 100).toFixed(digits).replace("-", MINUS)} %`;
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return `±${text}`;
  return (value > 0 ? "+" : MINUS) + text;
}

/** A decision's value as people write it; an absent one as a dash. */
function valueText(value) {
  if (value === undefined) return "–";
  if (value === true) return "yes";
  if (value === false) return "no";
  return typeof value === "number" ? String(Number(value.toFixed(6))) : String(value);
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
