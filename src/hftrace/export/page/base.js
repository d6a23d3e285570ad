"use strict";
// What all parts share: the data, text for numbers, elements, colours. Text from a trace only ever becomes textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);

/** Puts back what was written as differences. */
function summed(values) {
  let sum = 0;
  return values.map((each) => (sum += each));
}

/** Puts back names that were written as what each adds to the one before it. */
function unpacked({ same, rest }) {
  let before = "";
  return rest.map((each, at) => (before = before.slice(0, same[at]) + each));
}

for (const { reads } of DATA.timelines) {
  reads.start = summed(reads.start);
  if (reads.row) reads.row = summed(reads.row);
}
if (DATA.tensors) DATA.tensors.name = unpacked(DATA.tensors.name);

const UNITS = ["kB", "MB", "GB", "TB", "PB", "EB"];

/** Rounds as Python does: of two that are equally near, the even one. */
function fixed(value, digits) {
  const near = value.toFixed(digits);
  const exact = value.toFixed(Math.min(100, digits + 40));
  const tail = exact.slice(exact.indexOf(".") + 1 + digits);
  if (!/^50*$/.test(tail)) return near;
  const down = exact.slice(0, exact.length - tail.length).replace(/\.$/, "");
  return Number(down[down.length - 1]) % 2 ? near : down;
}

function threeDigits(value) {
  return fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

function bytesText(value) {
  if (value === null || value === undefined) return "-";
  if (value < 0) return "-" + bytesText(-value);
  if (value < 999.5) return fixed(value, 0) + " B";
  for (const unit of UNITS) {
    value /= 1000;
    if (value < 999.5 || unit === "EB") return threeDigits(value) + " " + unit;
  }
  return "-";
}

function shortNumber(value) {
  return fixed(value, value < 9.95 ? 1 : 0);
}

function timeText(ns) {
  if (ns === null || ns === undefined) return "-";
  if (ns < 0) return "-" + timeText(-ns);
  if (ns === 0) return "0 s";
  if (ns < 999.5) return fixed(ns, 0) + " ns";
  if (ns < 999500) return shortNumber(ns / 1e3) + " µs";
  if (ns < 999500000) return shortNumber(ns / 1e6) + " ms";
  const seconds = ns / 1e9;
  if (seconds < 59.95) return threeDigits(seconds) + " s";
  const whole = Number(fixed(seconds, 0));
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Number(fixed(seconds / 60, 0));
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function shareText(value) {
  if (value > 0 && value < 0.005) return "<1 %";
  if (value >= 0.995 && value < 1) return ">99 %";
  return fixed(value * 100, 0) + " %";
}

function rateText(bytes, ns) {
  return bytes && ns ? bytesText(bytes / (ns / 1e9)) + "/s" : "";
}

function countText(value, noun, plural) {
  return value.toLocaleString("en-US") + " " + (value === 1 ? noun : plural || noun + "s");
}

/** Makes an element; what is given as content are texts and elements. */
function element(name, properties, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined) continue;
    if (key in made && key !== "role") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...content.filter((each) => each !== null && each !== undefined));
  return made;
}

function place(identity) {
  const section = document.getElementById(identity);
  return section && section.querySelector(".drawn");
}

// -- colours -----------------------------------------------------------------------------------------------

const COLOURS = new Map();
const REDRAW = [];

function colour(name) {
  if (!COLOURS.has(name)) {
    COLOURS.set(name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim() || "#888");
  }
  return COLOURS.get(name);
}

function redrawAll() {
  COLOURS.clear();
  PATTERNS.clear();
  for (const draw of REDRAW) draw();
}

const PATTERNS = new Map();

/** Returns a hatched fill: kinds are told apart without their colours too. */
function pattern(context, kind, back, front) {
  const key = kind + back + front;
  if (PATTERNS.has(key)) return PATTERNS.get(key);
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const ink = tile.getContext("2d");
  if (back) {
    ink.fillStyle = back;
    ink.fillRect(0, 0, 8, 8);
  }
  ink.strokeStyle = ink.fillStyle = front;
  ink.lineWidth = 1.2;
  ink.beginPath();
  if (kind === "dots") {
    for (const [x, y] of [[2, 2], [6, 6]]) ink.rect(x, y, 1.4, 1.4);
    ink.fill();
  } else {
    const [from, to] = kind === "rising" ? [8, 0] : [0, 8];
    for (const shift of [-8, 0, 8]) {
      ink.moveTo(shift - 1, from + (from < to ? -1 : 1));
      ink.lineTo(shift + 9, to + (from < to ? 1 : -1));
    }
    ink.stroke();
  }
  const made = context.createPattern(tile, "repeat");
  PATTERNS.set(key, made);
  return made;
}

/** Fits a canvas to its place; returns its context, in CSS pixels. */
function fitted(canvas, height) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, canvas.clientWidth);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = height + "px";
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

const MONO = '11px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const SANS = '11px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
const CELL = { width: 0 };

/** Cuts a text in its middle so that it fits; the font is the one of fixed width. */
function cut(context, text, width) {
  if (!CELL.width) CELL.width = context.measureText("0".repeat(40)).width / 40;
  const room = Math.floor(width / CELL.width);
  if (text.length <= room) return text;
  if (room < 3) return "";
  const tail = Math.floor((room - 1) / 2);
  return text.slice(0, room - 1 - tail) + "…" + text.slice(text.length - tail);
}

// -- hints -------------------------------------------------------------------------------------------------

const TIP = element("div", { className: "tip", hidden: true });
document.body.append(TIP);

function showTip(x, y, title, lines) {
  TIP.replaceChildren(element("b", null, title), lines.filter(Boolean).join("\n"));
  TIP.hidden = false;
  const box = TIP.getBoundingClientRect();
  TIP.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  TIP.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18) + "px";
}

function hideTip() {
  TIP.hidden = true;
}
