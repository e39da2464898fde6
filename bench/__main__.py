"""``python -m bench [--backend torch]``: the CPU table."""

from bench.cpu import main

if __name__ == "__main__":
    raise SystemExit(main())
