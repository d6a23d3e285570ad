// The call tree: rows of one height, so that only those in sight are made; short calls are folded into one row.

const LINE = 22;

/** Makes the rows in sight of many. */
class Scroller {
  constructor(viewport, draw) {
    this.viewport = viewport;
    this.draw = draw;
    this.spacer = element("div", { className: "spacer" });
    viewport.append(this.spacer);
    viewport.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint()).observe(viewport);
  }

  reset(count) {
    this.count = count;
    this.spacer.style.height = count * LINE + "px";
    this.shown = null;
    this.paint();
  }

  paint() {
    const height = this.viewport.clientHeight || 480;
    const first = Math.max(0, Math.floor(this.viewport.scrollTop / LINE) - 8);
    const last = Math.min(this.count, Math.ceil((this.viewport.scrollTop + height) / LINE) + 8);
    const key = first + ":" + last;
    if (this.shown === key) return;
    this.shown = key;
    const rows = [];
    for (let at = first; at < last; at++) {
      const row = this.draw(at);
      row.style.top = at * LINE + "px";
      rows.push(row);
    }
    this.spacer.replaceChildren(...rows);
  }

  show(at) {
    const { viewport } = this;
    const y = at * LINE;
    if (y < viewport.scrollTop || y + LINE > viewport.scrollTop + viewport.clientHeight) viewport.scrollTop = Math.max(0, y - viewport.clientHeight / 3);
    this.shown = null;
    this.paint();
  }
}

class Tree {
  constructor(root, data, timeline) {
    this.data = data;
    this.timeline = timeline;
    this.open = new Set();
    this.wide = new Set();
    this.lit = new Set();
    this.now = -1;
    this.query = "";
    this.link();
    this.build(root);
    this.layout();
  }

  /** Finds parents and children, and opens what a terminal would show. */
  link() {
    const { depth, short } = this.data;
    this.parent = new Int32Array(depth.length).fill(-1);
    this.children = depth.map(() => []);
    this.roots = [];
    this.row = new Map();
    const path = [];
    for (let at = 0; at < depth.length; at++) {
      path.length = depth[at];
      if (depth[at]) {
        this.parent[at] = path[depth[at] - 1];
        this.children[this.parent[at]].push(at);
      } else this.roots.push(at);
      path[depth[at]] = at;
      for (const span of this.data.spans[at]) this.row.set(span, at);
      if (!short[at] && depth[at] < 8) this.open.add(at);
    }
  }

  build(root) {
    const search = element("input", { type: "search", placeholder: "Find a function, a file or a phase", ariaLabel: "Find in the call tree" });
    search.addEventListener("input", () => {
      this.query = search.value.trim().toLowerCase();
      this.layout();
    });
    const button = (text, act) => element("button", { type: "button", textContent: text, onclick: () => { act(); this.layout(); } });
    this.said = element("span", { className: "said" });
    const bar = element("div", { className: "toolbar" }, search,
      button("Open all", () => this.children.forEach((below, at) => { if (below.length) { this.open.add(at); this.wide.add(at); } }) || this.wide.add(-1)),
      button("As at first", () => { this.open.clear(); this.wide.clear(); this.link(); }), this.said);
    this.columns = `minmax(34ch, 1fr) 9ch 7ch 10ch${this.data.has_device ? " 10ch" : ""}`;
    const titles = ["function, file:line", "time", "share", "peak RSS", ...(this.data.has_device ? ["device"] : [])];
    const head = element("div", { className: "row head d" }, ...titles.map((title, at) => element("span", { className: at ? "n" : "", textContent: title })));
    head.style.gridTemplateColumns = this.columns;
    this.viewport = element("div", { className: "viewport", tabIndex: 0, role: "tree" });
    this.viewport.setAttribute("aria-label", "Call tree: arrow keys move, open and close; Enter shows a call in the timeline");
    root.append(bar, element("div", { className: "grid calls" }, element("div", { className: "inner" }, head, this.viewport)));
    this.viewport.style.minWidth = "560px";
    head.style.minWidth = "560px";
    this.scroller = new Scroller(this.viewport, (at) => this.line(at));
    this.viewport.addEventListener("keydown", (event) => this.key(event));
  }

  matches(at) {
    const text = this.data.label[at].map((part) => part[0]).join("") + " " + (this.data.message[at] || "");
    return text.toLowerCase().includes(this.query);
  }

  /** Lists the rows: a node, the sum of its short children, or the message of an error. */
  layout() {
    const kept = this.query ? this.found() : null;
    this.rows = [];
    const pending = this.folded(-1, this.roots, kept).reverse();
    while (pending.length) {
      const [kind, at, hidden] = pending.pop();
      this.rows.push([kind, at, hidden]);
      if (kind !== "node") continue;
      if (this.data.message[at]) this.rows.push(["message", at]);
      if (!kept && !this.open.has(at)) continue;
      pending.push(...this.folded(at, this.children[at], kept).reverse());
    }
    this.said.textContent = this.query ? countText(kept.size, "line") : "";
    this.scroller.reset(this.rows.length);
  }

  /** Returns the rows of some nodes; those that are short are one at the end. */
  folded(at, nodes, kept) {
    const below = nodes.filter((child) => !kept || kept.has(child));
    const short = kept || this.wide.has(at) ? [] : below.filter((child) => this.data.short[child]);
    // A row that says "one more" is no shorter than that one.
    const folded = short.length > 1 || (short.length === 1 && this.children[short[0]].length) ? new Set(short) : new Set();
    const shown = below.filter((child) => !folded.has(child)).map((child) => ["node", child]);
    if (folded.size) shown.push(["more", at, short]);
    return shown;
  }

  found() {
    const kept = new Set();
    for (let at = 0; at < this.parent.length; at++) {
      if (!this.matches(at)) continue;
      for (let up = at; up >= 0 && !kept.has(up); up = this.parent[up]) kept.add(up);
    }
    return kept;
  }

  line(number) {
    const [kind, at, hidden] = this.rows[number];
    const { data } = this;
    const row = element("div", { className: "row", role: "treeitem" });
    row.style.gridTemplateColumns = this.columns;
    const depth = at < 0 ? -1 : data.depth[at];
    row.setAttribute("aria-level", depth + (kind === "node" ? 1 : 2));
    const knob = element("span", { className: "knob" });
    const words = element("span", { className: "words" });
    const call = element("span", { className: "call" }, knob, words);
    call.style.paddingLeft = Math.min(24, depth + (kind === "node" ? 0 : 1)) * 14 + "px";
    row.append(call);
    if (number === this.now) row.classList.add("now");
    if (kind === "message") {
      words.className = "words x";
      words.textContent = words.title = data.message[at];
      call.style.gridColumn = "1 / -1";
    } else if (kind === "more") {
      const calls = hidden.reduce((sum, child) => sum + this.count(child), 0);
      knob.textContent = "+";
      words.className = "words d";
      words.textContent = at < 0 || !calls ? countText(hidden.length, "shorter part") : countText(calls, "shorter call");
      row.append(element("span", { className: "n d", textContent: timeText(hidden.reduce((sum, child) => sum + (data.time[child] || 0), 0)) }));
    } else {
      if (this.children[at].length) {
        knob.textContent = this.open.has(at) || this.query ? "▾" : "▸";
        row.setAttribute("aria-expanded", this.open.has(at));
      }
      for (const [text, style] of data.label[at]) {
        const part = element("span", { className: style === "p" ? "" : style, textContent: text });
        if (style === "p") part.style.color = `color-mix(in srgb, var(--${data.phase[at]}) 55%, var(--ink))`;
        words.append(part);
      }
      words.title = words.textContent;
      row.append(
        element("span", { className: "n", textContent: data.time[at] === null ? "" : timeText(data.time[at]) }),
        element("span", { className: "n d", textContent: data.share[at] }),
        element("span", { className: "n", textContent: data.peak[at] }),
        data.has_device ? element("span", { className: "n", textContent: data.device[at] }) : "");
      if (data.spans[at].some((span) => this.lit.has(span))) row.classList.add("lit");
    }
    row.onclick = () => this.act(number, true);
    return row;
  }

  count(at) {
    let sum = 0;
    const pending = [at];
    while (pending.length) {
      const each = pending.pop();
      sum += this.data.spans[each].length;
      pending.push(...this.children[each]);
    }
    return sum;
  }

  act(number, toggles) {
    const [kind, at] = this.rows[number];
    this.now = number;
    if (kind === "more") this.wide.add(at);
    else if (kind === "node" && toggles && this.children[at].length) {
      if (this.open.has(at)) this.open.delete(at);
      else this.open.add(at);
    }
    if (kind !== "message" && toggles) this.layout();
    else this.scroller.show(number);
  }

  key(event) {
    const last = this.rows.length - 1;
    const [kind, at] = this.rows[this.now] || [];
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -last - 1, End: last + 1 };
    if (event.key in moves) this.now = Math.min(last, Math.max(0, this.now + moves[event.key]));
    else if (event.key === "ArrowRight" && kind === "node" && !this.open.has(at) && this.children[at].length) this.act(this.now, true);
    else if (event.key === "ArrowRight" && kind === "more") this.act(this.now, true);
    else if (event.key === "ArrowLeft" && kind === "node") {
      if (this.open.has(at) && this.children[at].length) this.act(this.now, true);
      else this.now = Math.max(0, this.rows.findIndex((row) => row[0] === "node" && row[1] === this.parent[at]));
    } else if (event.key === "Enter" && kind === "node" && this.timeline) {
      this.timeline.showThese(this.data.spans[at], []);
      this.timeline.surface.scrollIntoView({ block: "center" });
    } else return;
    event.preventDefault();
    this.scroller.show(this.now);
  }

  /** Opens all that is above some spans, marks them and shows the first. */
  showThese(spans, marked) {
    if (marked) this.lit = new Set(spans);
    const rows = spans.map((span) => this.row.get(span)).filter((at) => at !== undefined);
    for (const row of rows) {
      for (let each = row; each >= 0; each = this.parent[each]) {
        if (this.data.short[each]) this.wide.add(this.parent[each]);
        if (each !== row) this.open.add(each);
      }
    }
    this.layout();
    if (rows.length) {
      this.now = this.rows.findIndex((row) => row[0] === "node" && row[1] === rows[0]);
      this.scroller.show(Math.max(0, this.now));
    }
  }
}
