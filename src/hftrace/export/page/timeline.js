// The timeline as people use it: zoom and move by wheel, mouse, fingers and keys; choose a box; say what it is.

class Timeline {
  constructor(root, timelines) {
    this.lanes = new Lanes(timelines);
    this.memory = new Memory(timelines);
    const ends = timelines.map((each) => each.end);
    const alone = timelines.length === 1;
    this.view = new View(Math.max(...ends), alone ? timelines[0].first : 0);
    // Of several sessions the first loads begin at one place, from which the axis counts.
    if (!alone) this.view.origin = Math.max(...timelines.map((each) => (each.loads.length ? each.loads[0][0] : 0)));
    this.fingers = new Map();
    this.build(root, timelines);
    this.listen();
    REDRAW.push(() => this.paint());
    this.draw();
  }

  build(root, timelines) {
    const button = (text, title, act) => element("button", { type: "button", textContent: text, title, onclick: () => { act(); this.draw(); } });
    this.range = element("span", { className: "said" });
    const bar = element("div", { className: "toolbar" },
      button("+", "Zoom in", () => this.view.zoom(0.5)),
      button("−", "Zoom out", () => this.view.zoom(2)),
      button("←", "Earlier", () => this.view.pan(-0.4)),
      button("→", "Later", () => this.view.pan(0.4)),
      button("All", "The whole session", () => this.view.show(...this.view.whole)),
      timelines.length === 1 && timelines[0].loads.length
        ? button(timelines[0].loads.length > 1 ? "Loads" : "Load", "From the first load to the last one's end", () => this.showLoads(timelines[0]))
        : null,
      this.range);
    this.ruler = element("canvas", { role: "presentation" });
    this.top = element("canvas", { role: "img", ariaLabel: "Lanes of threads over time; the call tree below has the same as text" });
    this.bottom = element("canvas", { role: "img", ariaLabel: "Memory over time; the tables of peaks below have its figures" });
    this.scroller = element("div", { className: "lanes" }, this.top);
    this.surface = element("div", { className: "time", tabIndex: 0, role: "group" }, this.ruler, this.scroller, this.memory.height ? this.bottom : null);
    this.surface.setAttribute("aria-label", "Timeline: plus and minus zoom, arrow keys move, 0 shows all");
    this.detail = element("div", { className: "detail" });
    this.detail.setAttribute("aria-live", "polite");
    root.append(bar, this.surface, this.detail, this.legend(timelines));
    const said = timelines.flatMap((each) => each.memory.flatMap((process) => process.remarks.map((text) => (process.name ? `${process.name}: ${text}` : text))));
    if (timelines.length === 1 && said.length) root.append(element("ul", { className: "remarks" }, ...said.map((text) => element("li", { textContent: text }))));
  }

  legend(timelines) {
    const phases = new Map();
    for (const each of timelines) for (const phase of each.spans.phases) phases.set(phase[0], phase);
    const items = [...phases.values()].map(([name, letter, family]) =>
      element("span", null, element("i", { className: `swatch f-${family}`, textContent: letter }), name));
    const kinds = new Set(this.memory.panels.flatMap((panel) => panel.series.filter(([, values]) => values.some((size) => size > 0)).map(([kind]) => kind)));
    for (const [kind, name] of [["anonymous", "anonymous"], ["file", "file-backed"], ["shared", "shared"], ["device", "allocated on a device"], ["reserved", "reserved there, and free"]]) {
      if (kinds.has(kind)) items.push(element("span", null, element("i", { className: `swatch m-${kind}` }), name));
    }
    if (timelines.some((each) => each.waits.length)) items.push(element("span", null, element("i", { className: "swatch w-wait" }), "waiting for weights"));
    return element("div", { className: "legend" }, ...items);
  }

  showLoads(timeline) {
    const start = Math.min(...timeline.loads.map((each) => each[0]));
    const end = Math.max(...timeline.loads.map((each) => each[1]));
    const margin = 0.01 * (end - start);
    this.view.show(start - margin, end + margin);
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const width = this.ruler.clientWidth;
    this.view.left = width < 600 ? 76 : 158;
    this.view.width = Math.max(40, Math.min(width, this.top.clientWidth) - this.view.left - 4);
    const began = performance.now();
    drawRuler(this.ruler, this.view);
    this.lanes.draw(this.top, this.view);
    if (this.memory.height) this.memory.draw(this.bottom, this.view);
    this.took = performance.now() - began;
    const { start, end, whole } = this.view;
    const before = start > 0 ? `, ${timeText(start)} before it` : "";
    const after = end < whole[1] * 0.9999 ? `, ${timeText(whole[1] - end)} after it` : "";
    this.range.textContent = before || after ? `${timeText(end - start)} shown${before}${after}` : "all of it shown";
  }

  // -- what is done to it ------------------------------------------------------------------------------------

  listen() {
    const surface = this.surface;
    surface.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    surface.addEventListener("keydown", (event) => this.key(event));
    surface.addEventListener("pointerdown", (event) => this.press(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) surface.addEventListener(name, (event) => this.release(event));
    surface.addEventListener("pointerleave", hideTip);
    surface.addEventListener("dblclick", (event) => {
      const found = this.found(event);
      if (found) this.zoomTo(found);
    });
    new ResizeObserver(() => this.draw()).observe(surface);
  }

  x(event) {
    return event.clientX - this.ruler.getBoundingClientRect().left;
  }

  /** The page scrolls on unless the timeline has the focus, or a key says that it is meant. */
  wheel(event) {
    const meant = event.ctrlKey || event.metaKey || document.activeElement === this.surface;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!meant && !sideways) return;
    event.preventDefault();
    if (sideways || event.shiftKey) this.view.pan((sideways ? event.deltaX : event.deltaY) / Math.max(200, this.view.width));
    else this.view.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 240))), this.view.time(Math.max(this.view.left, this.x(event))));
    hideTip();
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowLeft: () => this.view.pan(-0.15), ArrowRight: () => this.view.pan(0.15), a: () => this.view.pan(-0.15), d: () => this.view.pan(0.15),
      "+": () => this.view.zoom(0.6), "=": () => this.view.zoom(0.6), w: () => this.view.zoom(0.6),
      "-": () => this.view.zoom(1 / 0.6), s: () => this.view.zoom(1 / 0.6),
      0: () => this.view.show(...this.view.whole), Home: () => this.view.show(...this.view.whole),
      Escape: () => choose(null),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
    this.draw();
  }

  press(event) {
    if (event.button) return;
    this.surface.focus({ preventScroll: true });
    this.surface.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.pressed = [event.clientX, event.clientY];
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) {
      this.hover(event);
      return;
    }
    hideTip();
    const others = [...this.fingers].filter(([pointer]) => pointer !== event.pointerId);
    if (others.length) {
      const [, other] = others[0];
      const from = Math.abs(before[0] - other[0]);
      const to = Math.abs(event.clientX - other[0]);
      if (from > 8 && to > 8) this.view.zoom(from / to, this.view.time((event.clientX + other[0]) / 2 - this.ruler.getBoundingClientRect().left));
    } else {
      this.view.pan((before[0] - event.clientX) / this.view.width);
      this.surface.classList.add("dragging");
    }
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.draw();
  }

  release(event) {
    const was = this.fingers.delete(event.pointerId);
    this.surface.classList.remove("dragging");
    const [x, y] = this.pressed || [0, 0];
    if (was && event.type === "pointerup" && Math.abs(event.clientX - x) + Math.abs(event.clientY - y) < 5) this.choose(this.found(event));
  }

  found(event) {
    const box = this.scroller.getBoundingClientRect();
    if (event.clientY < box.top || event.clientY > box.bottom) return null;
    return this.lanes.at(this.x(event), event.clientY - this.top.getBoundingClientRect().top, this.view);
  }

  hover(event) {
    const found = this.found(event);
    let said = found && this.lanes.describe(found);
    if (!said && this.memory.height) {
      const y = event.clientY - this.bottom.getBoundingClientRect().top;
      said = y >= 0 ? this.memory.describe(this.x(event), y, this.view) : null;
    }
    if (said) showTip(event.clientX, event.clientY, said.title, said.lines);
    else hideTip();
  }

  choose(found) {
    this.lanes.now = found;
    const said = found && this.lanes.describe(found);
    this.detail.textContent = said ? `${said.title}   ${said.lines.join("   ")}` : "";
    this.draw();
    if (found && found.row.kind === "spans" && this.onSpan) this.onSpan(found.block.timeline.spans.id[found.at]);
  }

  zoomTo(found) {
    const { start, end } = this.lanes.describe(found);
    const margin = Math.max(0.08 * (end - start), 500);
    this.view.show(start - margin, end + margin);
    this.draw();
  }

  /** Shows some spans and tensors: all of them are in the view, and marked. */
  showThese(spans, tensors) {
    this.lanes.chosen = { spans: new Set(spans), tensors: new Set(tensors) };
    let start = Infinity;
    let end = -Infinity;
    for (const block of this.lanes.blocks) {
      for (const row of block.rows) {
        if (row.kind !== "spans" && !(row.kind === "reads" && tensors.length)) continue;
        for (const at of row.items) {
          if (!this.lanes.isChosen(block, row, at)) continue;
          const [from, to] = this.lanes.box(block, row, at);
          start = Math.min(start, from);
          end = Math.max(end, to);
        }
      }
    }
    if (end >= start) {
      const margin = Math.max(0.15 * (end - start), 2000);
      this.view.show(start - margin, end + margin);
    }
    this.draw();
    return end >= start;
  }
}
