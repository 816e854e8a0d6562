"""Results that are computed once: a file holds what was found, and what it was found from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantlab.files import write

Found = dict[str, Any]


def once(path: Path, key: Mapping[str, Any], work: Callable[[], Found]) -> Found:
    """Return what ``work`` found from ``key``, out of ``path`` if that holds it; else write it."""
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            found: Found = kept["found"]
            return found
    found = work()
    write(path, json.dumps({"key": key, "found": found}, indent=1) + "\n")
    return found


def read(path: Path) -> Found:
    """Return what a file of ``once`` holds; nothing if there is none."""
    found: Found = json.loads(path.read_text())["found"] if path.exists() else {}
    return found


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
