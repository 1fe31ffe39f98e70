"""Reading evaluation.json: what it lacks, and whether it is of these weights and this version of the protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_ebm.evaluation.described_json import mismatches
from ssl_ebm.evaluation.results import VERSION, Results

NAMED = 5  # places of one kind that an error lists


def read_results(path: str | Path) -> dict[str, Any]:
    """The content of an evaluation.json, checked against `Results`; keys that it does not describe are kept.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, is of another version, or lacks something.
    """
    path = Path(path)
    content = _content(path)
    version = _protocol(content).get("version")
    if version != VERSION:
        raise ValueError(f"{path} is of protocol version {version}, and only {VERSION} is read: {_again(path)}")
    wrong: dict[str, list[str]] = {"missing": [], "type": [], "unknown": []}
    for kind, place in mismatches(content, Results):
        wrong[kind].append(place)
    for kind, problem in (("missing", "lacks"), ("type", "has a value of another type at")):
        if wrong[kind]:
            places = ", ".join(wrong[kind][:NAMED]) + (", ..." if len(wrong[kind]) > NAMED else "")
            raise ValueError(f"{path} of protocol version {VERSION} {problem} {places}: {_again(path)}")
    return content


def current_results(path: Path, weights: str) -> dict[str, Any] | None:
    """The content of an evaluation.json; None where there is none of these weights (`fingerprint`) and this version.

    Raises:
        ValueError: It is no JSON, or is of these and lacks something.
    """
    if not path.is_file():
        return None
    protocol = _protocol(_content(path))
    current = protocol.get("version") == VERSION and protocol.get("weights") == weights
    return read_results(path) if current else None


def fingerprint(encoder: Path) -> str:
    """SHA-256 of a run's weights, which its results name.

    Raises:
        FileNotFoundError: There are none yet.
    """
    if not encoder.is_file():
        raise FileNotFoundError(f"no weights at {encoder}: the run has not reached its first checkpoint")
    return hashlib.sha256(encoder.read_bytes()).hexdigest()


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no results at {path}: ssl-ebm evaluate {path.parent}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_again(path)}") from error


def _protocol(content: Any) -> Mapping[str, Any]:
    """The file's protocol, empty where it has none."""
    protocol = content.get("protocol") if isinstance(content, Mapping) else None
    return protocol if isinstance(protocol, Mapping) else {}


def _again(path: Path) -> str:
    return f"evaluate it again with ssl-ebm evaluate {path.parent} --force"
