/* The clock timeline: what each level does at every token of a sequence, and at every training step. */
const ROW = 30, HEAD = 34, FOOT = 12;
const rows = DATA.timeline;
const tip = make("div", { class: "tip", role: "presentation" });
document.body.append(tip);

const names = byId("names");
for (const row of rows) names.append(make("div", { title: row.title }, swatch(laneOf.get(row.id)), row.title));

/** One axis: tokens or steps. */
class Plot {
  constructor(host, unit, count) {
    Object.assign(this, { host, unit, count, cell: 12, at: -1 });
    this.canvas = make("canvas");
    this.wide = make("div", { class: "wide" });
    host.append(this.canvas, this.wide);
    host.addEventListener("scroll", () => this.draw());
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => this.leave());
    host.addEventListener("blur", () => this.leave());
    host.addEventListener("keydown", (event) => this.key(event));
  }

  /** `part` goes from everything in view (0) to wide cells (1). */
  fit(part) {
    const room = this.host.clientWidth - 20;
    const least = room / this.count;
    this.cell = least * Math.pow(Math.max(34 / least, 1), part);
    this.wide.style.width = `${Math.ceil(this.cell * this.count + 20)}px`;
    this.draw();
  }

  x(index) { return 10 + (index - 1) * this.cell - this.host.scrollLeft; }

  draw() {
    const width = this.host.clientWidth, height = HEAD + ROW * rows.length + FOOT, ratio = devicePixelRatio || 1;
    Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const c = this.canvas.getContext("2d");
    c.scale(ratio, ratio);
    const first = Math.max(1, Math.floor((this.host.scrollLeft - 10) / this.cell)), last = Math.min(this.count, first + Math.ceil(width / this.cell) + 2);
    this.axis(c, first, last, height);
    rows.forEach((row, n) => this.row(c, row, HEAD + n * ROW, first, last));
    if (this.at > 0) {
      c.fillStyle = color("ink");
      c.globalAlpha = 0.07;
      c.fillRect(this.x(this.at), HEAD - 4, Math.max(this.cell, 2), ROW * rows.length + 8);
      c.globalAlpha = 1;
    }
  }

  axis(c, first, last, height) {
    c.font = "11px Inter, system-ui, sans-serif";
    c.fillStyle = color("muted");
    c.textAlign = "center";
    let step = 1;
    while (step * this.cell < 34) step *= 2;
    for (let i = first; i <= last; i++) {
      if (i !== 1 && i % step) continue;
      if (i === 1 && step * this.cell < 70 && step > 1 && this.cell * (step - 1) < 26) continue;
      c.fillText(String(i), this.x(i) + this.cell / 2, 26);
    }
    c.textAlign = "left";
    c.fillText(this.unit === "token" ? "token of the sequence" : "training step", 10, 11);
    c.strokeStyle = color("line");
    c.beginPath();
    for (let n = 0; n <= rows.length; n++) { c.moveTo(0, HEAD + n * ROW + 0.5); c.lineTo(this.host.clientWidth, HEAD + n * ROW + 0.5); }
    c.stroke();
  }

  bar(c, x0, x1, y, name, alpha, radius = 4) {
    c.globalAlpha = alpha;
    c.fillStyle = color(name);
    c.beginPath();
    c.roundRect(x0, y, Math.max(x1 - x0, 0.6), ROW - 16, Math.min(radius, Math.max(x1 - x0, 0) / 2));
    c.fill();
    c.globalAlpha = 1;
  }

  /** While a bar lasts the level keeps its values; its dark end is the update. */
  row(c, row, y, first, last) {
    const accent = `accent${laneOf.get(row.id).n}`, top = y + 8, gap = this.cell > 5 ? 1.5 : 0;
    const left = this.x(1), right = this.x(this.count + 1);
    if (row.kind === this.unit) {
      const p = row.period;
      if (p * this.cell < 3.2) this.bar(c, left, right, top, accent, 0.55);
      else {
        for (let end = Math.ceil(first / p) * p; end - p < last; end += p) {
          const x0 = this.x(end - p + 1) + gap / 2, done = Math.min(end, this.count), x1 = this.x(done + 1) - gap / 2;
          const mark = Math.min(this.cell - gap, 11);
          if (p > 1) this.bar(c, x0, x1, top, accent, 0.26);
          if (end <= this.count) this.bar(c, p > 1 ? x1 - Math.max(mark, 2) : x0, x1, top, accent, 0.95);
        }
      }
    } else if (row.kind === "frozen") this.bar(c, left, right, top, accent, 0.12);
    else if (row.kind === "nonparametric") {
      c.fillStyle = color(accent);
      const step = this.unit === "token" ? this.cell : 0;
      if (step < 4) this.bar(c, left, right, y + 8, accent, 0.3);
      else for (let i = first; i <= last; i++) { c.beginPath(); c.arc(this.x(i) + step / 2, y + ROW / 2, Math.min(3, step / 3), 0, 7); c.fill(); }
    } else if (this.unit === "token") this.bar(c, left, right, top, accent, 0.26);
    else for (let i = first; i <= last; i++) this.bar(c, this.x(i) + gap / 2, this.x(i + 1) - gap / 2, top, accent, row.period === 1 ? 0.62 : 0.42);
    if (this.unit === "token") this.marks(c, row, y, first, last);
  }

  marks(c, row, y, first, last) {
    c.strokeStyle = c.fillStyle = color("ink");
    for (const { period } of row.anchors) {
      if (period * this.cell < 7) continue;
      for (let i = Math.floor((first - 1) / period) * period + 1; i <= last; i += period) {
        const x = this.x(i);
        c.beginPath(); c.moveTo(x - 3.5, y + ROW - 2); c.lineTo(x + 3.5, y + ROW - 2); c.lineTo(x, y + ROW - 8); c.fill();
      }
    }
    c.lineWidth = 1.4;
    for (const { period } of row.resets) {
      if (period * this.cell < 7) continue;
      for (let i = Math.ceil(first / period) * period; i <= last; i += period) {
        c.fillStyle = color("card");
        c.beginPath(); c.arc(this.x(i + 1), y + 6, 3.2, 0, 7); c.fill(); c.stroke();
      }
    }
    c.lineWidth = 1;
  }

  point(event) {
    const box = this.host.getBoundingClientRect();
    const index = Math.floor((event.clientX - box.left - 10 + this.host.scrollLeft) / this.cell) + 1;
    if (index < 1 || index > this.count) return this.leave();
    const row = rows[Math.floor((event.clientY - box.top - HEAD) / ROW)];
    this.show(index, row, event.clientX, event.clientY);
  }

  key(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1, PageDown: 16, PageUp: -16 }[event.key];
    if (!move) return;
    event.preventDefault();
    const index = Math.min(this.count, Math.max(1, (this.at > 0 ? this.at : 0) + move));
    const from = (index - 1) * this.cell;
    if (from < this.host.scrollLeft || from > this.host.scrollLeft + this.host.clientWidth - 60) this.host.scrollLeft = from - this.host.clientWidth / 2;
    const box = this.host.getBoundingClientRect();
    this.show(index, null, box.left + this.x(index) + this.cell, box.top + HEAD);
  }

  show(index, row, x, y) {
    this.at = index;
    this.draw();
    const lines = row ? this.story(row, index) : rows.map((r) => `${r.title}: ${this.story(r, index)[0]}`);
    const title = make("b", { text: `${this.unit} ${index}${row ? ` \u00b7 ${row.title}` : ""}` });
    tip.replaceChildren(title, ...lines.map((text) => make("div", { text })));
    tip.classList.add("shown");
    const width = tip.offsetWidth;
    tip.style.left = `${Math.min(x + 14, innerWidth - width - 12)}px`;
    tip.style.top = `${Math.min(y + 16, innerHeight - tip.offsetHeight - 12)}px`;
    const updated = rows.filter((r) => r.kind === this.unit && index % r.period === 0).map((r) => r.title);
    byId("reading").textContent = `${this.unit} ${index}: ${updated.length ? "updates " + updated.join(", ") : "no update"}`;
  }

  /** What happens to a level at one tick, in words. */
  story(row, index) {
    const out = [];
    const who = (thing) => (thing.of.length > 4 ? plural(thing.of.length, "memory", "memories") : thing.of.join(", "));
    if (row.kind === this.unit) {
      const n = Math.floor(index / row.period), before = index - (index % row.period || row.period);
      out.push(index % row.period === 0 ? `updated for the ${ordinal(n)} time, after this ${this.unit}` : `keeps its values; next update after ${this.unit} ${(n + 1) * row.period}`);
      if (row.period > 1) out.push(before ? `reads what was written after ${this.unit} ${before}` : "reads its initial values");
    } else if (row.kind === "frozen") out.push("never changes");
    else if (row.kind === "nonparametric") out.push("takes in its context as it comes");
    else if (this.unit === "token") out.push("constant during the sequence");
    else out.push(`${row.period === 1 ? "every token" : `every ${row.period} tokens`} of the step's sequences`);
    if (this.unit !== "token") return out;
    for (const a of row.anchors) {
      const start = a.period * Math.floor((index - 1) / a.period);
      out.push(`${who(a)}: anchor ${start ? `after token ${start}` : "at the initial values"}${start === index - 1 ? " (moves here)" : ""}`);
    }
    for (const r of row.resets) if (index % r.period === 0) out.push(`${who(r)}: reset after this token`);
    return out;
  }

  leave() {
    if (this.at < 0) return;
    this.at = -1;
    tip.classList.remove("shown");
    byId("reading").textContent = "";
    this.draw();
  }
}

function ordinal(n) {
  const rest = n % 100 > 10 && n % 100 < 14 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] ?? "th";
  return n + rest;
}

const plots = [new Plot(byId("tokens"), "token", DATA.tokens[0]), new Plot(byId("steps"), "step", DATA.steps)];
const refit = () => plots.forEach((plot) => plot.fit(byId("scale").value / 100));
byId("scale").addEventListener("input", refit);
addEventListener("resize", refit);
addEventListener("recolor", () => plots.forEach((plot) => plot.draw()));
for (const count of DATA.tokens) {
  const button = make("button", { type: "button", text: `${count} tokens`, "aria-pressed": String(count === DATA.tokens[0]) });
  button.addEventListener("click", () => {
    [...byId("lengths").children].forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    plots[0].count = count;
    refit();
  });
  byId("lengths").append(button);
}

function mark(text, draw) {
  const icon = make("svg", { svg: true, width: 26, height: 14, viewBox: "0 0 26 14", "aria-hidden": "true" });
  icon.append(...draw);
  byId("marks").append(make("li", {}, icon, text));
}
const bit = (tag, options) => make(tag, { svg: true, ...options });
mark("keeps its values, updated at the end", [bit("rect", { class: "f-muted", x: 0, y: 1, width: 26, height: 12, rx: 3, opacity: 0.35 }), bit("rect", { class: "f-muted", x: 19, y: 1, width: 7, height: 12, rx: 3 })]);
if (rows.some((r) => r.kind === "nonparametric")) mark("takes in a value", [bit("circle", { class: "f-muted", cx: 7, cy: 7, r: 3 }), bit("circle", { class: "f-muted", cx: 19, cy: 7, r: 3 })]);
if (rows.some((r) => r.anchors.length)) mark("anchor moves", [bit("polygon", { class: "f-ink", points: "9,11 17,11 13,4" })]);
if (rows.some((r) => r.resets.length)) mark("reset", [bit("circle", { class: "f-card s-ink", cx: 13, cy: 7, r: 3.6, "stroke-width": 1.4 })]);
refit();
