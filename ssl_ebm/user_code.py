"""What a name in a config stands for: a built-in, an entry point of an installed package, or code that the user names.

A built-in wins over an entry point of its name. `package.module:function` is code to run, so only what the user gives
in that form is imported: an argument, an option, the config of a training. What a run directory names so is not,
without `trust`: the directory may come from a stranger.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

GROUPS = {
    "objective": "ssl_ebm.objectives",
    "data": "ssl_ebm.data",
    "encoder": "ssl_ebm.encoders",
    "views": "ssl_ebm.views",
}  # kind of a part, which is the key of its section in a config → group of its entry points

_IDENTIFIERS = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_IMPORT_NAME = re.compile(f"{_IDENTIFIERS}:{_IDENTIFIERS}")


class MissingPart(ValueError):
    """A run was made with code of its user's, which was not given again."""


def is_import_name(name: Any) -> bool:
    """Whether it has the form `package.module:function`."""
    return isinstance(name, str) and _IMPORT_NAME.fullmatch(name) is not None


def import_part(name: str) -> Any:
    """What `package.module:function` names. The module runs: call this with names that the user gave.

    The current directory is searched after all others, as a command's is not.

    Raises:
        ValueError: There is no such module or function.
    """
    if not is_import_name(name):
        raise ValueError(f"code of your own is named package.module:function, got {name!r}")
    module, _, path = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported ({error}): is its folder in PYTHONPATH?") from error


def part_name(part: Any) -> str:
    """What a config calls a part: `package.module:function` where that finds it again, else its own or its class's."""
    if isinstance(part, str):
        return part
    part = part.func if isinstance(part, functools.partial) else part
    module, path = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    name = f"{module}:{path}"
    if path is None or module == "__main__" or not is_import_name(name):
        return path or type(part).__name__
    return name


def entry_points(kind: str) -> dict[str, metadata.EntryPoint]:
    """Parts of a kind that installed packages offer, by name; nothing of theirs is imported."""
    return {point.name: point for point in metadata.entry_points(group=GROUPS[kind])}


def is_external(section: Any) -> bool:
    """Whether a config's section names code of the user's: in a run's record, or as `package.module:function`."""
    return bool(_field(section, "external")) or is_import_name(_field(section, "name"))


def _field(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else getattr(section, name)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Code of the user's that comes beside a config.

    Each part is the thing itself, `package.module:function`, or a list of such where there are several runs.

    Attributes:
        objective: An objective, or a function that makes one.
        data: Images.
        encoder: A backbone, or a function that makes one.
        views: What makes views of images.
        trust: Import what the config of a run names.
    """

    objective: Any = None
    data: Any = None
    encoder: Any = None
    views: Any = None
    trust: bool = False

    def find(self, kind: str, section: Any) -> Any | None:
        """The user's part that a config's section names; None where the section is of a built-in or an entry point.

        Two import names must agree, so that one of several runs does not get another's part.

        Raises:
            MissingPart: It was not given, or another one was.
        """
        if not is_external(section):
            return None
        name, brought = _field(section, "name"), getattr(self, kind)
        candidates = brought if isinstance(brought, list) else [] if brought is None else [brought]
        for part in candidates:
            if part_name(part) == name or not (is_import_name(name) and is_import_name(part_name(part))):
                return import_part(part) if isinstance(part, str) else part
        if self.trust and is_import_name(name):
            return import_part(name)
        remedy = f"{kind}=, --{kind} {name}), or trust the run (--trust)" if is_import_name(name) else f"{kind}=)"
        others = f"; {', '.join(map(part_name, candidates))} is another" if candidates else ""
        raise MissingPart(f"the run's {kind} is {name}, code that no run brings: give it again ({remedy}{others}")

    def needed(self, config: Any) -> Parts:
        """Those that a config names; the others are of other runs."""
        kept = {kind: getattr(self, kind) for kind in GROUPS if is_external(getattr(config, kind))}
        return Parts(**kept, trust=self.trust)

    def offers(self, kind: str, config: Any) -> bool:
        """Whether `find` would give what a config names."""
        try:
            return self.find(kind, getattr(config, kind)) is not None
        except MissingPart:
            return False

    def resolved(self, config: Any, *, optional: Collection[str] = ()) -> Parts:
        """The things themselves that a config names; None for what is not the user's.

        Args:
            config: Of a run.
            optional: Kinds that may be missing; None then, too.

        Raises:
            MissingPart: One that is not optional was not given.
        """
        kinds = [kind for kind in GROUPS if kind not in optional or self.offers(kind, config)]
        things: dict[str, Any] = {kind: self.find(kind, getattr(config, kind)) for kind in kinds}
        return Parts(**things)
