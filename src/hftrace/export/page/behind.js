// The tables behind the timeline: every span, and every reading of memory; each is made when it is opened.

function behind(root, title, make) {
  const body = element("div", null);
  const details = element("details", null, element("summary", { textContent: title }), body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.firstChild) make(body);
  });
  root.append(details);
}

function tablesBehind(root, timelines, memory) {
  for (const timeline of timelines) {
    const name = timeline.name ? `, ${timeline.name}` : "";
    const { spans } = timeline;
    if (!spans.id.length) continue;
    behind(root, `${countText(spans.id.length, "span")} as a table${name}`, (body) => {
      const title = (at) => spans.words[spans.name[at]];
      const took = spans.start.map((start, at) => spans.end[at] - start);
      const lanes = timeline.lanes.map((lane) => lane.name);
      const columns = [
        { title: "span", text: title, width: 34 },
        { title: "phase", text: (at) => spans.phases[spans.phase[at]][0], width: 18 },
        { title: "thread", text: (at) => lanes[spans.lane[at]], width: widthOf("thread", lanes, 26) },
        { title: "from", right: true, text: (at) => timeText(spans.start[at] - timeline.shift), sort: spans.start, width: 11 },
        { title: "took", right: true, text: (at) => timeText(took[at]), sort: took, width: 11 },
        { title: "peak RSS", right: true, text: (at) => bytesText(spans.peak[at]), sort: spans.peak, width: 10 },
        { title: "file:line", text: (at) => (spans.source[at] < 0 ? "-" : spans.words[spans.source[at]]), width: 40 },
      ];
      const search = (query) => (at) => columns.some((column) => !column.sort && column.text(at).toLowerCase().includes(query));
      new Grid(body, { count: spans.id.length, columns, search, label: "spans", tone: (at) => (spans.status[at] ? "x" : ""), rows: 14 });
    });
  }
  const names = { anonymous: "anonymous", file: "file-backed", shared: "shared", device: "allocated", reserved: "reserved, and free" };
  for (const panel of memory.panels) {
    behind(root, `${countText(panel.time.length, "reading")} as a table, ${panel.title}`, (body) => {
      const size = (title, values) => ({ title, right: true, text: (at) => bytesText(values[at]), sort: values, width: Math.max(11, title.length + 3) });
      const columns = [
        { title: "time", text: (at) => timeText(panel.time[at] - panel.shift), sort: panel.time, width: 12 },
        size("total", panel.total),
        ...panel.series.map(([kind, values]) => size(names[kind], values)),
      ];
      new Grid(body, { count: panel.time.length, columns, label: `readings of ${panel.title}`, rows: 14 });
    });
  }
}
