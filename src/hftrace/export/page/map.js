// The model as a map: modules and tensors as areas by their bytes, and a table of the same.

const HUES = ["read", "build", "find", "fetch", "move", "change", "finish", "wait", "use", "step"];
const BY = [["dtype", "dtype"], ["place", "device"], ["from", "where it came from"]];

class ModelMap {
  constructor(root, models) {
    this.models = models;
    this.by = "dtype";
    this.build(root);
    this.pick(0);
    REDRAW.push(() => this.draw());
  }

  build(root) {
    const pick = (options, label, act) => {
      const made = element("select", { ariaLabel: label }, ...options.map(([value, text]) => element("option", { value, textContent: text })));
      made.addEventListener("change", () => act(made.value));
      return made;
    };
    this.crumbs = element("span", { className: "crumbs" });
    const several = this.models.length > 1 ? pick(this.models.map((model, at) => [at, model.title]), "Model", (at) => this.pick(Number(at))) : null;
    const by = pick(BY.map(([value, text]) => [value, "colour: " + text]), "Colour", (value) => { this.by = value; this.draw(); });
    root.append(element("div", { className: "toolbar" }, several, by, this.crumbs));
    this.canvas = element("canvas", { role: "img" });
    this.canvas.setAttribute("aria-label", "Modules by bytes; the table beside it has the same");
    this.side = element("div", null);
    this.legend = element("div", { className: "legend" });
    root.append(element("div", { className: "map" }, element("div", null, this.canvas, this.legend), this.side));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", hideTip);
    this.canvas.addEventListener("click", (event) => this.enter(this.at(event)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  pick(at) {
    const model = this.models[at];
    this.model = model;
    const { parent, tensors } = model;
    if (!model.sizes) this.unpack(model);
    this.children = parent.map(() => []);
    parent.forEach((up, each) => { if (up >= 0) this.children[up].push(each); });
    this.own = parent.map(() => []);
    tensors.module.forEach((module, each) => this.own[module].push(each));
    this.sums = {};
    for (const [name] of BY) {
      const sums = parent.map(() => new Map());
      tensors.module.forEach((module, each) => {
        const word = tensors[name][each];
        for (let up = module; up >= 0; up = parent[up]) sums[up].set(word, (sums[up].get(word) || 0) + tensors.bytes[each]);
      });
      this.sums[name] = sums;
    }
    this.go(0);
  }

  /** Puts back what the ledger of the page says already, and the bytes of each module. */
  unpack(model) {
    const { tensors, parent } = model;
    tensors.module = summed(tensors.module);
    if (tensors.row) {
      const ledger = DATA.tensors;
      tensors.row = summed(tensors.row);
      tensors.name = tensors.row.map((row) => ledger.name[row].slice(ledger.name[row].lastIndexOf(".") + 1));
      tensors.bytes = tensors.row.map((row) => ledger.bytes[row] || 0);
      tensors.shape = tensors.row.map((row) => ledger.words.shape[ledger.shape[row]]);
    }
    // One that stands there under another name as well is counted once.
    for (const at of tensors.again) tensors.bytes[at] = 0;
    model.name = model.name.map((word) => model.words.name[word]);
    model.sizes = parent.map(() => 0);
    tensors.module.forEach((module, at) => (model.sizes[module] += tensors.bytes[at] || 0));
    for (let at = parent.length - 1; at > 0; at--) model.sizes[parent[at]] += model.sizes[at];
    for (const [at, size] of model.size) model.sizes[at] = size;
  }

  /** Goes to a module; one that holds a single module and nothing else leads into that. */
  go(module) {
    this.module = module;
    const path = [];
    for (let up = module; up >= 0; up = this.model.parent[up]) path.unshift(up);
    this.crumbs.replaceChildren(...path.flatMap((each, at) => [at ? "." : "", element("button", { type: "button", textContent: at ? this.model.name[each] : this.model.words.class[this.model.class[each]] || "model", onclick: () => this.go(each) })]));
    this.list();
    this.draw();
  }

  /** Returns the parts of a module: its modules and its own tensors, the largest first. */
  parts(module) {
    const modules = this.children[module].map((each) => ({ module: each, bytes: this.model.sizes[each] }));
    const tensors = this.own[module].map((each) => ({ tensor: each, bytes: this.model.tensors.bytes[each] }));
    return [...modules, ...tensors].sort((a, b) => b.bytes - a.bytes);
  }

  name(part) {
    return part.module !== undefined ? this.model.name[part.module] : this.model.tensors.name[part.tensor];
  }

  word(part, by = this.by) {
    const words = this.model.words[by];
    if (part.tensor !== undefined) return words[this.model.tensors[by][part.tensor]];
    const sums = [...this.sums[by][part.module]].sort((a, b) => b[1] - a[1]);
    return sums.map(([word]) => words[word]).join(", ");
  }

  /** Returns the colour of a part: that of most of its bytes. */
  hue(part) {
    let best = part.tensor !== undefined ? this.model.tensors[this.by][part.tensor] : -1;
    if (best < 0) {
      let most = -1;
      for (const [word, size] of this.sums[this.by][part.module]) if (size > most) [best, most] = [word, size];
    }
    return this.hues.get(best) || "other";
  }

  draw() {
    const height = this.canvas.parentElement.clientWidth < 560 ? 300 : 420;
    const context = fitted(this.canvas, height);
    const order = [...this.sums[this.by][0]].sort((a, b) => b[1] - a[1]);
    this.hues = new Map(order.map(([word], at) => [word, HUES[at] || "other"]));
    this.legend.replaceChildren(...order.slice(0, 12).map(([word, size], at) => element("span", null, element("i", { className: `swatch f-${HUES[at] || "other"}`, textContent: at < 9 ? String(at + 1) : "" }), `${this.model.words[this.by][word]} ${bytesText(size)}`)));
    this.boxes = [];
    this.lay(this.parts(this.module), 0, 0, this.canvas.clientWidth, height, 0);
    context.textBaseline = "middle";
    for (const box of this.boxes) this.drawBox(context, box);
    if (!this.boxes.length) {
      context.font = SANS;
      context.fillStyle = colour("dim");
      context.fillText("nothing here holds any bytes", 8, 14);
    }
  }

  drawBox(context, box) {
    const { x, y, width, height, part, level, around } = box;
    context.fillStyle = colour(around ? "panel" : this.hue(part));
    context.fillRect(x + 0.5, y + 0.5, Math.max(0.5, width - 1), Math.max(0.5, height - 1));
    if (around) {
      context.strokeStyle = colour("line");
      context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    }
    if (width < 26 || height < 13) return;
    context.font = MONO;
    context.fillStyle = colour(around ? "ink" : "box-ink");
    const number = [...this.hues.values()].indexOf(this.hue(part)) + 1;
    if (!around && width < 52) {
      context.fillText(String(number), x + 5, y + 10);
      return;
    }
    const mark = around ? "" : `${number} `;
    const line = `${mark}${this.name(part)}`;
    const size = bytesText(part.bytes);
    const room = Math.floor((width - 8) / (CELL.width || 6.6));
    const both = line.length + 2 + size.length <= room || height < 27;
    context.fillText(cut(context, both && line.length + 2 + size.length <= room ? `${line}  ${size}` : line, width - 8), x + 5, y + (around ? 9 : 10));
    if (!both && !around) {
      context.globalAlpha = 0.75;
      context.fillText(cut(context, size, width - 8), x + 5, y + 23);
      context.globalAlpha = 1;
    }
  }

  /** Lays parts out in strips that are as near to squares as can be. */
  lay(parts, x, y, width, height, level) {
    const filled = parts.filter((part) => part.bytes > 0);
    const total = filled.reduce((sum, part) => sum + part.bytes, 0);
    if (!total || width < 2 || height < 2) return;
    const scale = (width * height) / total;
    let at = 0;
    while (at < filled.length) {
      const side = Math.min(width, height);
      let strip = [];
      let area = 0;
      let worst = Infinity;
      while (at + strip.length < filled.length) {
        const next = filled[at + strip.length].bytes * scale;
        const sum = area + next;
        const first = (strip.length ? strip[0].bytes * scale : next);
        const ratio = Math.max((side * side * first) / (sum * sum), (sum * sum) / (side * side * next));
        if (strip.length && ratio > worst) break;
        worst = ratio;
        area = sum;
        strip.push(filled[at + strip.length]);
      }
      const thick = Math.min(area / side, Math.max(width, height));
      let offset = 0;
      for (const part of strip) {
        const length = (part.bytes * scale) / thick;
        if (width >= height) this.place(part, x, y + offset, thick, length, level);
        else this.place(part, x + offset, y, length, thick, level);
        offset += length;
      }
      if (width >= height) [x, width] = [x + thick, width - thick];
      else [y, height] = [y + thick, height - thick];
      at += strip.length;
      if (width < 1 || height < 1) break;
    }
  }

  place(part, x, y, width, height, level) {
    const around = part.module !== undefined && width > 44 && height > 40 && level < 5 && this.parts(part.module).length > 0;
    this.boxes.push({ part, x, y, width, height, level, around });
    if (around) this.lay(this.parts(part.module), x + 2, y + 17, width - 4, height - 19, level + 1);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    for (const each of this.boxes) if (x >= each.x && x < each.x + each.width && y >= each.y && y < each.y + each.height) found = each;
    return found;
  }

  hover(event) {
    const found = this.at(event);
    if (!found) return hideTip();
    const { part } = found;
    const path = [];
    const { model } = this;
    for (let up = part.module !== undefined ? part.module : model.tensors.module[part.tensor]; up > 0; up = model.parent[up]) path.unshift(model.name[up]);
    if (part.tensor !== undefined) path.push(this.name(part));
    const share = model.sizes[0] ? shareText(part.bytes / model.sizes[0]) + " of the model" : "";
    const kind = part.module !== undefined ? model.words.class[model.class[part.module]] : model.tensors.shape[part.tensor];
    showTip(event.clientX, event.clientY, path.join("."), [`${bytesText(part.bytes)}, ${share}`, kind, ...BY.map(([by]) => this.word(part, by))]);
    return undefined;
  }

  enter(found) {
    if (!found) return;
    let module = found.part.module !== undefined ? found.part.module : this.model.tensors.module[found.part.tensor];
    // One level at a time: what lies between here and there is entered first.
    while (module > 0 && this.model.parent[module] !== this.module && module !== this.module) module = this.model.parent[module];
    if (module !== this.module && this.children[module].length + this.own[module].length) this.go(module);
  }

  list() {
    const parts = this.parts(this.module);
    const whole = this.model.sizes[this.module] || 0;
    const words = (part) => (part.module !== undefined ? this.model.words.class[this.model.class[part.module]] || "" : this.model.tensors.shape[part.tensor]);
    const columns = [
      { title: "part", text: (at) => this.name(parts[at]), width: 14 },
      ...(parts.some(words) ? [{ title: "class or shape", text: (at) => words(parts[at]), width: 16 }] : []),
      { title: "bytes", right: true, text: (at) => bytesText(parts[at].bytes), sort: parts.map((part) => part.bytes), width: 9 },
      { title: "share", right: true, text: (at) => (whole ? shareText(parts[at].bytes / whole) : "-"), sort: parts.map((part) => part.bytes), width: 7 },
      { title: "dtype", text: (at) => this.word(parts[at], "dtype"), width: 11 },
    ];
    this.side.replaceChildren();
    this.grid = new Grid(this.side, { count: parts.length, columns, label: "modules and tensors", onChoose: (at) => { if (parts[at].module !== undefined) this.go(parts[at].module); } });
  }
}
