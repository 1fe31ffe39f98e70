"""Objectives composed of parts by name, as a config gives them."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import BANK, DIM, gradients, random_batch, slow_but_for, small_objective, transform, with_gradients
from torch import Tensor
from torch.nn import functional as F

import ssl_ebm
from ssl_ebm.energies.canonical import Gaussian, Offset
from ssl_ebm.energies.codes import SharedCode
from ssl_ebm.energies.pairwise import Cosine, SquaredEuclidean
from ssl_ebm.energies.rows import Paired
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import PARTS, Objective, create_objective
from ssl_ebm.objectives.parts.contrasts import Attract, InfoNCE
from ssl_ebm.objectives.parts.noise_contrasts import Sigmoid
from ssl_ebm.objectives.parts.regularizers import Covariance, Variance
from ssl_ebm.objectives.parts.targets import StopGradient, Target, Teacher

EXACT = {"rtol": 1e-12, "atol": 1e-12}
HEADS = {"projector": {"hidden": [8], "out": DIM}, "predictor": {"hidden": [8], "out": DIM}}


def contrasted(contrast: Any, energies: Tensor) -> Tensor:
    """The mean loss of a square matrix whose diagonal is compatible."""
    n = len(energies)
    off_diagonal = energies[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    return contrast(Paired(energies.diagonal()[:, None]), Paired(off_diagonal)).mean()


def test_vicreg_under_a_sigmoid_contrast() -> None:
    changes = {"contrast": {"name": "sigmoid", "bias": -5.0}, "negatives": {"name": "batch", "views": "other"}}
    objective, batch = small_objective("vicreg", **changes).double(), random_batch()
    plain = small_objective("vicreg").double()
    a, b = batch.projection
    energy, sigmoid = SquaredEuclidean(per_dimension=True), Sigmoid(bias=-5.0).double()
    pulled = (contrasted(sigmoid, energy.cross(a, b)) + contrasted(sigmoid, energy.cross(b, a))) / 2
    expected = 25 * pulled + 25 * Variance()(batch.projection) + Covariance()(batch.projection)
    torch.testing.assert_close(objective(batch).loss, expected, **EXACT)
    assert isinstance(objective.canonical_form, Offset) and isinstance(plain.canonical_form, Gaussian)
    assert objective.heads == plain.heads and objective.uses == frozenset()


def test_byol_with_infonce() -> None:
    objective = small_objective("byol", contrast="infonce", negatives="batch").double()
    batch = random_batch()
    p, t = batch.prediction, batch.target
    losses = []
    for v in range(2):  # against all the teacher's projections but that of the same view
        energies = SquaredEuclidean(normalize=True).cross(p[v], t.flatten(0, 1))
        images = torch.arange(6).repeat(2)
        for i in range(6):
            positive = energies[i, 6 * (1 - v) + i]
            losses.append(F.softplus(positive + torch.logsumexp(-energies[i][images != i], 0)))
    torch.testing.assert_close(objective(batch).loss, 2 * torch.stack(losses).mean(), **EXACT)
    assert (
        objective.uses == {"prediction", "target"} and not objective.conservative and objective.canonical_form is None
    )


def test_custom_objective_is_the_sum_of_its_parts() -> None:
    config = {
        "energy": {"name": "cosine", "temperature": 0.2},
        "contrast": "infonce",
        "negatives": {"name": "batch", "views": "other"},
        "regularizers": {"covariance": {"weight": 0.04}, "variance": {}},
        "pairing": "first",
        "weight": 3.0,
        "projector": {"hidden": [512], "out": DIM},
    }
    objective, batch = create_objective("custom", **config).double(), random_batch()
    a, b = batch.projection
    expected = 3 * F.cross_entropy(F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2, torch.arange(6))
    expected = expected + 0.04 * Covariance()(batch.projection) + Variance()(batch.projection)
    torch.testing.assert_close(objective(batch).loss, expected, **EXACT)
    assert objective.heads.projector == MLP(hidden=(512,), out=DIM) and objective.heads.predictor is None
    assert objective.conservative and set(objective(batch).terms) == {
        *("energy_positive", "energy_negative", "contrast", "covariance", "variance")
    }


@pytest.mark.parametrize(
    ("name", "parts", "published"),
    [
        ("simclr", {"energy": {"name": "cosine", "temperature": 0.1}, "contrast": "infonce", "negatives": "batch"}, {}),
        (
            "dcl",
            {
                "energy": {"name": "cosine", "temperature": 0.1},
                "contrast": {"name": "infonce", "decoupled": True},
                "negatives": "batch",
            },
            {},
        ),
        (
            "vicreg",
            {
                "energy": {"name": "squared_euclidean", "per_dimension": True},
                "contrast": "attract",
                "weight": 25.0,
                "regularizers": {"variance": {"weight": 25.0}, "covariance": {}},
            },
            {},
        ),
        (
            "barlow_twins",
            {"energy": {"name": "squared_euclidean", "scale": 0.5}, "regularizers": {"cross_correlation": {}}},
            {},
        ),
        (
            "square_square",
            {"energy": {"name": "distance", "normalize": True}, "contrast": "square_square", "negatives": "batch"},
            {},
        ),
        (
            "spectral",
            {
                "energy": {"name": "dot", "max_norm": 1.0},
                "contrast": "spectral",
                "negatives": {"name": "batch", "views": "other"},
                "pairing": "first",
            },
            {},
        ),
        (
            "cpc",
            {
                "energy": "bilinear",
                "contrast": "infonce",
                "negatives": {"name": "batch", "views": "other"},
                "pairing": "first",
            },
            {},
        ),
        (
            "byol",
            {
                "energy": {"name": "squared_euclidean", "normalize": True},
                "contrast": "attract",
                "target": "teacher",
                "weight": 2.0,
                "predictor": {"hidden": [8]},
            },
            {},
        ),
        (
            "simsiam",
            {"energy": "cosine", "contrast": "attract", "target": "stop_gradient", "predictor": {"hidden": [8]}},
            {},
        ),
        ("directpred", {"energy": "direct_prediction", "contrast": "attract", "target": "teacher", "weight": 2.0}, {}),
        (
            "nnclr",
            {
                "energy": {"name": "cosine", "temperature": 0.1},
                "contrast": "infonce",
                "negatives": {"name": "batch", "views": "other"},
                "target": {"name": "nearest_neighbour", "size": 9},
                "transposed": True,
                "predictor": {"hidden": [8]},
            },
            {},
        ),
        (
            "moco_v2",
            {
                "energy": {"name": "cosine", "temperature": 0.2},
                "contrast": "infonce",
                "negatives": {"name": "queue", "size": 9},
                "target": {"name": "teacher", "momentum": 0.999, "final_momentum": 0.999},
                "pairing": "first",
            },
            {},
        ),
        (
            "nce",
            {
                "energy": {"name": "cosine", "temperature": 0.07},
                "contrast": "noise_contrastive",
                "negatives": {"name": "memory", "draws": 7},
                "target": {"name": "memory", "size": BANK},
            },
            {},
        ),
        ("dino", {"energy": "codes", "contrast": "attract", "target": "centred"}, {}),
        (
            "dino",
            {"energy": "codes", "contrast": "attract", "target": {"name": "equipartition", "epsilon": 0.04}},
            {"assignment": "sinkhorn"},
        ),
        (
            "swav",
            {
                "energy": {"name": "codes", "prototypes": 5},
                "contrast": "attract",
                "target": {"name": "equipartition", "of": "stop_gradient"},
            },
            {"queue_size": 0},
        ),
        (
            "msn",
            {
                "energy": {"name": "codes", "prototypes": 5},
                "contrast": "attract",
                "target": {
                    "name": "equipartition",
                    "of": {"name": "teacher", "schedule": "linear"},
                    "epsilon": 0.025,
                    "softmax_first": True,
                },
                "regularizers": {"mean_entropy": {}},
            },
            {},
        ),
    ],
)
def test_published_objectives_can_be_composed(name: str, parts: dict[str, Any], published: dict[str, Any]) -> None:
    composed = create_objective(
        "custom",
        projector={"hidden": [8], "out": DIM},
        **{k: v if k != "predictor" else v | {"out": DIM} for k, v in parts.items()},
    ).double()
    objective = small_objective(name, **published).double()
    for seed in range(3):
        batch = random_batch(seed)
        torch.testing.assert_close(composed(batch).loss, objective(batch).loss, **EXACT)
    assert composed.uses == objective.uses and composed.conservative == objective.conservative
    assert composed.teacher_momentum == objective.teacher_momentum
    assert type(composed.canonical_form) is type(objective.canonical_form)


def test_regularizers_are_added_replaced_and_taken_away() -> None:
    objective = small_objective(
        "vicreg", regularizers={"covariance": {"weight": 9.0}, "variance": None, "uniformity": {}}
    )
    assert {name: part.weight for name, part in objective.named_regularizers.items()} == {
        "covariance": 9.0,
        "uniformity": 1.0,
    }
    batch = random_batch()
    terms = objective(batch).terms
    torch.testing.assert_close(terms["covariance"], small_objective("vicreg")(batch).terms["covariance"])


def test_parts_take_what_they_need_from_others() -> None:
    objective = create_objective(
        "custom", energy={"name": "codes", "prototypes": 6}, contrast="attract", target="centred", projector={"out": 5}
    )
    assert objective.energy.codes.prototypes.shape == (6, 5) and objective.target.center.shape == (6,)
    assert objective.target.codes.module is objective.energy.codes
    assert isinstance(objective.scorer, SharedCode) and objective.scorer.codes is objective.energy.codes
    objective = create_objective("custom", energy="codes", contrast="attract", target="centred", projector={"out": 5})
    assert objective.target.center.shape == objective.scorer.marginal.shape == (5,)
    objective = create_objective("moco_v2", negatives={"name": "queue", "size": 7}, projector={"out": 3})
    assert objective.negatives.queue.vectors.shape == (7, 3)
    objective = create_objective(
        "custom",
        energy={"name": "inverse_multiquadratic", "learnable": True},
        target="teacher",
        regularizers={"hsic": {}},
        **HEADS,
    )
    assert objective.named_regularizers["hsic"].kernel.module is objective.energy


def test_what_was_derived_from_other_parts_changes_with_them() -> None:
    simclr = small_objective("simclr", target="teacher")
    assert not simclr.conservative and simclr.uses == {"target"} and simclr.teacher_momentum == 0.996
    assert small_objective("simclr").conservative
    byol = small_objective("byol", target=None)
    assert byol.uses == {"prediction"} and byol.teacher_momentum is None
    directpred = small_objective("directpred", energy="cosine")
    assert isinstance(directpred.scorer, Cosine) and directpred.scorer is directpred.energy
    assert type(small_objective("wmse", energy="cosine").scorer) is Cosine
    swav = small_objective(
        "swav", energy={"name": "codes", "prototypes": 3}, target={"name": "equipartition", "of": "stop_gradient"}
    )
    assert swav.scorer.marginal.shape == (3,)


def test_modules_may_be_given() -> None:
    energy = Cosine(temperature=0.3)
    objective = create_objective(
        "simclr", energy=energy, target=StopGradient(), regularizers={"variance": Variance(weight=2.0)}
    )
    assert objective.energy is energy and objective.named_regularizers["variance"].weight == 2


def test_others_are_shared_and_nothing_is_changed_in_place() -> None:
    objective = small_objective("simclr")
    other = objective.replace(contrast=InfoNCE(decoupled=True))
    assert other.energy is objective.energy and other.negatives is objective.negatives
    assert not objective.contrast.decoupled and other.contrast.decoupled


BORROWERS = [
    ("swav", {"energy": {"name": "codes", "prototypes": 4}}, "Equipartition uses Codes that was replaced"),
    ("dino", {"energy": "codes"}, "Centred uses Codes that was replaced"),
    (
        "msn",
        {"energy": {"name": "codes", "prototypes": 4}, "target": "equipartition"},
        "MeanEntropy uses Codes that was",
    ),
    ("msn", {"energy": "cosine", "target": "teacher"}, "MeanEntropy uses Codes that was replaced: replace it, too"),
    ("nce", {"target": {"name": "memory", "size": 30}}, "MemoryNegatives uses Memory that was replaced"),
    ("ssl_hsic", {"energy": "inverse_multiquadratic"}, "HSIC uses InverseMultiquadratic that was replaced"),
]


@pytest.mark.parametrize(("name", "parts", "message"), BORROWERS)
def test_parts_of_a_replaced_part_are_named(name: str, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_objective(name, **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"contrast": "infonec"}, "unknown contrast 'infonec': did you mean 'infonce'"),
        ({"energy": "cosin"}, "unknown energy 'cosin': did you mean 'cosine'"),
        ({"negatives": "quue"}, "unknown negatives 'quue': did you mean 'queue'"),
        ({"target": "techer"}, "unknown target 'techer': did you mean 'teacher'"),
        ({"regularizers": {"covarience": {}}}, "unknown regularizer 'covarience': did you mean 'covariance'"),
        ({"graph": "lables"}, "unknown graph 'lables': did you mean 'labels'"),
        ({"energy": {"temperature": 0.1}}, r"energy needs a name: {name: cosine, ...}, got {'temperature': 0.1}"),
        ({"contrast": {"name": "margin", "margin": -1.0}}, "margin must be > 0, got -1"),
        ({"energy": "codes"}, "energy CodeCrossEntropy and target Target do not go together"),
        (
            {"target": {"name": "nearest_neighbour"}, "energy": "codes"},
            "and target NearestNeighbour do not go together",
        ),
        ({"graph": {"file": "x"}}, "graph needs a name: {name: labels, ...}, got {'file': 'x'}"),
        ({"contrast": None}, "an objective needs a contrast, a regularizer, or both"),
        (
            {"contrast": None, "regularizers": {"variance": {}}},
            "BatchNegatives without a contrast that reads negatives",
        ),
        ({"contrast": "attract"}, "BatchNegatives without a contrast that reads negatives: leave it out"),
        ({"negatives": None}, "contrast InfoNCE needs negatives, or a flat energy is its minimum"),
        ({"contrast": "square_square"}, "squares energies, and Cosine can be negative"),
        ({"energy": "dot", "negatives": "queue"}, "a queue holds unit vectors, and Dot sees the lengths"),
        ({"target": {"name": "memory", "size": 9}, "pairing": "mean"}, "Memory is a target for each view"),
    ],
)
def test_mistakes_are_values(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_objective("simclr", **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"energy": {"name": "cosine", "temprature": 0.1}},
            "argument of energy 'cosine' 'temprature': did you mean 'temperature'",
        ),
        ({"contrats": "infonce"}, "unknown argument of objective 'simclr' 'contrats': did you mean 'contrast'"),
        ({"energy": 3}, "energy must be a name, or a mapping of name and arguments, got 3"),
        ({"energy": None}, "energy must be a name, or a mapping of name and arguments, got None"),
        ({"regularizers": ["variance"]}, r"regularizers must map names to arguments, got \['variance'\]"),
        ({"regularizers": {"variance": 25}}, "regularizer variance takes a mapping of arguments, {weight: 1}, got 25"),
        ({"graph": {"name": "knn", "fil": "x"}}, "unknown argument of graph 'knn' 'fil': did you mean 'file'"),
        ({"graph": {"name": "labels", "file": "x"}}, "unknown argument of graph 'labels' 'file'; valid: none"),
        ({"graph": "adjacency"}, "graph 'adjacency' needs file: graph.file=..."),
        ({"target": "centred"}, "target 'centred' needs codes: choose energy 'codes', whose codes it assigns"),
        ({"negatives": "memory"}, "negatives 'memory' needs memory: choose target 'memory', which it draws from"),
        ({"contrast": "noise_contrastive"}, "'noise_contrastive' needs population: choose target 'memory'"),
        ({"regularizers": {"hsic": {}}}, "'hsic' needs kernel: choose energy 'inverse_multiquadratic'"),
        ({"regularizers": {"mean_entropy": {}}}, "'mean_entropy' needs codes: choose energy 'codes'"),
        ({"graph": 7}, "graph must be a name, or a mapping of name and arguments, got 7"),
    ],
)
def test_mistakes_are_types(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        create_objective("simclr", **parts)


def test_regularizers_need_what_they_read() -> None:
    kernel = {"energy": "inverse_multiquadratic", "regularizers": {"hsic": {}}}
    with pytest.raises(ValueError, match="regularizer hsic reads predictions: give the objective a predictor"):
        create_objective("custom", **kernel, target="teacher", projector={"out": 3})
    with pytest.raises(ValueError, match="regularizer hsic reads a teacher's projections: give target 'teacher'"):
        create_objective("custom", **kernel, **HEADS)


def test_first_view_needs_another_global_one() -> None:
    batch = random_batch(views=3, global_views=1)
    with pytest.raises(ValueError, match="compared with other global ones: needs at least 2, got 1"):
        small_objective("moco_v2")(batch)
    assert small_objective("moco_v3")(batch).loss.isfinite()


ENERGIES: list[Any] = [
    *(name for name in PARTS["energy"] if name != "codes"),
    {"name": "squared_euclidean", "normalize": True},
    {"name": "distance", "normalize": True},
    "codes",
    {"name": "codes", "prototypes": 5},
]
CONTRASTS: list[Any] = [
    None,
    *PARTS["contrast"],
    {"name": "infonce", "decoupled": True, "reweight": 0.2},
    {"name": "margin", "hardest": True},
]
NEGATIVES: list[Any] = [
    "none",
    "batch",
    {"name": "batch", "views": "other"},
    {"name": "queue", "size": 7},
    {"name": "memory", "draws": 5},
]
TARGETS: list[Any] = [
    *("other_view", "stop_gradient", "teacher", "centred", "equipartition"),
    {"name": "nearest_neighbour", "size": 7},
    {"name": "memory", "size": BANK},
    {"name": "equipartition", "of": {"name": "memory", "size": BANK}},
]


def attempt(**parts: Any) -> str:
    """Build an objective and train it for two steps, one if it remembers nothing; or the reason why it cannot be."""
    try:
        objective = create_objective("custom", **parts, **HEADS)
    except (ValueError, TypeError) as error:
        frame = error.__traceback__
        while frame.tb_next is not None:
            frame = frame.tb_next
        file = Path(frame.tb_frame.f_code.co_filename)
        assert file.is_relative_to(Path(ssl_ebm.__file__).parent), f"{parts}: {error} comes from {file}"
        return str(error)
    for seed in range(1 + bool(list(objective.buffers()))):
        batch = with_gradients(transform(random_batch(seed), lambda x: x.float() if x.is_floating_point() else x))
        loss = objective(batch).loss
        parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        found = gradients(loss, [batch.projection, batch.prediction, batch.features, *parameters])
        assert loss.isfinite() and all(gradient.isfinite().all() for gradient in found), parts
        assert any((gradient != 0).any() for gradient in found), parts
    return "trains"


def combinations(**lists: list[Any]) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*lists.values()):
        yield dict(zip(lists, chosen, strict=True))


@pytest.mark.parametrize("contrast", slow_but_for(CONTRASTS, None, "infonce", "sigmoid"))
def test_every_combination_trains_or_says_why_not(contrast: Any) -> None:
    found = [
        attempt(contrast=contrast, **parts)
        for parts in combinations(energy=ENERGIES, negatives=NEGATIVES, target=TARGETS)
    ]
    trained = found.count("trains")
    assert (trained > 0) == (contrast is not None), set(found)


@pytest.mark.parametrize("name", slow_but_for(PARTS["regularizers"], "variance", "hsic", "mean_entropy"))
def test_every_regularizer_goes_with_every_energy_and_target(name: str) -> None:
    found = [
        attempt(regularizers={name: {}}, **parts)
        for parts in combinations(energy=ENERGIES, target=TARGETS, contrast=[None, "attract"])
    ]
    assert "trains" in found, set(found)
    also = [attempt(regularizers={name: {}}, contrast="infonce", negatives="batch", energy=e) for e in ENERGIES]
    assert "trains" in also or name in ("mean_entropy", "hsic"), set(also)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("pairing", ["both", "first", "mean"])
def test_every_pairing_trains_or_says_why_not(pairing: str, transposed: bool) -> None:
    how = {"pairing": pairing, "transposed": transposed}
    parts = combinations(
        energy=["cosine", "codes"], negatives=NEGATIVES, target=TARGETS, contrast=["attract", "infonce"]
    )
    assert "trains" in [attempt(**how, **each) for each in parts]


def test_defaults_of_custom() -> None:
    objective = create_objective("custom", contrast="attract")
    assert type(objective.energy) is Cosine and type(objective.target) is Target
    assert type(objective.contrast) is Attract and objective.heads.projector == MLP()
    assert type(create_objective("custom", contrast="attract", target="teacher").target) is Teacher
    assert isinstance(objective, Objective)
