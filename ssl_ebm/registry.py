"""One sentence for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """`unknown KIND 'NAME': did you mean 'NEAREST'?`, with all valid names where none is near or they are few."""
    options = sorted(valid)
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}"
    if near:
        message += ": did you mean " + " or ".join(repr(option) for option in near) + "?"
    if len(options) <= 30:
        message += f" Valid: {', '.join(options)}" if near else f"; valid: {', '.join(options)}"
    return message
