"""Code of the user's that a training is given: found, and recorded in its config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from ssl_ebm.config import Config
from ssl_ebm.networks.encoder import EncoderConfig
from ssl_ebm.user_code import GROUPS, Parts, import_part, is_import_name, part_name


def named_parts(config: Config) -> Parts:
    """What the user's own config names as `package.module:function`; not what a run has recorded."""
    names = {}
    for kind in GROUPS:
        section = _fields(getattr(config, kind))
        if is_import_name(section["name"]) and not section.get("external"):
            names[kind] = section["name"]
    return Parts(**names)


def adopt(config: Config, parts: Parts, overrides: Sequence[str] = ()) -> tuple[Config, Parts]:
    """The config with every part of the user's recorded as external, and those parts, imported.

    A part that is given takes the place of its section, whose arguments stay where the section has its name. The keys
    of `data` that say how images are split stay in any case.

    Args:
        config: The user's; what it names as `package.module:function` is imported.
        parts: What is given beside it. A name that is no import name replaces the section's.
        overrides: Changes that the config has already: those of a section that is replaced are its new arguments.

    Raises:
        ValueError: Something cannot be imported.
    """
    named = named_parts(config)
    sections: dict[str, Any] = {}
    imported: dict[str, Any] = {}
    for kind in GROUPS:
        part = getattr(named if getattr(parts, kind) is None else parts, kind)
        if part is None:
            continue
        is_external = not isinstance(part, str) or is_import_name(part)
        sections[kind] = _renamed(kind, config, part_name(part), is_external, overrides)
        if is_external:
            imported[kind] = import_part(part) if isinstance(part, str) else part
    return replace(config, **sections), Parts(**imported, trust=parts.trust)


def _renamed(kind: str, config: Config, name: str, is_external: bool, overrides: Sequence[str]) -> Any:
    """A section with the name of what is given."""
    section = getattr(config, kind)
    of_section = [override for override in overrides if override.startswith(f"{kind}.")]
    changes = OmegaConf.to_container(OmegaConf.from_dotlist(of_section)).get(kind, {})  # type: ignore[union-attr]
    kept = _fields(section)["name"] == name
    if kind == "data":
        return replace(section, name=name, external=is_external)
    if kind == "encoder":
        base = section if kept else EncoderConfig(**changes)
        return replace(base, name=name, external=is_external)
    arguments = {**(section if kept else changes), "name": name}
    arguments.pop("external", None)
    return {**arguments, "external": True} if is_external else arguments


def _fields(section: Any) -> dict[str, Any]:
    return dict(section if isinstance(section, dict) else vars(section))
