// Puts the parts into their places, and lets findings point into them.

document.documentElement.classList.add("js");

const PARTS = {};

function start() {
  const made = (identity, make) => {
    const root = place(identity);
    if (root) PARTS[identity] = make(root);
  };
  made("timeline", (root) => new Timeline(root, DATA.timelines));
  if (PARTS.timeline) tablesBehind(PARTS.timeline.surface.parentElement, DATA.timelines, PARTS.timeline.memory);
  if (DATA.tree) made("tree", (root) => new Tree(root, DATA.tree, PARTS.timeline));
  if (DATA.models && DATA.models.length) made("model", (root) => new ModelMap(root, DATA.models));
  if (DATA.tensors) made("tensors", (root) => tensorGrid(root, DATA.tensors));
  if (DATA.files) made("files", (root) => listGrid(root, DATA.files, "files"));
  if (DATA.requests) made("requests", (root) => listGrid(root, DATA.requests, "requests"));
  if (PARTS.timeline && PARTS.tree) PARTS.timeline.onSpan = (span) => PARTS.tree.showThese([span], false);
  for (const button of document.querySelectorAll("button.where")) {
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(button.getAttribute("aria-pressed") === "true" ? null : Number(button.dataset.finding)));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  for (const [event, paper] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      document.documentElement.classList.toggle("paper", paper);
      redrawAll();
    });
  }
}

/** Marks what a finding is about in all parts; nothing where it is none. */
function choose(number) {
  const where = number === null ? { spans: [], tensors: [], files: [] } : DATA.where[number];
  for (const button of document.querySelectorAll("button.where")) {
    const chosen = number !== null && Number(button.dataset.finding) === number;
    button.setAttribute("aria-pressed", String(chosen));
    button.textContent = chosen ? "Stop showing" : "Show where";
    button.closest(".finding").classList.toggle("chosen", chosen);
  }
  if (PARTS.timeline) PARTS.timeline.showThese(where.spans, where.tensors);
  if (PARTS.tree) PARTS.tree.showThese(where.spans, true);
  const rows = (names, wanted) => {
    const found = new Set(wanted);
    return found.size ? names.flatMap((name, at) => (found.has(name) ? [at] : [])) : [];
  };
  if (PARTS.tensors) PARTS.tensors.showThese(rows(DATA.tensors.name, where.tensors));
  if (PARTS.files) PARTS.files.showThese(rows(DATA.files.cells[0], where.files));
  if (number === null) return;
  const target = where.spans.length ? "timeline" : where.tensors.length ? "tensors" : where.files.length ? "files" : null;
  const part = target && document.getElementById(target);
  if (part) part.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

start();
