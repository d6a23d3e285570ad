// The lanes: a block of rows for each thread, spans nested by depth, below them the tensors that it read.

const ROW = 17;
const GAP = 7;

class Lanes {
  constructor(timelines) {
    this.blocks = [];
    this.chosen = { spans: new Set(), tensors: new Set() };
    this.now = null;
    for (const [number, timeline] of timelines.entries()) this.add(timeline, number, timelines.length > 1);
    let y = 4;
    for (const block of this.blocks) {
      block.y = y;
      y += block.rows.length * ROW + GAP;
    }
    this.height = Math.max(ROW + 2 * GAP, y);
  }

  add(timeline, number, several) {
    const { spans, reads } = timeline;
    const blocks = timeline.lanes.map((lane, at) => ({
      title: lane.name,
      detail: several && at === 0 ? timeline.name : "",
      rows: [],
      timeline,
    }));
    const deepest = blocks.map(() => -1);
    for (let at = 0; at < spans.lane.length; at++) {
      const lane = spans.lane[at];
      // What is deeper than the lane shows is in the call tree.
      if (spans.depth[at] < spans.max_rows && spans.depth[at] > deepest[lane]) deepest[lane] = spans.depth[at];
    }
    blocks.forEach((block, lane) => {
      for (let depth = 0; depth <= deepest[lane]; depth++) block.rows.push({ kind: "spans", items: [] });
    });
    for (let at = 0; at < spans.lane.length; at++) {
      if (spans.depth[at] < spans.max_rows) blocks[spans.lane[at]].rows[spans.depth[at]].items.push(at);
    }
    const rows = new Map();
    for (let at = 0; at < reads.lane.length; at++) {
      const lane = reads.lane[at];
      if (!rows.has(lane)) {
        rows.set(lane, { kind: "reads", items: [] });
        blocks[lane].rows.push(rows.get(lane));
      }
      rows.get(lane).items.push(at);
    }
    if (timeline.waits.length && blocks.length) blocks[0].rows.push({ kind: "waits", items: timeline.waits.map((_, at) => at) });
    for (const block of blocks) {
      for (const row of block.rows) {
        if (row.kind !== "spans") continue;
        let last = -Infinity;
        if (row.items.some((at) => spans.start[at] < (last = Math.max(last, spans.start[at])))) {
          row.items.sort((a, b) => spans.start[a] - spans.start[b]);
        }
      }
    }
    if (several && blocks.length) blocks[0].first = true;
    this.blocks.push(...blocks.filter((block) => block.rows.length));
    if (timeline.requests.length) {
      const items = timeline.requests.map((_, at) => at).sort((a, b) => timeline.requests[a][0] - timeline.requests[b][0]);
      this.blocks.push({ title: "requests", detail: "", rows: [{ kind: "requests", items }], timeline });
    }
  }

  /** Returns start, end, text, colour, and whether something went wrong, of one box. */
  box(block, row, at) {
    const { spans, reads, waits, requests } = block.timeline;
    if (row.kind === "spans") {
      const phase = spans.phases[spans.phase[at]];
      return [spans.start[at], spans.end[at], spans.words[spans.name[at]], phase[2], spans.status[at] !== 0];
    }
    if (row.kind === "reads") return [reads.start[at], reads.start[at] + reads.took[at], this.tensor(block, at), "read", false];
    if (row.kind === "waits") return [waits[at][0], waits[at][1], "waiting for weights", "wait", false];
    const [start, took, name, failed] = requests[at];
    return [start, start + took, name || "request", "fetch", failed];
  }

  tensor(block, at) {
    const { reads } = block.timeline;
    return reads.row ? DATA.tensors.name[reads.row[at]] : reads.words[reads.name[at]];
  }

  isChosen(block, row, at) {
    if (row.kind === "spans") return this.chosen.spans.has(block.timeline.spans.id[at]);
    return row.kind === "reads" && this.chosen.tensors.size > 0 && this.chosen.tensors.has(this.tensor(block, at));
  }

  draw(canvas, view) {
    const context = fitted(canvas, this.height);
    drawGrid(context, view, this.height);
    const dims = this.chosen.spans.size + this.chosen.tensors.size > 0;
    for (const block of this.blocks) {
      if (block.first && block.y > 5) {
        context.fillStyle = colour("line");
        context.fillRect(0, block.y - GAP / 2 - 1, canvas.clientWidth, 1);
      }
      block.rows.forEach((row, number) => this.drawRow(context, view, block, row, block.y + number * ROW, dims));
      this.drawTitle(context, view, block);
    }
  }

  drawTitle(context, view, block) {
    context.fillStyle = colour("bg");
    context.fillRect(0, block.y - 1, view.left - 2, block.rows.length * ROW + 2);
    context.textBaseline = "middle";
    let y = block.y + ROW / 2;
    for (const [text, tone] of [[block.detail, "ink"], [block.title, block.detail ? "dim" : "ink"]]) {
      if (!text) continue;
      context.font = MONO;
      context.fillStyle = colour(tone);
      context.fillText(cut(context, text, view.left - 14), 8, y);
      y += ROW;
      if (y > block.y + block.rows.length * ROW) break;
    }
    context.fillStyle = colour("dim");
    block.rows.forEach((row, number) => {
      const at = block.y + number * ROW + ROW / 2;
      const word = row.kind === "reads" && number ? "tensors read" : row.kind === "waits" ? "waiting" : "";
      if (word && at >= y) context.fillText(cut(context, word, view.left - 26), 18, at);
    });
  }

  drawRow(context, view, block, row, y, dims) {
    const height = ROW - 1;
    const items = row.items;
    let low = this.firstVisible(block, row, view.start);
    let edge = -Infinity;
    context.font = MONO;
    context.textBaseline = "middle";
    context.save();
    context.beginPath();
    context.rect(view.left, y, view.width, height);
    context.clip();
    for (let number = low; number < items.length; number++) {
      const [start, end, text, family, failed] = this.box(block, row, items[number]);
      if (start > view.end) break;
      const x = view.x(start);
      let width = view.x(end) - x;
      const chosen = dims && this.isChosen(block, row, items[number]);
      // Boxes that share a pixel are one: the first is drawn, and no other over it.
      if (!chosen && x + width < edge) continue;
      const from = Math.max(x, view.left - 2, chosen ? -Infinity : Math.min(edge, x + width));
      const drawn = Math.max(1, Math.min(x + width, view.left + view.width + 2) - from - (width > 3 ? 1 : 0));
      edge = Math.max(edge, Math.ceil(x + Math.max(width, 0)) - 0.001);
      if (width < 1) edge = Math.max(edge, Math.floor(x) + 1);
      context.globalAlpha = dims && !chosen ? 0.32 : 1;
      context.fillStyle = family === "wait" && row.kind === "waits" ? pattern(context, "falling", null, colour("wait")) : colour(family);
      context.fillRect(from, y, drawn, height);
      if (failed && drawn > 2) {
        context.fillStyle = pattern(context, "rising", null, colour("bad"));
        context.fillRect(from, y, drawn, height);
      }
      if (drawn > 24 && row.kind !== "waits") {
        context.fillStyle = colour("box-ink");
        context.fillText(cut(context, (failed ? "✗ " : "") + text, drawn - 7), from + 4, y + height / 2 + 0.5);
      }
      if (chosen || this.isNow(block, row, items[number])) {
        context.globalAlpha = 1;
        context.strokeStyle = colour(chosen ? "bad" : "ink");
        context.lineWidth = 2;
        context.strokeRect(from + 1, y + 1, Math.max(1, drawn - 2), height - 2);
      }
    }
    context.restore();
    context.globalAlpha = 1;
  }

  isNow(block, row, at) {
    return this.now && this.now.block === block && this.now.row === row && this.now.at === at;
  }

  /** Returns the first box that may reach into the view: boxes of a row do not overlap. */
  firstVisible(block, row, time) {
    let low = 0;
    let high = row.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.box(block, row, row.items[middle])[1] < time) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /** Returns what is at a place: block, row and the box's position. */
  at(x, y, view) {
    for (const block of this.blocks) {
      const number = Math.floor((y - block.y) / ROW);
      if (number < 0 || number >= block.rows.length) continue;
      const row = block.rows[number];
      let best = null;
      for (let each = this.firstVisible(block, row, view.time(x - 2)); each < row.items.length; each++) {
        const [start, end] = this.box(block, row, row.items[each]);
        if (view.x(start) > x + 2) break;
        if (view.x(Math.max(end, start)) >= x - 2) {
          best = row.items[each];
          if (view.x(start) <= x && view.x(end) >= x) break;
        }
      }
      return best === null ? null : { block, row, at: best };
    }
    return null;
  }

  /** Returns what to say of a box: a title and lines. */
  describe(found) {
    const { block, row, at } = found;
    const [start, end, text, , failed] = this.box(block, row, at);
    const lines = [`${timeText(end - start)}, from ${timeText(start - block.timeline.shift)}`];
    if (row.kind === "spans") {
      const { spans } = block.timeline;
      lines[0] = `${spans.phases[spans.phase[at]][0]}  ${lines[0]}`;
      if (spans.source[at] >= 0) lines.push(spans.words[spans.source[at]]);
      if (spans.peak[at] !== null) lines.push("peak RSS " + bytesText(spans.peak[at]));
      if (failed) lines.push("✗ did not end well");
    } else if (row.kind === "reads") {
      const { reads } = block.timeline;
      const ledger = reads.row ? DATA.tensors : null;
      lines.push(bytesText(ledger ? ledger.bytes[reads.row[at]] : reads.bytes[at]));
      if (ledger) {
        const of = reads.row[at];
        const word = (name) => ledger.words[name][ledger[name][of]];
        lines.push(`${word("shape")}  ${word("dtype")}  ${word("device")}  ${word("file")}`);
      }
    } else if (failed) lines.push("✗ failed");
    return { title: text, lines, start, end };
  }
}
