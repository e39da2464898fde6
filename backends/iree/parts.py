"""Long loops as functions of their own: where two are the same but for the values they take, one is called twice.

A call runs the same loops before and after its whole segments, and layers of one kind have the same ones: written out,
most of a module is copies, each of which IREE would take through all of its passes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nldsl.backends.iree.nodes import REAL, Size

if TYPE_CHECKING:
    from nldsl.backends.iree.text import Text

FAR = 1 << 40  # whole numbers of which no program has any
# The number that goes in and comes out as it is (``as``) is there because IREE 3.13 improves functions between their
# callers, unless they have such results, and is wrong about arguments that are the same in some calls and not in all.
_ALONE = "attributes {inlining_policy = #util.inline.never}"
_NAME = re.compile(r"%[a-z]?\d+(?:#\d+)?")
_PLACE = re.compile(r" loc\(.*\)$", re.MULTILINE)


def unlike_number(n: int, elem: str) -> float:
    """The n-th of many different numbers: real ones nearly zero, whole ones that no program has."""
    return 1.2e-38 * (n % 50_000 + 1) if elem == REAL else FAR + n


def tensor_type(sizes: Sequence[Size], elem: str) -> str:
    """``tensor<?x64xf32>``."""
    return "tensor<" + "".join(f"{s if isinstance(s, int) else '?'}x" for s in sizes) + f"{elem}>"


def called(
    text: Text, lines: Sequence[str], before: int, result: str, gives: Sequence[tuple[Sequence[Size], str]]
) -> str:
    """The call that stands for ``lines``, which end with the loop whose results, tensors of these sizes and types of
    entries, are ``result``. Names up to number ``before`` are from outside. The function is kept in
    ``text.functions``."""
    body = "\n".join(lines)
    constants = {name: key for key, name in text.constants.items()}
    used = list(dict.fromkeys(_NAME.findall(body)))
    inside = [n for n in used if n[1].isdigit() and int(n[1:].partition("#")[0]) > before]
    taken = [n for n in used if n not in inside and n not in constants]
    taken += [s for s in dict.fromkeys(x for sizes, _ in gives for x in sizes if isinstance(x, str)) if s not in taken]
    for name in taken:  # sizes of what is taken are taken too
        taken += [s for s in _sizes(text, name) if s not in taken]
    new = {name: f"%a{n}" for n, name in enumerate(taken)}
    for name in inside:
        new.setdefault(name.partition("#")[0], f"%{len(new)}")
    head: list[str] = []
    alone = 0
    for name in used:
        if name in constants:
            value, elem = constants[name]
            if name in text.alone:  # that they differ counts; which they are would tell equal loops apart
                alone += 1
                value = text.written(unlike_number(alone, elem), elem)
            new[name] = f"%c{len(head)}"
            head.append(f"  {new[name]} = arith.constant {value if elem == 'i1' else f'{value} : {elem}'}")
    arguments = [f"{new[name]}: {_type(text, name)}" for name in taken]
    count = len(new) + len(head)
    # IREE 3.13 takes numbers that come into a function for impossible (and where a loop joins one of them with 0, it is
    # 0): nothing may be known about them, nor about sizes that come in with tensors
    for name in taken:
        head.append(f"  %{count} = util.optimization_barrier {new[name]} : {_type(text, name)}")
        new[name], count = f"%{count}", count + 1
    for name in taken:
        sizes = [new[s] for s in _sizes(text, name)]
        if sizes:
            what = f"flow.tensor.tie_shape {new[name]} : {_type(text, name)}{{{', '.join(sizes)}}}"
            head.append(f"  %{count} = {what}")
            new[name], count = f"%{count}", count + 1

    def renamed(match: re.Match[str]) -> str:
        base, mark, place = match[0].partition("#")
        return new[match[0]] if match[0] in new else new[base] + mark + place

    outs = ", ".join(tensor_type(*g) for g in gives)
    values, ties = [], []
    for n, given_back in enumerate(gives):
        values.append(f"{new[result]}#{n}")
        known = [new[s] for s in given_back[0] if isinstance(s, str)]
        if known:
            what = f"flow.tensor.tie_shape {values[n]} : {tensor_type(*given_back)}{{{', '.join(known)}}}"
            ties.append(f"  %{count + n} = {what}")
            values[n] = f"%{count + n}"
    inner = "\n".join([*head, _NAME.sub(renamed, body), *ties])
    end = f"  util.return {', '.join(values)}, %k : {outs}, index\n}}\n"
    written = f"({', '.join(['%k: index', *arguments])}) -> ({outs}, %k as index) {_ALONE} {{\n{inner}\n{end}"
    function = "part_" + hashlib.sha256(_PLACE.sub("", written).encode()).hexdigest()[:12]
    text.functions.setdefault(function, f"util.func private @{function}{written}")
    zero = text.const(0, "index")
    given = ", ".join(["index", *(_type(text, n) for n in taken)])
    call = f"{result}:{len(gives) + 1} = util.call @{function}({', '.join([zero, *taken])})"
    line = f"  {call} : ({given}) -> ({outs}, {zero} as index)"
    text.written_out[line] = function, list(lines)
    return line


def settle(texts: Sequence[Text]) -> dict[str, str]:
    """The functions of a module, by name. Where none of those that one text calls is called twice in the module, its
    loops stand where they were: IREE knows more about them there (and a kernel of theirs may be given more tensors)."""
    count = Counter(name for text in texts for name, _ in text.written_out.values())
    found: dict[str, str] = {}
    for text in texts:
        names = {name for name, _ in text.written_out.values()}
        if all(count[name] == 1 for name in names):
            text.lines[:] = [own for line in text.lines for own in text.written_out.get(line, ("", [line]))[1]]
            found.update({name: made for name, made in text.functions.items() if name not in names})
        else:
            found.update(text.functions)
    return found


def _sizes(text: Text, name: str) -> list[str]:
    """The sizes of a tensor that are values themselves."""
    return [s for s in text.tensors[name][0] if isinstance(s, str)] if name in text.tensors else []


def _type(text: Text, name: str) -> str:
    if name in text.tensors:
        return tensor_type(*text.tensors[name])
    what = text.said[name]
    if what.startswith("arith.cmp"):
        return "i1"
    if what.startswith("tensor.dim"):
        return "index"
    if what.startswith("tensor.extract "):
        return what.rpartition("tensor<")[2].rstrip(">").rpartition("x")[2]
    return re.split(r" : | to ", what)[-1]
