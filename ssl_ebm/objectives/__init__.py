"""The catalogue: every objective by name, ordered by how the volume of low energy is limited."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, overload

from torch import nn

from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives.from_config import PARTS, change_parts, custom
from ssl_ebm.objectives.from_module import FromModule, PlainObjective
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
from ssl_ebm.user_code import entry_points, is_external, part_name

__all__ = [
    "FAMILIES",
    "OBJECTIVES",
    "PARTS",
    "Objective",
    "PlainObjective",
    "Step",
    "create_objective",
    "list_objectives",
]

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


def objective_builder(name: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function behind a name; its docstring has formula and source. A function stands for itself.

    Raises:
        ValueError: There is no objective of that name.
    """
    builders: dict[str, Callable[..., Any]] = OBJECTIVES | {"custom": custom, "none": none}
    if callable(name) or name in builders:
        return name if callable(name) else builders[name]
    installed = entry_points("objective")
    if name not in installed:
        raise ValueError(unknown_name("objective", name, [*builders, *installed]))
    return installed[name].load()


def objective_arguments(name: str | Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that an objective takes, with their defaults; not the `*args` of a class without a constructor.

    Raises:
        ValueError: There is no objective of that name.
    """
    return parameters_of(objective_builder(name))


@overload
def create_objective(name: str, **kwargs: Any) -> Objective: ...
@overload
def create_objective(name: Callable[..., Any], **kwargs: Any) -> Objective | FromModule: ...
def create_objective(name: str | Callable[..., Any], **kwargs: Any) -> Objective | FromModule:
    """An objective by name, e.g. `create_objective("simclr", temperature=0.2, projector={"hidden": [512], "out": 64})`.

    `projector` and `predictor` may be an `MLP` or a mapping of the fields that differ from the paper's. Besides its own
    arguments every objective takes parts that replace its own (`objectives.parts`): `energy`, `contrast`, `negatives`,
    `target`, `regularizers`, `pairing`, and `graph`: which samples are compatible. "custom" has parts only.

    It is a plain loss: `create_objective("simclr")(z0, z1).loss` of projections [batch, dim] of two or more views.

    Args:
        name: Of the catalogue; an entry point of the group `ssl_ebm.objectives`; or a function that makes an objective.
        **kwargs: Its arguments, and parts.

    Raises:
        ValueError: Unknown name, a value out of range, or parts that do not go together.
        TypeError: Unknown or missing argument.
    """
    builder, label = objective_builder(name), part_name(name)
    parameters = parameters_of(builder)
    changes = {part: kwargs.pop(part) for part in CHANGES if part in kwargs and part not in parameters}
    for head in ("projector", "predictor"):
        if head in parameters and not isinstance(kwargs.get(head), (MLP, NoneType)):
            kwargs[head] = _override(parameters[head].default or MLP(), kwargs[head], f"{label}.{head}")
    made = build("objective", {label: builder}, {"name": label, **kwargs}, also=CHANGES)
    if changes and not isinstance(made, Objective):
        raise TypeError(
            f"objective {label!r} is not made of parts that {', '.join(changes)} could replace: leave it out"
        )
    objective = made if isinstance(made, Objective) else FromModule(made)
    return change_parts(objective, changes) if changes and isinstance(objective, Objective) else objective


def build_objective(section: Mapping[str, Any], objective: Any = None) -> Objective | FromModule:
    """The objective that a config's section describes.

    Args:
        section: `name` and arguments.
        objective: The user's own that it names: a module, which is copied, or a function that makes one.

    Raises:
        ValueError: As `create_objective`; or the section names code of the user's, and it is not given.
        TypeError: As `create_objective`; or arguments for what is made already.
    """
    name = section["name"]
    arguments = {key: value for key, value in section.items() if key not in ("name", "external")}
    if objective is None and is_external(section):
        raise ValueError(f"objective {name} is code of the user's: give it with objective=")
    if inspect.isclass(objective) or not (isinstance(objective, nn.Module) or hasattr(objective, "heads")):
        return create_objective(name if objective is None else objective, **arguments)
    if arguments:
        raise TypeError(f"objective {name} is made already and takes no {', '.join(arguments)}: give its function")
    copied = copy.deepcopy(objective)
    return copied if isinstance(copied, Objective) else FromModule(copied)


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
