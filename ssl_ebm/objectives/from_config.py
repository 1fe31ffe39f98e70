"""Objectives composed in a config: every part by its name, in any combination that makes sense.

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

import inspect
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
from ssl_ebm.objectives.parts.compatibility import Graph, create_graph
from ssl_ebm.objectives.parts.contrasts import Contrast
from ssl_ebm.objectives.parts.memory import Memory
from ssl_ebm.objectives.parts.negatives import Negatives
from ssl_ebm.objectives.parts.targets import Target
from ssl_ebm.registry import unknown_name


def _codes(*, temperature: float = 0.1, prototypes: int | None = None, dim: int) -> CodeCrossEntropy:
    """E(a, q) = -Σ_k q_k log p(k | a); `prototypes` None: the projector gives the logits."""
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
    given = {"energy": energy, "contrast": contrast, "negatives": negatives, "target": target}
    parts = build_parts(given | {"regularizers": regularizers or {}}, projector, None)
    return Objective(
        energy=parts["energy"],
        contrast=parts["contrast"],
        negatives=parts["negatives"],
        target=parts["target"],
        regularizers=parts["regularizers"],
        scorer=parts.get("scorer"),
        heads=HeadSpec(projector=projector, predictor=predictor),
        pairing=pairing,
        transposed=transposed,
        weight=weight,
    )


def change_parts(objective: Objective, changes: Mapping[str, Any]) -> Objective:
    """A published objective with other parts; regularizers are added to its own, null takes one away."""
    changes = dict(changes)
    graph = changes.pop("graph", None)
    if graph is not None:
        changes["graph"] = _build_graph(graph)
    built = {name: part for name, part in changes.items() if name not in PARTS}
    built |= build_parts(
        {name: part for name, part in changes.items() if name in PARTS}, objective.heads.projector, objective
    )
    return objective.replace(**built)


def _build_graph(given: Any) -> Graph:
    if isinstance(given, Graph):
        return given
    arguments = {"name": given} if isinstance(given, str) else given
    if not isinstance(arguments, Mapping) or "name" not in arguments:
        raise TypeError(f"graph must be a name, or a mapping of name and arguments, got {given!r}")
    valid = inspect.signature(create_graph).parameters
    for argument in arguments:
        if argument not in valid:
            raise TypeError(unknown_name("argument of graph", argument, valid))
    return create_graph(**arguments)


def build_parts(given: Mapping[str, Any], projector: MLP, owner: Objective | None) -> dict[str, Any]:
    """Modules of the parts given by name; what one takes from another (dimension, codes, memory) is filled in."""
    parts: dict[str, Any] = {}
    known: dict[str, Any] = {"dim": projector.dim}
    if "energy" in given:
        parts["energy"] = _build("energy", given["energy"], known)
    energy = parts.get("energy", None if owner is None else owner.energy)
    if isinstance(energy, CodeCrossEntropy):
        prototypes = energy.codes.prototypes
        known |= {"codes": energy.codes, "count": projector.dim if prototypes is None else len(prototypes)}
        if "energy" in given:
            parts["scorer"] = SharedCode(energy.codes, count=known["count"])
    elif "energy" in given and owner is not None:
        parts["scorer"] = None
    if isinstance(energy, pairwise.InverseMultiquadratic):
        known["kernel"] = energy
    if "target" in given:
        parts["target"] = _build_target(given["target"], known)
    target = parts.get("target", None if owner is None else owner.target)
    if isinstance(target, Memory):
        known |= {"memory": target, "population": len(target.vectors) or None}
    for kind in ("contrast", "negatives"):
        if kind in given:
            parts[kind] = _build(kind, given[kind], known)
    if "regularizers" in given:
        own = {} if owner is None else dict(owner.regularizers.items())
        if not isinstance(given["regularizers"], Mapping):
            raise TypeError(f"regularizers must map names to arguments, got {given['regularizers']!r}")
        for name, arguments in given["regularizers"].items():
            own.pop(name, None)
            if not isinstance(arguments, (Mapping, nn.Module, NoneType)):
                raise TypeError(f"regularizer {name} takes a mapping of arguments, {{weight: 1}}, got {arguments!r}")
            if arguments is not None:
                built = {"name": name, **arguments} if isinstance(arguments, Mapping) else arguments
                own[name] = _build("regularizers", built, known)
        parts["regularizers"] = own
    return parts


def _build_target(given: Any, known: Mapping[str, Any]) -> Target | None:
    """A target; those over codes wrap another one, given as `of`, a teacher if not said otherwise."""
    if isinstance(given, Mapping) and given.get("name") in ("centred", "equipartition"):
        given = dict(given) | {"of": _build("target", given.get("of", "teacher"), known)}
    elif given in ("centred", "equipartition"):
        given = {"name": given, "of": targets.Teacher()}
    return _build("target", given, known)


def _build(kind: str, given: Any, known: Mapping[str, Any]) -> Any:
    """One part from its name, or a mapping of its name and arguments."""
    if isinstance(given, nn.Module) or (given is None and kind != "energy"):
        return given
    if not isinstance(given, (str, Mapping)):
        raise TypeError(f"{kind} must be a name, or a mapping of name and arguments, got {given!r}")
    arguments = {"name": given} if isinstance(given, str) else dict(given)
    if "name" not in arguments:
        raise ValueError(f"{kind} needs a name: {{name: {next(iter(PARTS[kind]))}, ...}}, got {arguments!r}")
    name, options = arguments.pop("name"), PARTS[kind]
    if name not in options:
        raise ValueError(unknown_name(kind.removesuffix("s") if kind == "regularizers" else kind, str(name), options))
    everything = inspect.signature(
        options[name]
    ).parameters  # a class without a constructor has torch's *args, **kwargs
    parameters = {k: each for k, each in everything.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    for argument in arguments:
        if argument not in parameters:
            raise TypeError(unknown_name(f"argument of {kind} {name!r}", argument, parameters))
    filled = {argument: known[argument] for argument in parameters if argument in known and argument not in arguments}
    for argument, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and argument not in filled | arguments:
            raise ValueError(f"{kind} {name!r} needs {argument}: {_WANTED.get(argument, 'give it as an argument')}")
    return options[name](**filled, **arguments)


_WANTED = {
    "codes": "choose energy 'codes', whose codes it assigns",
    "memory": "choose target 'memory', which it draws from",
    "population": "choose target 'memory', which it draws from",
    "kernel": "choose energy 'inverse_multiquadratic', whose kernel it uses",
}
