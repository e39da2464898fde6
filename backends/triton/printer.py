"""The text of a kernel: what nothing uses is left out, what is used once stands where it is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from nldsl.backends.triton.ops import WORD, Block, Op

INDENT = "    "
LONG = 116  # a line that is longer is broken at the arguments of a call
INSIDE = 88  # how long a line may become by what is put into it
MOVABLE = frozenset({"pointwise", "view", "index"})
# What needs no brackets between these texts.
ALONE = (
    (("product", "sum", "other"), ("(", ", "), (")", ",")),
    (("product", "sum"), ("(", ", "), (")", ",", " + ", " - ")),
    (("product",), ("(", ", ", " + ", " - "), (")", ",", " + ", " - ")),
)
ATOM = re.compile(r"[\w.]+|[\w.]+\(.*\)|[\w.]+\[[^\]]*\]")


def lines(top: Block, depth: int = 1) -> list[str]:
    """The lines of a kernel."""
    _hoist(top)
    _inline(top)
    return list(_lines(top, needed(top), depth, set()))


def needed(top: Block) -> set[int]:
    """The operations to print, by identity: those kept, and what they use."""
    scopes: list[tuple[Op, tuple[dict[str, Op], ...]]] = []

    def enter(block: Block, outer: tuple[dict[str, Op], ...]) -> None:
        inside = ({op.target: op for op in block.ops if op.target and not op.keep}, *outer)
        for op in block.ops:
            scopes.append((op, inside))
            if op.inner is not None:
                enter(op.inner, inside)

    enter(top, ())
    seen_from = {id(op): scope for op, scope in scopes}
    stack = [op for op, _ in scopes if op.keep]
    found: set[int] = set()
    while stack:
        op = stack.pop()
        if id(op) in found:
            continue
        found.add(id(op))
        for name in op.uses():
            stack += next(([scope[name]] for scope in seen_from[id(op)] if name in scope), [])
    return found


def _hoist(block: Block) -> None:
    """Put addresses and indices that are the same in every round of a loop before it."""
    at = 0
    while at < len(block.ops):
        loop = block.ops[at]
        if loop.inner is not None:
            _hoist(loop.inner)
        if loop.inner is not None and loop.text.startswith("for "):
            for op in _invariant(loop.text, loop.inner):
                others = [o for o in block.walk() if o.target == op.target and o is not op]
                if any(o.text != op.text or o.keep for o in others):
                    continue  # the name has another meaning outside
                loop.inner.ops = [o for o in loop.inner.ops if o is not op]
                if any(o.target == op.target for o in block.ops[:at]):
                    continue
                later = [o for o in block.ops[at:] if o.target != op.target]
                block.ops = [*block.ops[:at], op, *later]
                at += 1
        at += 1


def _invariant(head: str, inner: Block) -> list[Op]:
    """The operations of a loop that are addresses or indices, and depend on nothing that changes in it."""
    changes = {head.split()[1], *(op.target for op in inner.walk() if op.keep)}
    found = []
    for op in inner.ops:
        if op.kind == "index" and not op.keep and not op.uses() & changes:
            found.append(op)
        else:
            changes.add(op.target)
    return found


def _inline(top: Block) -> None:
    """Put what is used once into the line that uses it, where that stays short and is in the same block."""
    wanted = needed(top)
    blocks = [top, *(op.inner for op in top.walk() if op.inner is not None)]
    for block in blocks:
        times: Counter[str] = Counter()
        defined: Counter[str] = Counter()
        for op in block.walk():
            if id(op) in wanted:
                times.update(op.words())
                defined[op.target] += 1
        ops = [op for op in block.ops if id(op) in wanted]
        at = {id(op): n for n, op in enumerate(ops)}
        own = {op.target: op for op in ops if _movable(op) and times[op.target] == 1 and defined[op.target] == 1}
        for user in ops:
            if user.inner is not None:
                continue
            for name in user.words():
                made = own.get(name)
                if made is None or made is user or len(user.text) + len(made.text) > INSIDE:
                    continue
                if _changed(ops[at[id(made)] + 1 : at[id(user)]], made.uses()):
                    continue
                user.text = _put(user.text, name, made.text)
                user.note = user.note or made.note


def _movable(op: Op) -> bool:
    return op.kind in MOVABLE and not op.keep and bool(op.target) and op.inner is None


def _changed(between: list[Op], names: set[str]) -> bool:
    """Whether a variable gets another value in these operations."""
    return any(inner.keep and inner.target in names for op in between for inner in (op, *_inner(op)))


def _inner(op: Op) -> Iterator[Op]:
    if op.inner is not None:
        yield from op.inner.walk()


def _put(text: str, name: str, value: str) -> str:
    """``text`` with ``value`` in the place of ``name``."""
    found = next(word for word in WORD.finditer(text) if word.group() == name)
    before, after = text[: found.start()], text[found.end() :]
    kind = _kind(value)
    free = kind == "atom"
    for binds, left, right in ALONE:
        fits_left = not before or before.endswith(left)
        fits_right = not after or after.startswith(right)
        free = free or (kind in binds and fits_left and fits_right)
    return before + (value if free else f"({value})") + after


def _kind(text: str) -> str:
    """How tightly a text binds: as a name, a product, a sum, or less."""
    if _is_atom(text):
        return "atom"
    level, outside = 0, ""
    for letter in text:
        level += (letter in "([") - (letter in ")]")
        outside += letter if level == 0 else ""
    signs = {word for word in outside.split() if not word[0].isalnum() and word[0] not in "_)]-'\""} | {
        "-" for word in outside.split() if word == "-" or word.startswith("-")
    }
    if signs <= {"*"}:
        return "product"
    return "sum" if signs <= {"*", "+", "-"} else "other"


def _is_atom(text: str) -> bool:
    """Whether a text binds as tightly as a name: a name, a number, a call, an index."""
    if not ATOM.fullmatch(text):
        return False
    level = 0
    for n, letter in enumerate(text):
        level += (letter in "([") - (letter in ")]")
        if level == 0 and letter in ")]" and n < len(text) - 1 and text[n + 1] not in ".[":
            return False
    return True


def _lines(block: Block, wanted: set[int], depth: int, said: set[str]) -> Iterator[str]:
    """``said``: what comments have said already."""
    for op in block.ops:
        if id(op) not in wanted:
            continue
        if op.note and op.note not in said:
            said.add(op.note)
            yield f"{INDENT * depth}# {op.note}"
        text = f"{op.target} = {op.text}" if op.target else op.text
        if op.keep and op.target and op.text.startswith(f"{op.target} + "):
            text = f"{op.target} += {op.text.removeprefix(op.target)[3:]}"
        if op.inner is not None:
            yield INDENT * depth + text
            yield from _lines(op.inner, wanted, depth + 1, said)
        else:
            yield from _wrapped(text, depth)


def _wrapped(text: str, depth: int) -> Iterator[str]:
    """A line, or several where it is long and has brackets to break at."""
    line = INDENT * depth + text
    if len(line) <= LONG or "(" not in text:
        yield line
        return
    head, rest = _break(text)
    yield INDENT * depth + head
    whole = INDENT * (depth + 1) + " ".join(rest[:-1]).removesuffix(",")
    if len(whole) <= LONG:
        yield whole
        yield INDENT * depth + rest[-1]
        return
    for argument in rest[:-1]:
        yield INDENT * (depth + 1) + argument
    yield INDENT * depth + rest[-1]


def _break(text: str) -> tuple[str, list[str]]:
    """``f(a, b)`` as the lines of a call with an argument on each."""
    start = text.index("(")
    level, last = 0, start + 1
    parts: list[str] = []
    for at in range(start, len(text)):
        if text[at] in "([{":
            level += 1
        elif text[at] in ")]}":
            level -= 1
            if level == 0:
                group = not parts and not (start and (text[start - 1].isalnum() or text[start - 1] in "_]"))
                parts.append(text[last:at] + ("" if group else ","))  # no tuple of what only stands in brackets
                return text[: start + 1], [*parts, text[at:]]
        elif text[at] == "," and level == 1:
            parts.append(text[last : at + 1].strip())
            last = at + 2
    return text, []
