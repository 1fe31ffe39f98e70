"""A JSON file described by a dataclass: what of it is missing or of another type, and its description as Markdown.

A field without a default must be there. Its meaning is the text of its `Annotated` type, or stands under `Attributes:`
in the docstring of its class.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

WORDS = {str: "text", bool: "true or false", int: "integer", float: "number", type(None): "null", Any: "any"}


def mismatches(content: Any, kind: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """What is wrong with a content, as ("missing" | "unknown" | "type", place), places with dots between keys."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if content is None and type(None) in options:
        return
    kind = next(option for option in options if option is not type(None))
    inner = f"{place}." if place else ""
    if is_dataclass(kind) and isinstance(content, Mapping):
        types: dict[str, Any] = _types(kind)  # type: ignore[arg-type]
        known = {field.name: field for field in fields(kind)}
        yield from (("unknown", inner + key) for key in content if key not in known)
        for name, field in known.items():
            if name in content:
                yield from mismatches(content[name], types[name], inner + name)
            elif _required(field):
                yield "missing", inner + name
    elif get_origin(kind) is dict and isinstance(content, Mapping):
        for key, value in content.items():
            yield from mismatches(value, get_args(kind)[1], inner + key)
    elif get_origin(kind) is list and isinstance(content, list):
        member = get_args(kind)[0]
        for i, value in enumerate(content):
            if not _is(value, member):  # a file is mostly lists of numbers: they are not asked for twice
                yield from mismatches(value, member, f"{inner}{i}")
    elif not (kind is Any or _is(content, kind)):
        yield "type", place


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type; an integer is a number, true and false are none."""
    return type(value) is kind or (kind is float and type(value) is int)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def as_markdown(kind: type) -> str:
    """A section for a dataclass and for each that it holds: keys, types, meanings."""
    classes = list(dict.fromkeys(_classes(kind)))
    return "\n\n".join(_section(each) for each in classes) + "\n"


def _classes(kind: Any) -> Iterator[type]:
    """Dataclasses in a type, outermost first."""
    if is_dataclass(kind):
        yield kind  # type: ignore[misc]
        for hint in get_type_hints(kind).values():
            yield from _classes(hint)
    for argument in get_args(kind):
        yield from _classes(argument)


def _section(kind: type) -> str:
    types, meanings = get_type_hints(kind), _meanings(kind)
    lines = [f"## {kind.__name__}", "", inspect.cleandoc(kind.__doc__ or "").split("\n\nAttributes:")[0], ""]
    lines += ["| key | type | meaning |", "| --- | --- | --- |"]
    for field in fields(kind):
        name = field.name if _required(field) else f"{field.name}?"
        lines.append(f"| {name} | {_words(types[field.name])} | {meanings[field.name]} |")
    return "\n".join(lines)


def _words(kind: Any) -> str:
    """A type in words."""
    if is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"  # type: ignore[union-attr]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"by name: {_words(arguments[1])}"
    if origin in (Union, UnionType):
        return " or ".join(map(_words, arguments))
    return WORDS[kind]


def _meanings(kind: type) -> dict[str, str]:
    """Meanings of fields, those that a class is extended by included."""
    meanings: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        _, _, attributes = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): ((?:.|\n(?=        ))+)", attributes, re.MULTILINE):
            meanings[name] = " ".join(text.split())
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is Annotated:
            meanings[name] = hint.__metadata__[0]
    return {name: text.replace("|", "\\|") for name, text in meanings.items()}
