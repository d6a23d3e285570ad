// A table of many rows: only those in sight are made; search, and sort by each column.

class Grid {
  /**
   * columns: {title, right, text(row), sort: numbers or null, width}; the first one takes the room that is left.
   * words: a function that says whether a row has a text in it.
   */
  constructor(root, { count, columns, search, tone, label, rows, onChoose }) {
    Object.assign(this, { count, columns, search, tone, onChoose });
    this.order = null;
    this.by = -1;
    this.down = false;
    this.lit = new Set();
    this.query = "";
    this.only = null;
    this.build(root, label, rows);
    this.layout();
  }

  build(root, label, most) {
    const bar = element("div", { className: "toolbar" });
    this.said = element("span", { className: "said" });
    if (this.search) {
      this.input = element("input", { type: "search", placeholder: "Find", ariaLabel: `Find in ${label}` });
      this.input.addEventListener("input", () => {
        this.query = this.input.value.trim().toLowerCase();
        this.only = null;
        this.layout();
      });
      bar.append(this.input, this.said);
      root.append(bar);
    }
    const widths = this.columns.map((column, at) => (at ? `${column.width}ch` : `minmax(${column.width}ch, 1fr)`));
    this.template = widths.join(" ");
    const least = this.columns.reduce((sum, column) => sum + column.width, 0);
    this.head = element("div", { className: "row head", role: "row" });
    this.head.style.gridTemplateColumns = this.template;
    this.titles = this.columns.map((column, at) => {
      const cell = element("div", { className: column.right ? "n" : "", role: "columnheader" }, element("button", { type: "button", textContent: column.title, onclick: () => this.sortBy(at) }));
      this.head.append(cell);
      return cell;
    });
    this.viewport = element("div", { className: "viewport", tabIndex: 0, role: "rowgroup" });
    if (most) this.viewport.style.maxHeight = most * LINE + "px";
    const inner = element("div", { className: "inner" }, this.head, this.viewport);
    inner.style.minWidth = `max(100%, ${Math.round(least * 7.3 + this.columns.length * 16 + 20)}px)`;
    this.table = element("div", { className: "grid", role: "table" }, inner);
    this.table.setAttribute("aria-label", label);
    this.nothing = element("div", { className: "nothing", textContent: "nothing matches", hidden: true });
    root.append(this.table);
    inner.append(this.nothing);
    this.scroller = new Scroller(this.viewport, (at) => this.line(at));
  }

  layout() {
    const kept = [];
    const matches = this.query && this.search ? this.search(this.query) : null;
    for (let at = 0; at < this.count; at++) {
      const row = this.order ? this.order[at] : at;
      if ((!matches || matches(row)) && (!this.only || this.only.has(row))) kept.push(row);
    }
    this.rows = kept;
    this.nothing.hidden = kept.length > 0;
    this.said.textContent = kept.length === this.count ? countText(this.count, "row") : `${kept.length.toLocaleString("en-US")} of ${this.count.toLocaleString("en-US")}`;
    this.table.setAttribute("aria-rowcount", kept.length);
    this.scroller.reset(kept.length);
  }

  sortBy(at) {
    const column = this.columns[at];
    if (this.by === at && this.down !== Boolean(column.right)) {
      this.by = -1; // the third time: as it was
      this.order = null;
    } else {
      this.down = this.by === at ? !this.down : Boolean(column.right);
      this.by = at;
      this.order = this.ordered(column);
    }
    this.titles.forEach((cell, each) => {
      if (each === this.by) cell.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      cell.firstChild.textContent = this.columns[each].title + (each === this.by ? (this.down ? " ▼" : " ▲") : "");
    });
    this.viewport.scrollTop = 0;
    this.layout();
  }

  ordered(column) {
    const order = Array.from({ length: this.count }, (_, at) => at);
    const sign = this.down ? -1 : 1;
    let keys = column.sort;
    if (!keys) {
      const texts = order.map((row) => column.text(row).toLowerCase());
      const places = new Map([...new Set(texts)].sort().map((text, at) => [text, at]));
      keys = texts.map((text) => places.get(text));
    }
    // What is not known comes last, whatever the direction.
    const known = (value) => value !== null && value !== undefined;
    return order.sort((a, b) => {
      const [first, second] = [keys[a], keys[b]];
      if (!known(first) || !known(second)) return known(second) - known(first) || a - b;
      return sign * (first - second) || a - b;
    });
  }

  line(number) {
    const at = this.rows[number];
    const row = element("div", { className: "row", role: "row" });
    row.style.gridTemplateColumns = this.template;
    const tone = this.tone ? this.tone(at) : "";
    if (tone) row.classList.add(tone);
    if (this.lit.has(at)) row.classList.add("lit");
    this.columns.forEach((column) => {
      const content = column.cell ? column.cell(at) : column.text(at);
      const cell = element("div", { className: column.right ? "n" : "", role: "cell" });
      cell.append(content);
      if (cell.textContent.length * 1.02 > column.width) cell.title = cell.textContent;
      row.append(cell);
    });
    row.setAttribute("aria-rowindex", number + 1);
    if (this.onChoose) {
      row.tabIndex = 0;
      row.onclick = () => this.onChoose(at);
      row.onkeydown = (event) => { if (event.key === "Enter") this.onChoose(at); };
    }
    return row;
  }

  /** Shows some rows alone, marked; all rows again where there are none. */
  showThese(rows) {
    this.lit = new Set(rows);
    this.only = rows.length ? new Set(rows) : null;
    this.query = "";
    if (this.input) this.input.value = "";
    this.viewport.scrollTop = 0;
    this.layout();
  }
}

/** Returns a width for texts, by the longest of some of them. */
function widthOf(title, texts, most) {
  let longest = title.length + 2;
  const step = Math.max(1, Math.floor(texts.length / 2000));
  for (let at = 0; at < texts.length; at += step) longest = Math.max(longest, texts[at].length);
  return Math.min(longest, most) + 0.5;
}

function tensorGrid(root, data) {
  const word = (name) => (row) => data.words[name][data[name][row]];
  const column = (title, name, most) => ({ title, text: word(name), width: widthOf(title, data.words[name], most) });
  const columns = [
    { title: "tensor", text: (row) => data.name[row], width: Math.min(46, widthOf("tensor", data.name, 46)) },
    column("shape", "shape", 20),
    column("dtype", "dtype", 22),
    column("device", "device", 14),
    column("from", "from", 26),
    { title: "bytes", right: true, text: (row) => bytesText(data.bytes[row]), sort: data.bytes, width: 9 },
    { title: "read", right: true, text: (row) => timeText(data.read[row]), sort: data.read, width: 9 },
    column("file", "file", 34),
  ];
  if (data.key.some(Boolean)) columns.push({ title: "key in the checkpoint", text: (row) => data.key[row] || "", width: 40 });
  if (data.load) columns.splice(1, 0, { title: "load", right: true, text: (row) => (data.load[row] ? String(data.load[row]) : "-"), sort: data.load, width: 6 });
  if (data.rank) columns.splice(1, 0, { title: "rank", right: true, text: (row) => String(data.rank[row]), sort: data.rank, width: 6 });
  const unused = new Set(data.unused);
  let lower = null;
  const search = (query) => {
    lower = lower || data.name.map((name, row) => (data.key[row] ? name + "\n" + data.key[row] : name).toLowerCase());
    const hits = Object.keys(data.words).map((name) => [data[name], data.words[name].map((text) => text.toLowerCase().includes(query))]).filter(([, found]) => found.some(Boolean));
    return (row) => lower[row].includes(query) || hits.some(([places, found]) => found[places[row]]);
  };
  return new Grid(root, { count: data.name.length, columns, search, label: "tensors", tone: (row) => (unused.has(row) ? "x" : "") });
}

function listGrid(root, data, label) {
  const columns = data.titles.map((title, at) => ({
    title,
    right: data.right[at],
    text: (row) => data.cells[at][row],
    sort: data.sort[at],
    width: widthOf(title, data.cells[at], at ? 30 : 44),
  }));
  const search = (query) => (row) => data.cells.some((cells) => cells[row].toLowerCase().includes(query));
  return new Grid(root, { count: data.cells[0].length, columns, search, label, tone: (row) => data.tone[row] });
}
