// Memory over time, on the axis of the lanes: a panel for each process and each device of it.

const PANEL = 92;
const HEADING = 16;

class Memory {
  constructor(timelines) {
    this.panels = [];
    // A panel's times are of its own session.
    for (const timeline of timelines) {
      for (const process of timeline.memory) this.add(timeline, process, timelines.length > 1 ? timeline.name : "");
    }
    if (timelines.length > 1) {
      // Of several traces heights compare.
      for (const kind of ["host", "device"]) {
        const alike = this.panels.filter((panel) => panel.kind === kind);
        const top = Math.max(...alike.map((panel) => panel.top));
        for (const panel of alike) panel.top = top;
      }
    }
    this.height = this.panels.length * PANEL + (this.panels.length ? 6 : 0);
  }

  add(timeline, process, trace) {
    const name = [trace, process.name].filter(Boolean).join(", ");
    if (process.time.length) {
      const total = process.time.map((_, at) => process.anonymous[at] + process.file[at] + process.shared[at]);
      let highest = total.reduce((most, each) => Math.max(most, each), 0);
      if (process.peak) highest = Math.max(highest, process.peak.bytes);
      const limit = process.limit && process.limit <= 1.6 * highest ? process.limit : null;
      this.panels.push({
        kind: "host",
        title: [name, "CPU memory"].filter(Boolean).join(", "),
        short: name ? `${name}, CPU` : "CPU memory",
        shift: timeline.shift,
        time: process.time,
        series: [["anonymous", process.anonymous], ["file", process.file], ["shared", process.shared]],
        total,
        peak: process.peak,
        limit,
        top: Math.max(highest, limit || 0) * 1.06,
      });
    }
    for (const [device, taken] of Object.entries(process.devices)) {
      const free = taken.time.map((_, at) => Math.max(0, taken.reserved[at] - taken.allocated[at]));
      const total = taken.time.map((_, at) => Math.max(taken.reserved[at], taken.allocated[at]));
      const highest = total.reduce((most, each) => Math.max(most, each), taken.peak || 0);
      if (highest <= 0) continue;
      this.panels.push({
        kind: "device",
        title: [name, device].filter(Boolean).join(", "),
        shift: timeline.shift,
        time: taken.time,
        series: [["device", taken.allocated], ["reserved", free]],
        total,
        peak: taken.peak === null ? null : { bytes: taken.peak, time: null, exact: true },
        limit: null,
        top: highest * 1.06,
      });
    }
  }

  draw(canvas, view) {
    const context = fitted(canvas, this.height);
    drawGrid(context, view, this.height);
    this.panels.forEach((panel, number) => this.drawPanel(context, view, panel, number * PANEL + HEADING));
  }

  drawPanel(context, view, panel, top) {
    const height = PANEL - HEADING - 4;
    const y = (size) => top + height - (size / panel.top) * height;
    const columns = this.columns(panel, view);
    const stack = new Float64Array(columns.length);
    for (const [kind, values] of panel.series) {
      context.beginPath();
      let open = false;
      const back = [];
      for (let column = 0; column < columns.length; column++) {
        const at = columns[column];
        if (at < 0) continue;
        const x = view.left + column;
        const below = stack[column];
        const above = (stack[column] += values[at]);
        if (!open) context.moveTo(x, y(below));
        open = true;
        context.lineTo(x, y(above));
        context.lineTo(x + 1, y(above));
        back.push([x + 1, y(below)], [x, y(below)]);
      }
      for (let each = back.length - 1; each >= 0; each--) context.lineTo(...back[each]);
      if (!open) continue;
      context.closePath();
      context.fillStyle = this.fill(context, kind);
      context.fill();
    }
    this.drawScale(context, view, panel, top, height, y);
  }

  fill(context, kind) {
    if (kind === "file") return pattern(context, "falling", colour("file"), colour("anonymous"));
    if (kind === "shared") return pattern(context, "dots", colour("shared"), colour("bg"));
    if (kind === "reserved") return pattern(context, "rising", colour("reserved"), colour("device"));
    return colour(kind);
  }

  /** Returns, for each column of pixels, the reading to draw: the highest in it, else the one before it. */
  columns(panel, view) {
    const { time, total } = panel;
    const found = new Int32Array(Math.floor(view.width)).fill(-1);
    let low = 0;
    let high = time.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (time[middle] < view.start) low = middle + 1;
      else high = middle;
    }
    let before = low - 1;
    let at = low;
    const step = (view.end - view.start) / found.length;
    const last = time.length ? time[time.length - 1] : 0;
    for (let column = 0; column < found.length; column++) {
      const until = view.start + (column + 1) * step;
      let best = -1;
      while (at < time.length && time[at] < until) {
        if (best < 0 || total[at] > total[best]) best = at;
        before = at++;
      }
      // After the last reading nothing is known.
      found[column] = best >= 0 ? best : until - step <= last ? before : -1;
    }
    return found;
  }

  drawScale(context, view, panel, top, height, y) {
    context.fillStyle = colour("bg");
    context.fillRect(0, top - HEADING, view.left - 1, PANEL);
    context.font = SANS;
    context.textBaseline = "middle";
    context.fillStyle = colour("ink");
    context.textAlign = "left";
    context.fillText(cutSans(context, panel.short || panel.title, view.left - 12), 8, top - HEADING + 10);
    const step = niceStep(panel.top, 3);
    context.textAlign = "right";
    for (let size = 0; size < panel.top; size += step) {
      const at = Math.round(y(size)) + 0.5;
      context.strokeStyle = colour("line");
      context.globalAlpha = 0.7;
      context.beginPath();
      context.moveTo(view.left, at);
      context.lineTo(view.left + view.width, at);
      context.stroke();
      context.globalAlpha = 1;
      context.fillStyle = colour("dim");
      if (at > top + 3) context.fillText(size ? bytesText(size) : "0", view.left - 6, Math.min(at, top + height - 4));
    }
    context.textAlign = "left";
    if (panel.limit) this.drawLine(context, view, y(panel.limit), `limit ${bytesText(panel.limit)}`, "bad", null);
    if (panel.peak) {
      const time = panel.peak.time;
      const x = time !== null && time >= view.start && time <= view.end ? view.x(time) : null;
      const word = panel.peak.exact ? "peak" : "highest sample";
      this.drawLine(context, view, y(panel.peak.bytes), `${word} ${bytesText(panel.peak.bytes)}`, "ink", x);
    }
  }

  drawLine(context, view, y, text, tone, x) {
    context.strokeStyle = context.fillStyle = colour(tone);
    context.setLineDash([4, 3]);
    context.beginPath();
    context.moveTo(view.left, y);
    context.lineTo(view.left + view.width, y);
    context.stroke();
    context.setLineDash([]);
    if (x !== null) {
      context.beginPath();
      context.moveTo(x - 4, y - 7);
      context.lineTo(x + 4, y - 7);
      context.lineTo(x, y - 1);
      context.fill();
    }
    const width = context.measureText(text).width;
    const right = view.left + view.width - width - 4;
    const at = x === null ? right : x + 8 > right ? x - width - 8 : x + 8;
    context.fillText(text, Math.max(view.left + 4, at), y - 7);
  }

  /** Returns what to say of a place: the panel's values at that time. */
  describe(x, y, view) {
    const panel = this.panels[Math.floor(y / PANEL)];
    if (!panel || x < view.left) return null;
    const at = this.columns(panel, view)[Math.floor(x - view.left)];
    if (at === undefined || at < 0) return null;
    const names = { anonymous: "anonymous", file: "file-backed", shared: "shared", device: "allocated", reserved: "reserved, and free" };
    const lines = panel.series.filter(([kind, values]) => values[at] || kind !== "shared").map(([kind, values]) => `${bytesText(values[at])}  ${names[kind]}`);
    return { title: `${panel.title}: ${bytesText(panel.total[at])}`, lines: [...lines, `at ${timeText(panel.time[at] - panel.shift)}`] };
  }
}

function cutSans(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > width) end--;
  return text.slice(0, end) + "…";
}
