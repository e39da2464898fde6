"""What is drawn of a level graph: lanes, boxes with their lines of text, links, and the frames of equal layers."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from nldsl.semantics.level_data import Edge, Level, LevelGraph, Node
from nldsl.semantics.level_fold import fold
from nldsl.viz.escape import plain
from nldsl.viz.metrics import text_width
from nldsl.viz.palette import LINKS

__all__ = [
    "DATA", "Box", "Frame", "Lane", "Line", "Link", "Scene", "SceneOptions",
    "counted", "legend_of", "legend_width", "level_title", "scene_of", "short_number", "shown_names",
]  # fmt: skip

DATA = "data"
LEGEND_STEP = 54.0  # a sample and the space around it
_ENDS = ("input", "output", "loss")


@dataclass(frozen=True)
class SceneOptions:
    """`collapsed` levels show one box; `limit` is the number of boxes above which levels collapse by themselves."""

    fold: bool = True
    collapsed: frozenset[str] = frozenset()
    limit: int = 160


@dataclass(frozen=True)
class Line:
    """A line of a box. `tone`: title, muted, fact, badge or joint."""

    text: str
    tone: str

    @property
    def size(self) -> float:
        return 12.0 if self.tone == "title" else 9.5

    @property
    def width(self) -> float:
        return text_width(self.text, self.size, self.tone == "title")


@dataclass(frozen=True)
class Box:
    id: str
    kind: str
    lane: str
    lines: tuple[Line, ...]
    node: Node | None = None
    count: int = 1

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in points."""
        if self.kind in (*_ENDS, "optimizer", "hub", "clock"):
            return max(line.width for line in self.lines) + 24, 15.0 + 12.5 * len(self.lines)
        title = self.lines[0].width + (22 if self.count > 1 else 0)
        width = max([title, *(line.width for line in self.lines[1:])]) + 20
        return max(width, 56.0), 15.0 + sum(line.size + 3.5 for line in self.lines)


@dataclass(frozen=True)
class Link:
    """`style` is a key of `palette.LINKS`; `forward` links go from left to right."""

    source: str
    target: str
    style: str
    label: str = ""
    dashed: bool = False
    both: bool = False
    forward: bool = True


@dataclass(frozen=True)
class Lane:
    """A level, or the data above all levels (`level` is None)."""

    id: str
    title: str
    lines: tuple[str, ...]
    position: float
    level: Level | None = None


@dataclass(frozen=True)
class Frame:
    label: str
    boxes: frozenset[str]


@dataclass(frozen=True)
class Scene:
    title: str
    lanes: tuple[Lane, ...]
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    frames: tuple[Frame, ...]
    graph: LevelGraph


def scene_of(graph: LevelGraph, options: SceneOptions | None = None) -> Scene:
    """Arrange a level graph for drawing."""
    options = options or SceneOptions()
    if options.fold:
        graph = fold(graph)
    graph = _collapsed(graph, options)
    boxes = [_box(node) for node in graph.nodes]
    links, clocks = _links(graph)
    boxes += clocks
    links, hubs = _with_hubs(links, {b.id: b for b in boxes})
    lanes = [Lane(DATA, "", (), 0.0), *_lanes(graph)]
    return Scene(plain(graph.name), tuple(lanes), (*boxes, *hubs), tuple(links), _frames(graph), graph)


# ---------------------------------------------------------------- words


def short_number(count: int) -> str:
    """12_345_678 as 12.3M."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


def counted(count: int, noun: str) -> str:
    """1 memory, 2 memories."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def level_title(level: Level) -> str:
    """The cadence, and the place within the tick where there are several."""
    if level.kind == "nonparametric":
        return "non-parametric"
    return level.cadence if level.orders == 1 else f"{level.cadence} · {level.order + 1} of {level.orders}"


def shown_names(level: Level) -> str:
    """The names that say more than the cadence does."""
    return ", ".join(name for name in level.names if name != level.kind)


def _lanes(graph: LevelGraph) -> list[Lane]:
    lanes = []
    last = max(len(graph.levels) - 1, 1)
    for n, level in enumerate(graph.levels):
        members = graph.members(level.id)
        lines = [plain(shown_names(level), 28)] if shown_names(level) else []
        lines += ["takes in its context at once"] if level.kind == "nonparametric" else []
        lines += ["constant"] if level.kind == "frozen" else []
        memories = sum(m.count for m in members if m.kind == "memory")
        size = sum(p.size * m.count for m in members for p in m.params)
        facts = [counted(memories, "memory")] if memories else []
        facts += [f"{short_number(size)} weights"] if size else []
        lines += [" · ".join(facts)] if facts else []
        lanes.append(Lane(level.id, level_title(level), tuple(lines), n / last, level))
    return lanes


def _box(node: Node) -> Box:
    lane = node.level or DATA
    if node.kind in _ENDS:
        return Box(node.id, node.kind, lane, (Line(plain(node.label, 24), "title"),), node)
    if node.kind == "optimizer":
        return Box(node.id, node.kind, lane, (Line(plain(node.label, 20), "title"), Line("optimizer", "muted")), node)
    label = "initial values" if node.kind == "initial" else node.label
    lines = [Line(plain(label, 26), "title")]
    about = node.template or (", ".join(node.parts) if node.kind == "level" else _inside(node.path))
    if node.kind == "initial":
        about = "of " + (node.path.rpartition(".")[2] or node.label)
    if about and about.lower() != label.lower():
        lines.append(Line(plain(about, 28), "muted"))
    lines += [Line(text, "fact") for text in _facts(node)]
    badges = _badges(node)
    for n in range(0, len(badges), 2):
        lines.append(Line(" · ".join(badges[n : n + 2]), "badge"))
    return Box(node.id, node.kind, lane, tuple(lines), node, node.count)


def _inside(path: str) -> str:
    """A path without the rounds that a frame shows."""
    names = path.split(".")
    star = next((n for n, name in enumerate(names) if name == "*" or "-" in name), -1)
    return ".".join(names[star + 1 :])


def _facts(node: Node) -> list[str]:
    shapes: dict[str, list[str]] = defaultdict(list)
    for state in node.states:
        if state.hidden and node.kind != "buffer":
            continue
        axes = "".join(f"{plain(size, 12)} × " for _, size in state.axes)
        shapes[f"{axes}[{', '.join(plain(d, 12) for d in state.shape)}]"].append(plain(state.label, 12))
    facts = []
    for shape, labels in list(shapes.items())[:3]:
        named = ", ".join(labels[:3]) + (f", +{len(labels) - 3}" if len(labels) > 3 else "")
        facts.append(shape if node.kind == "buffer" else f"{named} · {shape}")
    if len(shapes) > 3:
        facts.append(f"+{len(shapes) - 3} more states")
    size = sum(p.size for p in node.params)
    if node.params and size:
        facts.append(f"{short_number(size)} weights")
    return facts


def _badges(node: Node) -> list[str]:
    badges = []
    anchors = sorted({a for s in node.states for a in s.anchors})
    badges += [f"anchor {', '.join(map(str, anchors))}"] if anchors else []
    periods = sorted({s.reset_period for s in node.states if s.reset_period})
    badges += [f"reset {', '.join(map(str, periods))}"] if periods else []
    badges += ["never reset"] if any(s.reset == "never" for s in node.states) else []
    badges += ["shared"] if any(s.shared for s in node.states) else []
    badges += [{"own": "∇ own loss", "task": "∇ task loss"}[node.learns]] if node.learns else []
    badges += ["no gradient"] if node.params and not any(p.reached for p in node.params) else []
    return badges


def legend_of(scene: Scene) -> list[tuple[str, str, bool]]:
    """What the legend explains: style, label, dashed."""
    used = {link.style for link in scene.links}
    dashed = [("context", "no derivative", True)] if any(link.dashed for link in scene.links) else []
    return [(s, LINKS[s].label, False) for s in LINKS if s in used] + dashed


def legend_width(scene: Scene) -> float:
    """The room for the legend in one row."""
    return sum(LEGEND_STEP + Line(label, "muted").width for _, label, _ in legend_of(scene))


# ---------------------------------------------------------------- links


def _style(edge: Edge) -> str:
    if edge.flow in ("gradient", "reset"):
        return edge.flow
    return edge.transfer or "context"


def _links(graph: LevelGraph) -> tuple[list[Link], list[Box]]:
    """The links, and a box for each level whose boundaries reset something."""
    clocks: dict[str, Box] = {}
    links: dict[tuple[str, str, str, bool], Link] = {}
    for edge in graph.edges:
        if edge.next or edge.source == edge.target:
            continue
        style = _style(edge)
        label = plain(", ".join(edge.names[:3]), 24) if style in ("generation", "gradient") else ""
        forward = not (edge.flow == "gradient" and edge.role == "learn")
        if edge.flow == "reset":
            level = edge.source.removeprefix("level:")
            clocks[level] = Box(edge.source, "clock", level, (Line("boundary", "joint"),))
        link = Link(edge.source, edge.target, style, label, edge.detached, style == "backprop", forward)
        links.setdefault((edge.source, edge.target, style, edge.detached), link)
    return list(links.values()), list(clocks.values())


def _with_hubs(links: list[Link], boxes: dict[str, Box]) -> tuple[list[Link], list[Box]]:
    """Several memories that generate for the same several others: one joint, instead of each to each."""
    place = {id: n for n, id in enumerate(boxes)}
    made = [x for x in links if x.style == "generation"]
    host = _hosts({x.target for x in made}, boxes)
    targets: dict[str, set[str]] = defaultdict(set)
    for link in made:
        targets[link.source].add(host[link.target])
    closed = {source: frozenset(found | {source}) for source, found in targets.items()}
    shared = Counter(closed.values())
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for source in sorted(targets, key=lambda id: place[id]):
        groups[closed[source] if shared[closed[source]] > 1 else frozenset(targets[source])].append(source)
    hubs: list[Box] = []
    for reached, sources in groups.items():
        if len(sources) < 2 or len(reached) < 3:
            continue
        mine = [x for x in made if x.source in sources and host[x.target] in reached]
        names = dict.fromkeys(
            n for source in sources for x in mine if x.source == source for n in x.label.split(", ") if n
        )
        id = f"hub:{len(hubs)}"
        text = plain(" · ".join(names), 30) or "generates"
        hubs.append(Box(id, "hub", boxes[sources[0]].lane, (Line(text, "joint"),)))
        links = [x for x in links if x not in mine]
        for source in sources:
            detached = all(x.dashed for x in mine if x.source == source)
            links.append(Link(source, id, "generation", "", detached, source in reached))
        links += [Link(id, t, "generation") for t in sorted(reached - set(sources), key=lambda id: place[id])]
    return [replace(x, label="") if x.style == "generation" and len(targets[x.source]) > 2 else x for x in links], hubs


def _hosts(targets: set[str], boxes: dict[str, Box]) -> dict[str, str]:
    """What feeds the optimizer inside a memory feeds the memory: each target, or the outermost target around it."""
    paths = {id: node.path for id in sorted(targets) if (node := boxes[id].node) and node.path}
    host = {id: id for id in targets}
    for id, path in paths.items():
        around = [o for o, p in paths.items() if path.startswith(f"{p}.")]
        host[id] = min(around, key=lambda o: len(paths[o]), default=id)
    return host


# ---------------------------------------------------------------- frames and collapsing


def _frames(graph: LevelGraph) -> tuple[Frame, ...]:
    """The rounds of a loop that were folded, the outer ones only."""
    found: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        names = node.path.split(".")
        star = next((n for n, name in enumerate(names) if name == "*" or "-" in name), None)
        if star is not None:
            found[".".join(names[: star + 1])].append(node)
    frames = []
    for path, nodes in found.items():
        name, _, rounds = path.rpartition(".")
        shown = name.rpartition(".")[2] if rounds == "*" else path
        frames.append(Frame(f"{plain(shown, 24)} × {min(n.count for n in nodes)}", frozenset(n.id for n in nodes)))
    return tuple(frames)


def _collapsed(graph: LevelGraph, options: SceneOptions) -> LevelGraph:
    """The chosen levels as one node each, and the fullest ones until the limit holds."""
    names = {name: v.id for v in graph.levels for name in v.names}
    chosen = {names.get(c, c) for c in options.collapsed}
    sizes = Counter(n.level for n in graph.nodes if n.level)
    total = len(graph.nodes) - sum(sizes[v] - 1 for v in chosen if sizes[v])
    for fullest, size in sizes.most_common():
        if total <= options.limit:
            break
        if fullest not in chosen:
            chosen.add(fullest)
            total -= size - 1
    into: dict[str, str] = {}
    nodes = [n for n in graph.nodes if n.level not in chosen or n.kind == "optimizer"]
    for level in graph.levels:
        members = [n for n in graph.members(level.id) if n.kind != "optimizer"]
        if level.id not in chosen or not members:
            continue
        id = f"level:{level.id}"
        into.update({m.id: id for m in members})
        count = sum(m.count for m in members)
        states = tuple(s for m in members for s in m.states)
        params = tuple(replace(p, size=p.size * m.count) for m in members for p in m.params)
        label = counted(count, "memory") if states else counted(count, "block")
        parts = tuple(dict.fromkeys(m.label for m in members))
        nodes.append(Node(id, "level", label, level.id, states=(), params=params, parts=parts))
    edges: dict[tuple[str, str, str], Edge] = {}
    for edge in graph.edges:
        moved = replace(edge, source=into.get(edge.source, edge.source), target=into.get(edge.target, edge.target))
        if moved.source != moved.target or moved == edge:
            edges.setdefault((moved.source, moved.target, _style(moved)), moved)
    return graph if not into else replace(graph, nodes=tuple(nodes), edges=tuple(edges.values()))
