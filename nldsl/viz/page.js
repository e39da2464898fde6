"use strict";
/* The level graph: folding of lanes, details of a box, themes. Texts reach the page through textContent only. */
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const still = matchMedia("(prefers-reduced-motion: reduce)");
const byId = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/** An element with properties, classes and children. */
function make(tag, options = {}, ...children) {
  const node = options.svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") node.setAttribute("class", value);
    else if (key === "text") node.textContent = value;
    else if (key === "click") node.addEventListener("click", value);
    else if (key !== "svg") node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== ""));
  return node;
}

/** A short sample of a kind of edge. */
function sample(style, dashed = false) {
  const kind = DATA.links[style];
  const line = make("svg", { svg: true, class: "line", width: 30, height: 10, viewBox: "0 0 30 10", "aria-hidden": "true" });
  const stroke = `s-link-${style}`;
  const path = make("path", { svg: true, class: stroke, d: `M${kind.both ? 7 : 1},5 L22,5`, fill: "none", "stroke-width": 1.7 });
  if (dashed) path.setAttribute("stroke-dasharray", "4 3");
  if (kind.dotted) path.setAttribute("stroke-dasharray", "1.5 2.5");
  line.append(path);
  const heads = { normal: "21,2 28,5 21,8", onormal: "21,2 28,5 21,8", diamond: "20,5 24,2 28,5 24,8", vee: "20,2 28,5 20,8 22.5,5", tee: "25,1 27,1 27,9 25,9" };
  const fill = kind.head === "onormal" ? "f-card" : `f-link-${style}`;
  line.append(make("polygon", { svg: true, class: `${fill} ${stroke}`, points: heads[kind.head], "stroke-width": 1 }));
  if (kind.both) line.append(make("polygon", { svg: true, class: `f-card ${stroke}`, points: "9,2 2,5 9,8", "stroke-width": 1 }));
  return line;
}

/* ------------------------------------------------------------------ the picture */

const svg = document.querySelector("#canvas > svg");
const root = svg.querySelector("g");
const HEIGHT_FOLDED = 34;

const numbers = (text) => text.match(/-?\d+(?:\.\d+)?/g).map(Number);
const pairs = (text) => { const n = numbers(text); return n.flatMap((v, i) => (i % 2 ? [] : [[v, n[i + 1]]])); };
const bounds = (points) => {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  return { x0: Math.min(...xs), x1: Math.max(...xs), y0: Math.min(...ys), y1: Math.max(...ys) };
};

/** Replaces the path of a rounded box by a rectangle that can change its height. */
function toRect(path, radius) {
  const b = bounds(pairs(path.getAttribute("d")));
  const rect = make("rect", { svg: true, class: path.getAttribute("class"), x: b.x0, y: b.y0, width: b.x1 - b.x0, height: b.y1 - b.y0, rx: radius });
  if (!/\bf-/.test(path.getAttribute("class"))) rect.setAttribute("fill", "none");
  if (path.hasAttribute("stroke-dasharray")) rect.setAttribute("stroke-dasharray", path.getAttribute("stroke-dasharray"));
  path.replaceWith(rect);
  return { rect, ...b };
}

const lanes = DATA.lanes.map((lane, n) => {
  const group = svg.querySelector(`#lane${n}`), header = svg.querySelector(`#h${n}`);
  const texts = header ? [...header.querySelectorAll("text")].map((node) => ({ node, y: +node.getAttribute("y") })) : [];
  return { ...lane, n, header, texts, ...toRect(group.querySelector("path"), 10), folded: 0, goal: 0 };
});
const frames = [...svg.querySelectorAll("g.frame")].map((group) => {
  const text = group.querySelector("text");
  return { ...toRect(group.querySelector("path"), 10), text, y: text ? +text.getAttribute("y") : 0 };
});
const laneOf = new Map(lanes.map((lane) => [lane.id, lane]));
const boxes = DATA.boxes.map((box, n) => {
  const group = svg.querySelector(`#b${n}`);
  const b = bounds(pairs(group.querySelector("path").getAttribute("d")));
  const lane = laneOf.get(box.lane);
  const pill = make("rect", { svg: true, class: `pill f-accent${lane.n}`, x: b.x0, width: b.x1 - b.x0, height: 6, rx: 3 });
  pill.append(make("title", { svg: true, text: box.label }));
  group.before(pill);
  group.append(make("rect", { svg: true, class: "halo", x: b.x0 - 3, y: b.y0 - 3, width: b.x1 - b.x0 + 6, height: b.y1 - b.y0 + 6, rx: 13 }));
  return { ...box, n, group, pill, laneRow: lane, ...b };
});
const edges = DATA.edges.map((edge, n) => {
  const group = svg.querySelector(`#e${n}`);
  const curves = [...group.querySelectorAll("path")].map((node) => ({ node, points: pairs(node.getAttribute("d")) }));
  const heads = [...group.querySelectorAll("polygon, polyline, ellipse")].map((node) => {
    const points = node.hasAttribute("points") ? pairs(node.getAttribute("points")) : [[0, +node.getAttribute("cy")]];
    return { node, y: points.reduce((sum, p) => sum + p[1], 0) / points.length };
  });
  const texts = [...group.querySelectorAll("text")].map((node) => ({ node, y: +node.getAttribute("y") }));
  return { ...edge, n, group, curves, heads, texts };
});
const belowAll = [...svg.querySelectorAll("g.legend")];
belowAll.forEach((group) => group.remove());
const top0 = lanes[0].y0 - 8, bottom0 = Math.max(...lanes.map((l) => l.y1), ...frames.map((f) => f.y1));
const width0 = lanes[0].x1 - lanes[0].x0;
root.querySelector(":scope > polygon")?.remove();
root.setAttribute("transform", "");

/** Maps heights of the full picture to the one with folded lanes. */
function heights() {
  let shift = 0;
  const rows = lanes.map((lane) => {
    const full = lane.y1 - lane.y0, now = full + (Math.min(full, HEIGHT_FOLDED) - full) * lane.folded;
    const row = { ...lane, top: lane.y0 - shift, now, full };
    shift += full - now;
    return row;
  });
  return (y) => {
    let last = 0;
    for (const row of rows) {
      if (y < row.y0) break;
      if (y <= row.y1) return row.top + ((y - row.y0) / row.full) * row.now;
      last = row.full - row.now + (row.y0 - row.top);
    }
    return y - last;
  };
}

function arrange() {
  const at = heights();
  const round = (v) => Math.round(v * 100) / 100;
  const move = (node, dy) => node.setAttribute("transform", `translate(0 ${round(dy)})`);
  for (const lane of lanes) {
    const y0 = at(lane.y0), y1 = at(lane.y1), middle = (y0 + y1) / 2;
    lane.rect.setAttribute("y", round(y0));
    lane.rect.setAttribute("height", round(y1 - y0));
    lane.texts.forEach((text, n) => {
      const open = middle + text.y - (lane.y0 + lane.y1) / 2;
      text.node.setAttribute("y", round(n ? open : open + (middle + 4 - open) * lane.folded));
      text.node.setAttribute("opacity", n ? 1 - lane.folded : 1);
    });
  }
  for (const frame of frames) {
    const y0 = at(frame.y0);
    frame.rect.setAttribute("y", round(y0));
    frame.rect.setAttribute("height", round(at(frame.y1) - y0));
    if (frame.text) frame.text.setAttribute("y", round(frame.y + y0 - frame.y0));
  }
  for (const box of boxes) {
    const middle = (box.y0 + box.y1) / 2, y = at(middle);
    const gone = box.laneRow.folded > 0.5;
    move(box.group, y - middle);
    box.group.classList.toggle("gone", gone);
    box.pill.classList.toggle("shown", gone);
    box.pill.setAttribute("y", round(y - 3));
  }
  for (const edge of edges) {
    const folded = boxes[edge.source].laneRow.folded > 0.5 && boxes[edge.target].laneRow.folded > 0.5;
    edge.group.classList.toggle("inside", folded);
    for (const { node, points } of edge.curves) {
      const text = points.map(([x, y]) => `${x},${round(at(y))}`);
      node.setAttribute("d", `M${text[0]}C${text.slice(1).join(" ")}`);
    }
    for (const { node, y } of edge.heads) move(node, at(y) - y);
    for (const { node, y } of edge.texts) {
      move(node, at(y) - y);
      node.setAttribute("opacity", folded ? 0 : 1);
    }
  }
  const bottom = at(bottom0);
  view = { x: lanes[0].x0 - 8, y: top0, width: width0 + 16, height: bottom - top0 + 10 };
  svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  resize();
}

/* ------------------------------------------------------------------ zoom and folding */

let view = { width: width0, height: bottom0 - top0 }, zoom = null;
const canvas = byId("canvas");
const fitted = () => Math.min(1.5, Math.max(canvas.offsetWidth / view.width, 0.62));

function resize() {
  const scale = zoom ?? fitted();
  svg.setAttribute("width", Math.floor(view.width * scale));
  svg.setAttribute("height", Math.floor(view.height * scale));
}

function zoomBy(factor) {
  const before = zoom ?? fitted();
  zoom = Math.min(4, Math.max(0.25, before * factor));
  const middle = canvas.scrollLeft + canvas.clientWidth / 2;
  resize();
  canvas.scrollLeft = (middle * zoom) / before - canvas.clientWidth / 2;
}

function fold(lane, folded) {
  lane.goal = folded ? 1 : 0;
  lane.header?.setAttribute("aria-expanded", String(!folded));
  byId("fold").textContent = lanes.some((l) => l.header && !l.goal) ? "Fold all" : "Unfold all";
  animate();
}

let running = false;
function animate() {
  if (running) return;
  running = true;
  let last = performance.now();
  const frame = (now) => {
    const step = still.matches ? 1 : Math.min((now - last) / 220, 0.2);
    last = now;
    let moving = false;
    for (const lane of lanes) {
      const rest = lane.goal - lane.folded;
      lane.folded = Math.abs(rest) <= step ? lane.goal : lane.folded + Math.sign(rest) * step;
      moving ||= lane.folded !== lane.goal;
    }
    arrange();
    if (moving) requestAnimationFrame(frame);
    else running = false;
  };
  requestAnimationFrame(frame);
}

byId("in").addEventListener("click", () => zoomBy(1.25));
byId("out").addEventListener("click", () => zoomBy(0.8));
byId("fit").addEventListener("click", () => { zoom = null; resize(); });
byId("fold").addEventListener("click", () => {
  const folded = lanes.some((l) => l.header && !l.goal);
  lanes.forEach((lane) => lane.header && fold(lane, folded));
});
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 300));
}, { passive: false });
addEventListener("resize", resize);

const asButton = (node, label, act) => {
  node.setAttribute("tabindex", "0");
  node.setAttribute("role", "button");
  node.setAttribute("aria-label", label);
  node.addEventListener("click", act);
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  });
};
for (const lane of lanes) {
  if (!lane.header) continue;
  asButton(lane.header, `Level ${lane.title}`, () => fold(lane, !lane.goal));
  lane.header.setAttribute("aria-expanded", "true");
  lane.rect.addEventListener("dblclick", () => fold(lane, !lane.goal));
}

/* ------------------------------------------------------------------ highlighting */

/** Shows some edges and the boxes at their ends, and dims the rest; through a joint to what it joins. */
function light(chosenEdges, own = []) {
  const lit = new Set(chosenEdges);
  for (const edge of chosenEdges) {
    for (const end of [edge.source, edge.target]) {
      if (boxes[end].kind === "hub") edges.filter((e) => e.source === end || e.target === end).forEach((e) => lit.add(e));
    }
  }
  const ends = new Set([...own, ...[...lit].flatMap((e) => [e.source, e.target])]);
  svg.classList.add("focus");
  edges.forEach((e) => e.group.classList.toggle("lit", lit.has(e)));
  boxes.forEach((b) => b.group.classList.toggle("lit", ends.has(b.n)));
}
function unlight() {
  if (chosen) return lightBox(chosen);
  svg.classList.remove("focus");
}
const lightBox = (box) => light(edges.filter((e) => e.source === box.n || e.target === box.n), [box.n]);

let chosen = null;
function choose(box) {
  chosen?.group.classList.remove("chosen");
  chosen = chosen === box || !box.node ? null : box;
  chosen?.group.classList.add("chosen");
  unlight();
  if (chosen) showBox(chosen);
  else closeDetail();
}
for (const box of boxes) {
  asButton(box.group, box.label, () => choose(box));
  box.pill.addEventListener("click", () => choose(box));
  box.group.addEventListener("pointerenter", () => lightBox(box));
  box.group.addEventListener("pointerleave", unlight);
}
addEventListener("keydown", (event) => { if (event.key === "Escape" && chosen) choose(chosen); });
svg.addEventListener("click", (event) => { if (chosen && !event.target.closest("g.box, g.header, .pill")) choose(chosen); });

const legend = byId("legend");
for (const style of DATA.used) {
  const item = make("li", { tabindex: "0", title: DATA.links[style].explain }, sample(style), DATA.links[style].label);
  for (const on of ["pointerenter", "focus"]) item.addEventListener(on, () => light(edges.filter((e) => e.style === style)));
  for (const off of ["pointerleave", "blur"]) item.addEventListener(off, unlight);
  legend.append(item);
}
if (edges.some((e) => e.dashed)) {
  const item = make("li", { tabindex: "0", title: "stop_grad: no derivative goes back" }, sample("context", true), "no derivative");
  item.addEventListener("pointerenter", () => light(edges.filter((e) => e.dashed)));
  item.addEventListener("pointerleave", unlight);
  legend.append(item);
}

/* ------------------------------------------------------------------ themes */

const themes = ["auto", "light", "dark"];
let theme = 0;
byId("theme").textContent = "Theme: auto";
byId("theme").addEventListener("click", () => {
  theme = (theme + 1) % themes.length;
  if (theme) document.documentElement.dataset.theme = themes[theme];
  else delete document.documentElement.dataset.theme;
  byId("theme").textContent = `Theme: ${themes[theme]}`;
  dispatchEvent(new Event("recolor"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("recolor")));
