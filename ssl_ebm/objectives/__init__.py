"""The catalogue: every objective by name, ordered by how the volume of low energy is limited."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives.from_config import PARTS, change_parts, custom
from ssl_ebm.objectives.objective import Objective, Step
from ssl_ebm.objectives.presets.asymmetric import byol, directpred, simsiam
from ssl_ebm.objectives.presets.contrastive import (
    align_uniform,
    dcl,
    dclw,
    moco_v2,
    moco_v3,
    nnclr,
    simclr,
    spectral,
    square_square,
    supcon,
    triplet,
)
from ssl_ebm.objectives.presets.latent_code import dino, msn, swav
from ssl_ebm.objectives.presets.noise_contrastive import cpc, jsd, nce, nwj, siglip
from ssl_ebm.objectives.presets.none import none
from ssl_ebm.objectives.presets.regularized import (
    barlow_twins,
    corinfomax,
    emp_ssl,
    lejepa,
    mcr2,
    mmcr,
    ssl_hsic,
    tico,
    vicreg,
    wmse,
)
from ssl_ebm.objectives.presets.supervised import supervised
from ssl_ebm.registry import build, parameters_of, unknown_name

__all__ = ["FAMILIES", "OBJECTIVES", "PARTS", "Objective", "Step", "create_objective", "list_objectives"]

FAMILIES: dict[str, dict[str, Callable[..., Objective]]] = {
    "contrastive": {
        "simclr": simclr,
        "supcon": supcon,
        "moco_v2": moco_v2,
        "moco_v3": moco_v3,
        "nnclr": nnclr,
        "dcl": dcl,
        "dclw": dclw,
        "triplet": triplet,
        "square_square": square_square,
        "align_uniform": align_uniform,
        "spectral": spectral,
    },
    "noise_contrastive": {
        "nce": nce,
        "cpc": cpc,
        "jsd": jsd,
        "nwj": nwj,
        "siglip": siglip,
    },
    "regularized": {
        "vicreg": vicreg,
        "barlow_twins": barlow_twins,
        "wmse": wmse,
        "tico": tico,
        "mmcr": mmcr,
        "corinfomax": corinfomax,
        "mcr2": mcr2,
        "emp_ssl": emp_ssl,
        "lejepa": lejepa,
        "ssl_hsic": ssl_hsic,
    },
    "asymmetric": {
        "byol": byol,
        "simsiam": simsiam,
        "directpred": directpred,
    },
    "latent_code": {
        "dino": dino,
        "swav": swav,
        "msn": msn,
    },
    "supervised": {
        "supervised": supervised,
    },
}

OBJECTIVES = {name: preset for family in FAMILIES.values() for name, preset in family.items()}

CHANGES = (*PARTS, "pairing")  # arguments of every objective, beside its own


def list_objectives(family: str | None = None) -> list[str]:
    """Names of all objectives, or of one family's.

    Raises:
        ValueError: There is no such family.
    """
    if family is None:
        return list(OBJECTIVES)
    if family not in FAMILIES:
        raise ValueError(unknown_name("family", family, FAMILIES))
    return list(FAMILIES[family])


def objective_builder(name: str) -> Callable[..., Objective]:
    """The function behind a name; its docstring has formula and source.

    Raises:
        ValueError: There is no objective of that name.
    """
    builders = OBJECTIVES | {"custom": custom, "none": none}
    if name not in builders:
        raise ValueError(unknown_name("objective", name, builders))
    return builders[name]


def objective_arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments that an objective takes, with their defaults.

    Raises:
        ValueError: There is no objective of that name.
    """
    return parameters_of(objective_builder(name))


def create_objective(name: str, **kwargs: Any) -> Objective:
    """An objective by name, e.g. `create_objective("simclr", temperature=0.2, projector={"hidden": [512], "out": 64})`.

    `projector` and `predictor` may be an `MLP` or a mapping of the fields that differ from the paper's. Besides its own
    arguments every objective takes parts that replace its own (`objectives.parts`): `energy`, `contrast`, `negatives`,
    `target`, `regularizers`, `pairing`, and `graph`: which samples are compatible. "custom" has parts only.

    Raises:
        ValueError: Unknown name, a value out of range, or parts that do not go together.
        TypeError: Unknown or missing argument.
    """
    builder = objective_builder(name)
    parameters = parameters_of(builder)
    changes = {part: kwargs.pop(part) for part in CHANGES if part in kwargs and part not in parameters}
    for head in ("projector", "predictor"):
        if head in parameters and not isinstance(kwargs.get(head), (MLP, NoneType)):
            kwargs[head] = _override(parameters[head].default or MLP(), kwargs[head], f"{name}.{head}")
    objective = build("objective", {name: builder}, {"name": name, **kwargs}, also=CHANGES)
    return change_parts(objective, changes) if changes else objective


def _override(default: MLP, changes: Any, where: str) -> MLP:
    """The default with the fields that a config changes."""
    if not isinstance(changes, Mapping):
        raise TypeError(f"{where} must be an MLP or a mapping of its fields, e.g. {{'out': 64}}, got {changes!r}")
    fields = [field.name for field in dataclasses.fields(MLP)]
    for key in changes:
        if key not in fields:
            raise TypeError(unknown_name(f"field of {where}", key, fields))
    hidden = tuple(int(width) for width in changes.get("hidden", default.hidden))
    return dataclasses.replace(default, **{**changes, "hidden": hidden})
