"""The process that draws: DOT on stdin, the picture on stdout. Started by `render`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Draw with the Graphviz in pygraphviz's wheel; the format is the only argument."""
    import pygraphviz

    graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
    if sys.argv[1] == "png":
        graph.graph_attr["dpi"] = "144"
    picture = graph.draw(format=sys.argv[1], prog="nop2")
    sys.stdout.buffer.write(picture)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
