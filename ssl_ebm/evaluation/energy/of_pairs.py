"""The energy E(a, b) of pairs of images under a trained model: verification, meaning, strength, foreign images."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_ebm.config import Config
from ssl_ebm.data.datasets import DATASETS, DataConfig, load_data
from ssl_ebm.data.image_files import DataError
from ssl_ebm.data.resize import resize
from ssl_ebm.data.splits import Images, Splits
from ssl_ebm.data.user_views import is_builtin, user_views
from ssl_ebm.data.views import create_views
from ssl_ebm.energies.pairwise import Cosine, Energy
from ssl_ebm.evaluation.energy.calibration import calibrate
from ssl_ebm.evaluation.energy.information import information
from ssl_ebm.evaluation.energy.outlier_images import FOREIGN_IMAGES, outlier_sets
from ssl_ebm.evaluation.energy.outlier_scores import (
    SCORED_NEIGHBOUR,
    Mahalanobis,
    detection,
    free_energies,
    knn_distances,
)
from ssl_ebm.evaluation.energy.strength import strength
from ssl_ebm.evaluation.energy.verification import verify
from ssl_ebm.evaluation.features.bank import Bank, extract
from ssl_ebm.model import EnergyModel

ENERGY_IMAGES = 2000  # held-out images whose views are verified: 4 million pairs
CALIBRATION_IMAGES = 5000  # training images whose views calibrate the canonical energy
STRENGTH_IMAGES = 200  # held-out images that are augmented at every strength
OOD_BANK = 10_000  # training images that foreign ones are scored against
VIEWS_SEED = 0

Encode = Callable[[Tensor], Tensor]
Views = Float[Tensor, "2 n dim"]


def describe_energies(splits: Splits) -> dict[str, str]:
    """Descriptions of the measures of energy on these data, for results and reports."""
    pairs, strengths, bank = (
        min(count, len(split))
        for count, split in ((ENERGY_IMAGES, splits.test), (STRENGTH_IMAGES, splits.test), (OOD_BANK, splits.train))
    )
    return {
        "energy": f"two training views of {pairs} test images, all pairs, seed {VIEWS_SEED}; calibration fitted on the "
        "pairs of one half, reported of the other's, positives and negatives weighing the same",
        "information": "canonical energy by views of train; K = all these images; JSD's critic fitted by halves",
        "strength": f"clean against augmented, {strengths} test images",
        "ood": f"foreign is positive; bank of {bank} train; free energy at β = 1 and at the calibrated β, distance to "
        f"the {SCORED_NEIGHBOUR}th neighbour, Mahalanobis without classes; E(x) at the views' size",
    }


def evenly_spaced(total: int, count: int) -> Int64[Tensor, " k"]:
    """Evenly spaced positions in 0 .. total - 1, at most `count`: images on disk may be sorted by class."""
    return torch.linspace(0, total - 1, min(count, total), dtype=torch.float64).round().long()


def held_out(test: Images) -> Images:
    """The test images that energies are measured on."""
    return test.subset(evenly_spaced(len(test), ENERGY_IMAGES))


def two_views(config: Config, size: int, images: Tensor, make_views: Any = None) -> Float[Tensor, "2 n c size size"]:
    """Two training views of each image, at the images' size; the same for every run that has these views.

    Args:
        config: Of the run.
        size: Of the views in pixels.
        images: Of the data set, uint8.
        make_views: The user's own that the config names: it makes views of one batch of the training at a time, of
            which the first two are taken and resized; where it makes one, it is asked twice.
    """
    generator = torch.Generator().manual_seed(VIEWS_SEED)
    if is_builtin(config.views):
        views = create_views(**(config.views | {"views": 2, "local_views": 0, "size": size}))
        return views(images, generator=generator)
    make_some = user_views(config.views, images[:2], make_views)
    times = range(2 if make_some.count == 1 else 1)
    parts = [
        torch.cat([make_some(part, generator=generator) for _ in times])[:2]
        for part in images.split(config.training.batch_size)
    ]
    both = torch.cat(parts, dim=1).float().clamp(0, 1)
    return resize(both.flatten(0, 1), size).unflatten(0, both.shape[:2])


@torch.inference_mode()
def encode_views(encode: Encode, views: Float[Tensor, "views n c h w"]) -> Float[Tensor, "views n dim"]:
    """The encoder's features of all views of all images, on the CPU."""
    return torch.stack([torch.cat([encode(batch).float().cpu() for batch in view.split(500)]) for view in views])


@torch.no_grad()
def project(model: EnergyModel, features: Float[Tensor, "*views n feature"]) -> Float[Tensor, "*views n dim"]:
    """The model's embeddings of backbone features, on the CPU."""
    rows = features.reshape(-1, features.shape[-1])
    embeddings = [model.projector(batch.to(model.device)).float().cpu() for batch in rows.split(4096)]
    return torch.cat(embeddings).reshape(*features.shape[:-1], -1)


@torch.no_grad()
def verification(energy: Energy, views: Views, labels: Int64[Tensor, " n"]) -> dict[str, Any]:
    """Verification by energy over all pairs; and its calibration, fitted on one half of the images for the other."""
    (a, b), half = views, views.shape[1] // 2
    results = dataclasses.asdict(verify(lambda rows: energy.cross(a[rows], b), labels))
    calibrated = calibrate(energy.cross(a[:half], b[:half]), energy.cross(a[half:], b[half:]))
    return results | {"calibration": dataclasses.asdict(calibrated)}


def measure_energy(
    model: EnergyModel,
    splits: Splits,
    features: Float[Tensor, "2 n feature"],
    embeddings: Views,
    make_views: Any = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measures of the trained energy on held-out test images, and the energies of listed pairs.

    The measures are `trained` (verification and calibration), `canonical` and `strength`, as the functions of these
    names give them; the energies of pairs are the arrays of `pairs.npz`.

    `trained` is None, and nothing else is there, of a model without an energy.

    Args:
        model: The trained model.
        splits: Its data.
        features: Backbone features of two views of the held-out test images.
        embeddings: The projections of `features`.
        make_views: As in `two_views`.
    """
    if model.missing is not None:
        return {"trained": None}, pair_energies({"features": (Cosine(), features)}, held_out(splits.test).labels)
    test, scorer = held_out(splits.test), copy.deepcopy(model.scorer).cpu()
    images = test.images[evenly_spaced(len(test), STRENGTH_IMAGES)].to(model.device).float() / 255
    results = {
        "trained": verification(scorer, embeddings, test.labels),
        "canonical": canonical(model, splits, embeddings, test.labels, make_views),
        "strength": strength(lambda x: model.embed(x).cpu(), scorer, images),
    }
    return results, pair_energies({"trained": (scorer, embeddings), "features": (Cosine(), features)}, test.labels)


@torch.no_grad()
def pair_energies(energies: dict[str, tuple[Energy, Views]], labels: Int64[Tensor, " n"]) -> dict[str, np.ndarray]:
    """Energies of the listed pairs by energy's name, and the pairs' `kind`: 0 one image, 1 one class, 2 two classes."""
    left, right, kind = listed_pairs(labels.numpy())
    arrays = {name: energy.paired(a[left], b[right]).float().numpy() for name, (energy, (a, b)) in energies.items()}
    return arrays | {"kind": kind.astype(np.int8)}


@torch.no_grad()
def canonical(
    model: EnergyModel, splits: Splits, embeddings: Views, labels: Int64[Tensor, " n"], make_views: Any = None
) -> dict[str, Any]:
    """The energy as an estimate of -PMI in nats: its `meaning`, `verification`, and bounds on the `information`.

    Its canonical form is fitted to training images. The meaning is "order" where an objective has none; where there
    are too few images for the dimension, `reason` says so in place of the measures.
    """
    if model.canonical_form is None:
        return {"meaning": "order"}
    images = splits.train.images[evenly_spaced(len(splits.train), CALIBRATION_IMAGES)]
    try:
        fit = model.canonical(two_views(model.config, splits.image_size, images, make_views))
    except ValueError as error:
        return {"meaning": model.canonical_form.meaning, "reason": str(error)}
    energy = copy.deepcopy(fit.scorer).cpu()
    return {
        "meaning": model.canonical_form.meaning,
        "calibration_images": len(images),
        "information": information(energy.cross(*embeddings)),
        "verification": verification(energy, embeddings, labels),
    }


def outlier_detection(model: EnergyModel, bank: Bank, splits: Splits, *, beta: float) -> dict[str, dict[str, Any]]:
    """How well each score tells each foreign set from test images; foreign is positive.

    `free_energy` is that of the trained energy against training images at β = 1. What that means differs with the
    energy's scale: `free_energy_calibrated` is at the β that makes the energy a log-odds, where that is positive.
    `knn` is the distance to the 50th nearest training image and `mahalanobis` that to their mean, of backbone features;
    a model without an energy has these two.

    Args:
        model: The trained model.
        bank: Its features of the data.
        splits: The data.
        beta: β of the calibrated energy.
    """
    train = bank.train.features[evenly_spaced(len(bank.train), OOD_BANK).numpy()]
    test = bank.test.features[evenly_spaced(len(bank.test), ENERGY_IMAGES).numpy()]
    scorer = copy.deepcopy(model.scorer).cpu()

    def embed(features: np.ndarray) -> Tensor:
        return project(model, torch.from_numpy(features))

    scores: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if model.missing is None:
        train_embeddings = embed(train)
        scores["free_energy"] = lambda features: free_energies(scorer, embed(features), train_embeddings)
    scores |= {
        "knn": lambda features: knn_distances(features, train),
        "mahalanobis": Mahalanobis.fit(train),
    }
    if beta > 0:
        scores["free_energy_calibrated"] = lambda features: free_energies(
            scorer, embed(features), train_embeddings, beta=beta
        )
    familiar = {name: score(test) for name, score in scores.items()}
    results = {}
    for foreign, images in foreign_sets(model.config.data, splits).items():
        features = extract(model.features, images, device=model.device, desc=f"features of {foreign}")
        results[foreign] = {name: detection(familiar[name], score(features)) for name, score in scores.items()}
    return results


def foreign_sets(config: DataConfig, splits: Splits, *, size: int | None = None) -> dict[str, Tensor]:
    """Sets of foreign images by name: `outlier_sets`, and test images of the other data sets that are on this machine.

    All have the channels of the model's data, and its size or `size`.
    """
    size = size or splits.image_size
    sets = outlier_sets(splits.in_chans, size)
    for name in DATASETS:
        if name in (config.name, "folder"):
            continue
        try:  # a fifth of the limit is kept for test
            other = load_data(DataConfig(name=name, root=config.root, limit=5 * FOREIGN_IMAGES, download=False)).test
        except DataError:
            continue
        sets[name] = resize(other.images, size, channels=splits.in_chans)
    return sets


def listed_pairs(
    labels: Int64[np.ndarray, " n"], *, seed: int = 0
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Pairs (i, j) of images whose energies are compared between runs, and their kinds; the same for every run.

    Each image is paired with itself (kind 0), with a random one of its class (1), and with a random one of another
    class (2), where there is one.
    """
    random = np.random.RandomState(seed)  # its stream is the same in every version of NumPy (NEP 19)
    images = np.arange(len(labels))
    pairs = [(images, images)]
    for same in (True, False):
        partner = np.full(len(labels), -1)
        for i, label in enumerate(labels):
            candidates = np.flatnonzero((labels == label) == same)
            candidates = candidates[candidates != i]
            if len(candidates):
                partner[i] = candidates[random.randint(len(candidates))]
        pairs.append((images[partner >= 0], partner[partner >= 0]))
    kinds = np.repeat(np.arange(3), [len(first) for first, _ in pairs])
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]), kinds
