"""Objectives that a config composes: every part by its name, in any combination that makes sense.

objective:
  name: vicreg                                # a published one with other parts ...
  contrast: {name: sigmoid, bias: -5}
  negatives: {name: batch, views: other}
objective:
  name: custom                                # ... or all of it
  energy: {name: cosine, temperature: 0.1}
  contrast: infonce
  negatives: batch
  regularizers: {covariance: {weight: 0.04}}
  projector: {hidden: [512], out: 128}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

from torch import nn

from ssl_ebm.energies import pairwise
from ssl_ebm.energies.codes import CodeCrossEntropy, Codes, SharedCode
from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective, Pairing
from ssl_ebm.objectives.parts import code_targets, contrasts, memory, negatives, noise_contrasts, regularizers, targets
from ssl_ebm.objectives.parts.compatibility import GRAPHS
from ssl_ebm.objectives.parts.contrasts import Contrast
from ssl_ebm.objectives.parts.memory import Memory
from ssl_ebm.objectives.parts.negatives import Negatives
from ssl_ebm.objectives.parts.regularizers import Regularizer
from ssl_ebm.objectives.parts.targets import Target
from ssl_ebm.registry import build


def _codes(*, temperature: float = 0.1, prototypes: int | None = None, dim: int) -> CodeCrossEntropy:
    """E(a, q) = -Σ_k q_k log p(k | a); `prototypes` None: the projector's outputs are the logits."""
    return CodeCrossEntropy(Codes(temperature=temperature, prototypes=prototypes, dim=dim))


PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "energy": {
        "cosine": pairwise.Cosine,
        "squared_euclidean": pairwise.SquaredEuclidean,
        "distance": pairwise.Distance,
        "dot": pairwise.Dot,
        "bilinear": pairwise.Bilinear,
        "inverse_multiquadratic": pairwise.InverseMultiquadratic,
        "direct_prediction": pairwise.DirectPrediction,
        "codes": _codes,
    },
    "contrast": {
        "attract": contrasts.Attract,
        "infonce": contrasts.InfoNCE,
        "margin": contrasts.Margin,
        "perceptron": contrasts.Perceptron,
        "log": contrasts.LogLoss,
        "square_square": contrasts.SquareSquare,
        "spectral": contrasts.Spectral,
        "jensen_shannon": noise_contrasts.JensenShannon,
        "nwj": noise_contrasts.NWJ,
        "sigmoid": noise_contrasts.Sigmoid,
        "noise_contrastive": noise_contrasts.NoiseContrastive,
    },
    "negatives": {
        "none": negatives.Negatives,
        "batch": negatives.BatchNegatives,
        "queue": negatives.QueueNegatives,
        "memory": memory.MemoryNegatives,
    },
    "target": {
        "other_view": targets.Target,
        "stop_gradient": targets.StopGradient,
        "teacher": targets.Teacher,
        "nearest_neighbour": targets.NearestNeighbour,
        "memory": memory.Memory,
        "centred": code_targets.Centred,
        "equipartition": code_targets.Equipartition,
        "label": code_targets.LabelTarget,
    },
    "regularizers": {
        "variance": regularizers.Variance,
        "covariance": regularizers.Covariance,
        "cross_correlation": regularizers.CrossCorrelation,
        "uniformity": regularizers.Uniformity,
        "gaussianity": regularizers.SlicedGaussianity,
        "second_moment": regularizers.SecondMoment,
        "nuclear_norm": regularizers.NuclearNorm,
        "log_det_covariance": regularizers.LogDetCovariance,
        "coding_rate": regularizers.CodingRate,
        "rate_reduction": regularizers.RateReduction,
        "whitened_distance": regularizers.WhitenedDistance,
        "hsic": regularizers.HSIC,
        "koleo": regularizers.KoLeo,
        "mean_entropy": regularizers.MeanEntropy,
    },
    "graph": GRAPHS,
}


def custom(
    *,
    energy: str | Mapping[str, Any] | Energy = "cosine",
    contrast: str | Mapping[str, Any] | Contrast | None = None,
    negatives: str | Mapping[str, Any] | Negatives | None = None,
    target: str | Mapping[str, Any] | Target | None = None,
    regularizers: Mapping[str, Any] | None = None,
    pairing: Pairing = "both",
    transposed: bool = False,
    weight: float = 1.0,
    projector: MLP = MLP(),
    predictor: MLP | None = None,
) -> Objective:
    """Any combination of parts: an energy, a contrast, negatives, a target, regularizers, heads.

    Each part is its name, or a mapping of `name` and arguments; `regularizers` maps names to arguments.
    Source: nobody's.
    """
    choices = {"energy": energy, "contrast": contrast, "negatives": negatives, "target": target}
    return Objective(
        **build_parts(choices | {"regularizers": regularizers or {}}, projector, None),
        heads=HeadSpec(projector=projector, predictor=predictor),
        pairing=pairing,
        transposed=transposed,
        weight=weight,
    )


def change_parts(objective: Objective, changes: Mapping[str, Any]) -> Objective:
    """Replace parts of a published objective; regularizers are added to the ones it has, and null removes a part."""
    kept = {name: value for name, value in changes.items() if name not in PARTS}
    choices = {name: choice for name, choice in changes.items() if name in PARTS}
    return objective.replace(**kept, **build_parts(choices, objective.heads.projector, objective))


def build_parts(choices: Mapping[str, Any], projector: MLP, owner: Objective | None) -> dict[str, Any]:
    """Build the chosen parts; what one part takes from another (dimension, codes, memory) is filled in.

    Args:
        choices: For each kind of part, a name, a mapping of `name` and arguments, or a module.
        projector: The head whose output the energy takes.
        owner: The objective that the parts which are not chosen come from; None: there are no such parts.
    """
    parts: dict[str, Any] = {}
    known: dict[str, Any] = {"dim": projector.dim}
    if "energy" in choices:
        parts["energy"] = _build("energy", choices["energy"], known)
        parts["scorer"] = None
    energy = parts.get("energy", None if owner is None else owner.energy)
    if isinstance(energy, CodeCrossEntropy):
        prototypes = energy.codes.prototypes
        known |= {"codes": energy.codes, "count": projector.dim if prototypes is None else len(prototypes)}
        if "energy" in choices:
            parts["scorer"] = SharedCode(energy.codes, count=known["count"])
    if isinstance(energy, pairwise.InverseMultiquadratic):
        known["kernel"] = energy
    if "target" in choices:
        parts["target"] = _build_target(choices["target"], known)
    target = parts.get("target", None if owner is None else owner.target)
    if isinstance(target, Memory):
        known |= {"memory": target, "population": len(target.vectors) or None}
    for kind in ("contrast", "negatives", "graph"):
        if kind in choices:
            parts[kind] = _build(kind, choices[kind], known)
    if "regularizers" in choices:
        kept = {} if owner is None else owner.named_regularizers
        parts["regularizers"] = _build_regularizers(choices["regularizers"], kept, known)
    return parts


def _build_target(choice: Any, known: Mapping[str, Any]) -> Target | None:
    """Build a target; a target over codes wraps another one, which `of` chooses and which is else a teacher."""
    if isinstance(choice, Mapping) and "of" in choice:
        choice = {**choice, "of": _build("target", choice["of"], known)}
    return _build("target", choice, {**known, "of": targets.Teacher()})


def _build_regularizers(choices: Any, kept: Mapping[str, Regularizer], known: Mapping[str, Any]) -> dict[str, Any]:
    """Build the chosen regularizers beside the kept ones; a choice replaces the one of its name, null removes it."""
    if not isinstance(choices, Mapping):
        raise TypeError(f"regularizers must map names to arguments, got {choices!r}")
    built: dict[str, Any] = {name: part for name, part in kept.items() if name not in choices}
    for name, choice in choices.items():
        if not isinstance(choice, (Mapping, nn.Module, NoneType)):
            raise TypeError(f"regularizer {name} takes a mapping of arguments, {{weight: 1}}, got {choice!r}")
        if choice is not None:
            named = {"name": name, **choice} if isinstance(choice, Mapping) else choice
            built[name] = _build("regularizers", named, known)
    return built


def _build(kind: str, choice: Any, known: Mapping[str, Any]) -> Any:
    """Build a chosen part; a module is taken as it is, and so is null where the part may be missing."""
    if isinstance(choice, nn.Module) or (choice is None and kind != "energy"):
        return choice
    singular = "regularizer" if kind == "regularizers" else kind
    return build(singular, PARTS[kind], choice, remedies=_REMEDIES, **known)


_REMEDIES = {
    "codes": "choose energy 'codes', whose codes it assigns",
    "memory": "choose target 'memory', which it draws from",
    "population": "choose target 'memory', which it draws from",
    "kernel": "choose energy 'inverse_multiquadratic', whose kernel it uses",
}
