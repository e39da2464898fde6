/* The panel over the right side of the picture: everything about one box. */
const detail = byId("detail");
const nodes = new Map(DATA.graph.nodes.map((node) => [node.id, node]));
const boxOf = new Map(boxes.filter((b) => b.node).map((b) => [b.node, b]));
const KINDS = { memory: "memory", buffer: "buffer of past values", weights: "weights", initial: "initial values", optimizer: "optimizer of the level", input: "input", output: "output", loss: "loss", level: "folded level" };

const plural = (count, one, many = one + "s") => (count === 1 ? `1 ${one}` : `${count} ${many}`);
const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u2009");
const shape = (thing) => thing.axes.map(([, size]) => `${size} \u00d7 `).join("") + `[${thing.shape.join(", ")}]`;

function swatch(lane) {
  return make("span", { class: `swatch b-accent${lane.n}` });
}

function closeDetail() {
  detail.hidden = true;
  canvas.classList.remove("beside");
}

function every(state) {
  if (!state.period) return "never";
  return state.period === 1 ? "every token" : `every ${state.period} tokens`;
}
function reset(state) {
  return { sequence: "per sequence", never: "never", clock: `every ${state.reset_period} tokens` }[state.reset] ?? state.reset;
}

function statesTable(node) {
  const rows = node.states.filter((s) => !s.hidden || node.kind === "buffer").map((s) => {
    const anchor = s.anchors.length ? `, read at the anchor of ${s.anchors.join(", ")}` : "";
    return make("tr", {}, make("td", { class: "mono", text: s.label }), make("td", { class: "mono", text: shape(s) }),
      make("td", { text: `${every(s)}${anchor}; reset ${reset(s)}${s.shared ? "; shared by the batch" : ""}` }));
  });
  const head = make("tr", {}, ...["state", "shape", "updated"].map((text) => make("th", { text })));
  return rows.length ? [make("h3", { text: "States" }), make("table", {}, head, ...rows)] : [];
}

function updates(node) {
  const found = node.states.map((s) => DATA.updates[s.name]).filter(Boolean);
  const texts = [...new Set(found)];
  return texts.length ? [make("h3", { text: "Update" }), ...texts.map((text) => make("pre", { text }))] : [];
}

function paramsTable(node) {
  if (!node.params.length) return [];
  const head = make("tr", {}, ...["parameter", "shape", "starts as"].map((text) => make("th", { text })));
  const rows = node.params.slice(0, 40).map((p) => {
    const note = p.reached ? "" : " (no gradient reaches it)";
    return make("tr", {}, make("td", { class: "mono", text: p.label }), make("td", { class: "mono", text: shape(p) }), make("td", { text: p.initializer + note }));
  });
  const total = node.params.reduce((sum, p) => sum + p.size, 0);
  const more = node.params.length > 40 ? `, the first 40 of ${node.params.length}` : "";
  return [make("h3", { text: `Parameters \u00b7 ${grouped(total)} weights${more}` }), make("table", {}, head, ...rows)];
}

function edgeList(title, found, other) {
  if (!found.length) return [];
  const items = found.map((edge) => {
    const style = edge.flow === "gradient" || edge.flow === "reset" ? edge.flow : edge.transfer || "context";
    const node = nodes.get(edge[other]), box = boxOf.get(edge[other]);
    const label = node ? node.label : edge[other].replace(/^level:/, "level ");
    const target = box ? make("button", { type: "button", text: label, click: () => choose(box) }) : make("span", { text: label });
    const notes = [edge.names.join(", "), edge.next ? "of the next round" : "", edge.detached ? "no derivative" : ""].filter(Boolean).join(" \u00b7 ");
    const line = sample(style, edge.detached);
    line.append(make("title", { svg: true, text: DATA.links[style].label }));
    return make("li", {}, line, target, make("span", { class: "sub", text: notes }));
  });
  return [make("h3", { text: title }), make("ul", { class: "edges" }, ...items)];
}

function showBox(box) {
  const node = nodes.get(box.node);
  if (!node) return closeDetail();
  const tags = [];
  if (node.count > 1) tags.push(`\u00d7 ${node.count} layers`);
  if (node.copies) tags.push(`${node.copies} copies`);
  if (node.learns) tags.push(node.learns === "own" ? "learns from its own loss" : "learns from the task loss");
  for (const period of new Set(node.states.flatMap((s) => s.anchors))) tags.push(`anchor ${period}`);
  const level = laneOf.get(box.lane);
  const back = make("button", { type: "button", class: "quiet", text: "Close", click: () => choose(box) });
  const graph = DATA.graph.edges;
  const parts = node.parts.length > 1 ? [make("h3", { text: "Made of" }), make("p", { class: "sub", text: node.parts.join(", ") })] : [];
  detail.replaceChildren(
    make("div", { class: "head" }, make("h2", { text: node.kind === "initial" ? "Initial values" : node.label }), back),
    make("p", { class: "sub", text: [node.template, KINDS[node.kind], level.header ? level.title : ""].filter(Boolean).join(" \u00b7 ") }),
    node.path && node.path !== node.label ? make("p", { class: "sub mono", text: node.path }) : "",
    node.source ? make("p", { class: "sub mono", text: node.source }) : "",
    make("div", { class: "tags" }, ...tags.map((text) => make("span", { class: "tag", text }))),
    ...statesTable(node), ...updates(node), ...paramsTable(node), ...parts,
    ...edgeList("Fed by", graph.filter((e) => e.target === node.id), "source"),
    ...edgeList("Feeds", graph.filter((e) => e.source === node.id), "target"),
  );
  detail.scrollTop = 0;
  detail.hidden = false;
  canvas.classList.add("beside");
  const seen = box.group.getBoundingClientRect(), panel = detail.getBoundingClientRect();
  if (seen.right > panel.left - 16) canvas.scrollLeft += seen.right - panel.left + 16;
}

arrange();
