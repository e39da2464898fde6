"""The files that a compiled module is kept in: itself, its description, and the loader as a file of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALL = ("init", "forward", "step", "peek", "loss", "backward", "init_backward", "train", "begin")  # functions


def files(about: Mapping[str, Any], data: bytes) -> dict[str, bytes]:
    """By the ending of their names."""
    said = (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode()
    return {".vmfb": data, ".json": said, ".py": Path(__file__).with_name("loader.py").read_bytes()}
