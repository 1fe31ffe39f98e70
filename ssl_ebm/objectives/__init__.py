"""The catalogue: every objective by name, ordered by how the volume of low energy is limited."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ssl_ebm.heads import MLP
from ssl_ebm.names import unknown
from ssl_ebm.objectives.asymmetric import byol, simsiam
from ssl_ebm.objectives.contrastive import align_uniform, moco_v2, simclr, spectral, supcon, triplet
from ssl_ebm.objectives.noise_contrastive import nce, siglip
from ssl_ebm.objectives.objective import Objective, Step
from ssl_ebm.objectives.regularized import barlow_twins, lejepa, vicreg

__all__ = ["FAMILIES", "OBJECTIVES", "Objective", "Step", "create_objective", "list_objectives"]

FAMILIES: dict[str, dict[str, Callable[..., Objective]]] = {
    "contrastive": {
        "simclr": simclr,
        "supcon": supcon,
        "moco_v2": moco_v2,
        "triplet": triplet,
        "align_uniform": align_uniform,
        "spectral": spectral,
    },
    "noise_contrastive": {
        "nce": nce,
        "siglip": siglip,
    },
    "regularized": {
        "vicreg": vicreg,
        "barlow_twins": barlow_twins,
        "lejepa": lejepa,
    },
    "asymmetric": {
        "byol": byol,
        "simsiam": simsiam,
    },
}

OBJECTIVES = {name: build for family in FAMILIES.values() for name, build in family.items()}


def list_objectives(family: str | None = None) -> list[str]:
    """Names of all objectives, or of one family's.

    Raises:
        ValueError: There is no such family.
    """
    if family is None:
        return list(OBJECTIVES)
    if family not in FAMILIES:
        raise ValueError(unknown("family", family, FAMILIES))
    return list(FAMILIES[family])


def objective_arguments(name: str) -> dict[str, inspect.Parameter]:
    """The arguments that an objective takes, with their defaults.

    Raises:
        ValueError: There is no objective of that name.
    """
    if name not in OBJECTIVES:
        raise ValueError(unknown("objective", name, OBJECTIVES))
    return dict(inspect.signature(OBJECTIVES[name]).parameters)


def create_objective(name: str, **kwargs: Any) -> Objective:
    """An objective by name, e.g. `create_objective("simclr", temperature=0.2, projector={"hidden": [512], "out": 64})`.

    `projector` and `predictor` may be an `MLP` or a mapping of the fields that differ from the paper's.

    Raises:
        ValueError: Unknown name, or a value out of range.
        TypeError: Unknown or missing argument.
    """
    parameters = objective_arguments(name)
    for argument, value in kwargs.items():
        if argument not in parameters:
            raise TypeError(unknown(f"argument of objective {name!r}", argument, parameters))
        if argument in ("projector", "predictor") and not isinstance(value, MLP):
            kwargs[argument] = _override(parameters[argument].default, value, f"{name}.{argument}")
    for argument, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and argument not in kwargs:
            raise TypeError(f"objective {name!r} needs {argument}=...")
    return OBJECTIVES[name](**kwargs)


def _override(default: MLP, changes: Any, where: str) -> MLP:
    if not isinstance(changes, Mapping):
        raise TypeError(f"{where} must be an MLP or a mapping of its fields, e.g. {{'out': 64}}, got {changes!r}")
    fields = [field.name for field in dataclasses.fields(MLP)]
    for key in changes:
        if key not in fields:
            raise TypeError(unknown(f"field of {where}", key, fields))
    hidden = tuple(int(width) for width in changes.get("hidden", default.hidden))
    return dataclasses.replace(default, **{**changes, "hidden": hidden})
