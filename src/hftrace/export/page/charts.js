// The axis of time that lanes and memory share, and ticks that people can read.

const RULER = 22;

class View {
  constructor(end, first) {
    this.whole = [0, end];
    this.start = Math.min(Math.max(0, first || 0), end * 0.999);
    this.end = end;
    this.left = 0;
    this.origin = 0;
    this.width = 1;
  }

  x(time) {
    return this.left + ((time - this.start) / (this.end - this.start)) * this.width;
  }

  time(x) {
    return this.start + ((x - this.left) / this.width) * (this.end - this.start);
  }

  /** Shows a stretch of time, as far as there is any, and never less than a microsecond. */
  show(start, end) {
    const least = Math.min(1000, this.whole[1]);
    let length = Math.min(this.whole[1], Math.max(least, end - start));
    let from = start + (end - start - length) / 2;
    from = Math.min(Math.max(0, from), this.whole[1] - length);
    this.start = from;
    this.end = from + length;
  }

  zoom(factor, at) {
    const middle = at === undefined ? (this.start + this.end) / 2 : at;
    const start = middle - (middle - this.start) * factor;
    this.show(start, start + (this.end - this.start) * factor);
  }

  pan(share) {
    const step = (this.end - this.start) * share;
    let from = Math.min(Math.max(0, this.start + step), this.whole[1] - (this.end - this.start));
    this.end = from + (this.end - this.start);
    this.start = from;
  }
}

/** Returns a step of 1, 2 or 5 times a power of ten, so that there are at most this many of them. */
function niceStep(range, most) {
  const rough = range / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  for (const factor of [1, 2, 5, 10]) if (factor * power >= rough) return factor * power;
  return 10 * power;
}

function timeTicks(view) {
  const most = Math.max(2, Math.floor(view.width / 110));
  const step = Math.max(1, niceStep(view.end - view.start, most));
  const ticks = [];
  const { origin } = view;
  for (let at = Math.ceil((view.start - origin) / step) * step; at + origin <= view.end; at += step) ticks.push(at + origin);
  return { step, ticks };
}

/** Writes a time of the axis with as many digits as the step between two needs. */
function tickText(time, step) {
  if (time === 0) return "0";
  const [unit, size] = step >= 1e8 ? ["s", 1e9] : step >= 1e5 ? ["ms", 1e6] : step >= 100 ? ["µs", 1e3] : ["ns", 1];
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  return (time / size).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + " " + unit;
}

function drawRuler(canvas, view) {
  const context = fitted(canvas, RULER);
  const { step, ticks } = timeTicks(view);
  context.font = SANS;
  context.fillStyle = colour("dim");
  context.strokeStyle = colour("line");
  context.textBaseline = "middle";
  for (const at of ticks) {
    const x = Math.round(view.x(at)) + 0.5;
    context.beginPath();
    context.moveTo(x, 4);
    context.lineTo(x, RULER);
    context.stroke();
    const text = tickText(at - view.origin, step);
    if (x + 4 + context.measureText(text).width < view.left + view.width) context.fillText(text, x + 4, 11);
  }
  if (view.left > 100) context.fillText("1 px = " + timeText((view.end - view.start) / view.width), 8, 11);
  return ticks;
}

/** Draws the lines of the ticks behind a chart. */
function drawGrid(context, view, height) {
  context.strokeStyle = colour("soft");
  context.lineWidth = 1;
  context.beginPath();
  for (const at of timeTicks(view).ticks) {
    const x = Math.round(view.x(at)) + 0.5;
    context.moveTo(x, 0);
    context.lineTo(x, height);
  }
  context.stroke();
}
