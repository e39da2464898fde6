"""One function of the emitted module while it is being written: its names, its lines, the values it has."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nldsl.backends.torch.layout import Layout, is_view, view
from nldsl.backends.torch.names import Names, comment, plain
from nldsl.backends.torch.target_ast import ATOM, INDENT, Code, Expr, call, reflow, wrapped
from nldsl.dims import Dim
from nldsl.ir.types import BATCH, TIME, Clock, Type
from nldsl.source import Span


@dataclass
class Scope:
    """``env`` maps values of the body to expressions. ``used`` collects what the head of the function must define:
    ``dtype``, ``device``, ``B`` (batch size), ``T`` (ticks of this call), ``ticks`` (their numbers)."""

    name: str
    layout: Layout
    doc: str = ""
    names: Names = field(default_factory=Names)
    unpacking: list[str] = field(default_factory=list)  # the first lines: what the arguments hold
    code: Code = field(default_factory=Code)
    env: dict[int, Expr] = field(default_factory=dict)
    params: dict[str, Expr] = field(default_factory=dict)  # parameters of the program that have a variable here
    used: set[str] = field(default_factory=set)
    arguments: list[str] = field(default_factory=list)
    tensors: list[Expr] = field(default_factory=list)  # arguments that say dtype, device and sizes
    given: dict[str, str] = field(default_factory=dict)  # definitions of the head that the caller of this class knows
    vectors: dict[Clock, Expr] = field(default_factory=dict)  # which of ``ticks`` a clock fires at
    lanes: dict[tuple[int, str, str], tuple[list[str], Code]] = field(
        default_factory=dict
    )  # values taken apart, per block
    kind: str = "dtype"  # what numbers become tensors of: ``dtype``, or ``wide`` for what is at least float32
    converted: dict[tuple[int, str, str], tuple[Expr, Code]] = field(default_factory=dict)  # per block, by type
    within: bool = False  # in the function of a loop, which gets what comes in half precision as float32
    last_place: str = ""

    def need(self, what: str) -> str:
        self.used.add(what)
        return what

    # -- expressions

    def real(self, expr: Expr) -> Expr:
        """The same numbers in the floating dtype."""
        if expr.form == "bool" or expr.is_int:
            real = replace(expr.type, kind="real")
            return Expr(f"{expr.at(ATOM)}.to({self.need(self.kind)})", real)
        return expr

    def widened(self, expr: Expr, once: bool = False) -> Expr:
        """A tensor of real numbers that is at least float32; ``once``: nothing else uses it."""
        if expr.form != "tensor" or expr.is_int or expr.wide or (self.within and not expr.low):
            return expr
        if once:
            return Expr(f"{expr.at(ATOM)}.to({self.need('wide')})", expr.type, wide=True)
        return replace(self._converted(expr, "wide"), low=False, wide=True)

    def added_in(self, *operands: Expr) -> str:
        """The type in which a sum of these is added up, as its last argument."""
        plain = (
            self.kind == "dtype" or any(e.wide for e in operands) or (self.within and not any(e.low for e in operands))
        )
        return "" if plain else f", dtype={self.need('wide')}"

    def narrowed(self, expr: Expr) -> Expr:
        """A tensor of the type of the module (under autocast also of a lower one)."""
        return replace(self._converted(expr, "dtype"), wide=False) if expr.wide else expr

    def _converted(self, expr: Expr, kind: str) -> Expr:
        """An operand in another type, converted once in each block of code."""
        key = id(self.code), expr.text, kind
        if key not in self.converted:
            text = f"{expr.at(ATOM)}.to({self.need(kind)})"
            hint = f"{expr.text}_{'wide' if kind == 'wide' else 'low'}" if expr.text.isidentifier() else "x"
            self.converted[key] = self.bind(Expr(text, expr.type), hint), self.code  # kept, so that its id is its own
        return replace(self.converted[key][0], type=expr.type)

    def tensor(self, expr: Expr) -> Expr:
        """The same as a tensor of numbers."""
        if not expr.is_literal:
            return self.real(expr) if expr.form == "bool" else expr
        return Expr(self.full(self.sizes(expr.type), expr), expr.type)

    def full(self, sizes: list[str], literal: Expr) -> str:
        kind = "torch.int64" if literal.type.kind == "int" else self.need(self.kind)
        shape = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
        if literal.text in ("0.0", "1.0", "0", "1"):
            maker = "torch.zeros" if literal.text.startswith("0") else "torch.ones"
            return call(maker, shape, f"dtype={kind}", f"device={self.need('device')}")
        return call("torch.full", shape, literal.text, f"dtype={kind}", f"device={self.need('device')}")

    def sizes(self, type: Type) -> list[str]:
        self.used.update({BATCH: "B", TIME: "T"}[a] for a in type.axes if a in (BATCH, TIME))
        self.used.update("T" for size in type.shape if not isinstance(size, int))
        return self.layout.sizes(type)

    def stretched(self, expr: Expr, target: Type) -> Expr:
        """A tensor of exactly the physical shape of ``target``."""
        if expr.is_literal:
            literal = expr
            if target.kind == "real" and expr.type.kind == "int":
                literal = Expr(f"{expr.text}.0", Type())
            return Expr(self.full(self.sizes(target), literal), target)
        expr = self.tensor(expr)
        if target.kind == "real":
            expr = self.real(expr)
        if expr.type.axes == target.axes and expr.type.shape == target.shape:
            return expr
        text = view(expr, target)
        operand = text if is_view(expr, target) else expr.at(ATOM)
        return Expr(f"{operand}.expand({', '.join(self.sizes(target))})", target, low=expr.low, wide=expr.wide)

    def dim(self, size: Dim) -> str:
        """A size of a shape as an expression."""
        if not isinstance(size, int):
            self.used.add("T")
        return self.layout.dim(size)

    def bind(self, expr: Expr, hint: str) -> Expr:
        """Give an expression a name."""
        name = self.names.new(hint)
        self.code.add(f"{name} = {expr.text}")
        return replace(expr, text=name, strength=ATOM, parts=None)

    def simple(self, expr: Expr, hint: str = "x") -> Expr:
        """An expression that may be written twice."""
        return expr if expr.text.isidentifier() or expr.is_literal else self.bind(expr, hint)

    # -- lines

    def place(self, span: Span) -> None:
        """A comment with the line of the program, where it differs from the one before."""
        if span.is_none:
            return
        where = f"{span.file.path.rpartition('/')[2]}:{span.line}"
        if where != self.last_place:
            self.last_place = where
            text = span.file.line_text(span.line).split("#")[0].strip()
            self.code.add(comment(f"# {where}: {text}")[: 118 - 4 * self.code.depth].rstrip())

    def head(self) -> list[str]:
        """Definitions of what was used."""
        lines = []
        if "ticks" in self.used:
            self.used.update(("T", "device"))
        if "wide" in self.used:
            self.used.add("dtype")
        real = next((e.text for e in self.tensors if e.type.kind == "real"), "")
        every = next((e.text for e in self.tensors), "")
        for what in ("dtype", "device", "B", "T"):
            if what not in self.used or what in self.arguments:
                continue
            if what in self.given:
                lines.append(f"{what} = {self.given[what]}")
            elif what == "dtype":
                lines.append(f"dtype = {real}.dtype" if real else "dtype = torch.get_default_dtype()")
            elif what == "device":
                lines.append(f"device = {every}.device" if every else 'device = torch.device("cpu")')
            else:
                lines.append(self._size(what))
        if "wide" in self.used:
            lines.append("wide = torch.promote_types(dtype, torch.float32)  # of what scales states")
        if "ticks" in self.used and "ticks" not in self.arguments:
            lines.append(f"ticks = {self.given.get('ticks', 'torch.arange(t + 1, t + T + 1, device=device)')}")
        return lines

    def _size(self, what: str) -> str:
        axis = BATCH if what == "B" else TIME
        for tensor in self.tensors:
            if axis in tensor.type.axes:
                return f"{what} = {tensor.text}.shape[{tensor.type.axes.index(axis)}]"
        raise AssertionError(f"{self.name}: nothing says the size of {axis}")

    def text(self) -> str:
        """The whole function."""
        lines = wrapped(f"def {self.name}(", self.arguments, "):", 0)
        if self.doc:
            lines.append(f'{INDENT}"""{plain(self.doc)}"""')
        body = self.unpacking + self.head() + self.code.lines
        indented = [INDENT + line if line else "" for line in body or ["pass"]]
        return "\n".join(lines + [part for line in indented for part in reflow(line)]) + "\n"
