"""`python -m nldsl` is the command `nldsl`."""

from nldsl.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
