"""A run -> evaluation.json: probes, energies and health of its encoder, beside baselines that were never trained.

Every row is computed by the same code on the same images: the encoder, the same encoder at its initial weights, and the
raw pixels. Labels of the validation split choose hyper-parameters; the test split is read once.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.config import Config, TrainingConfig
from ssl_ebm.data.datasets import Images, Splits, load_data
from ssl_ebm.devices import Compute, choose_compute
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.energy.mistakes import worst_mistakes
from ssl_ebm.evaluation.energy.of_images import filters, image_measures
from ssl_ebm.evaluation.energy.of_pairs import (
    ENERGY_IMAGES,
    Encode,
    Views,
    describe_energies,
    encode_views,
    evenly_spaced,
    held_out,
    measure_energy,
    outlier_detection,
    project,
    two_views,
    verification,
)
from ssl_ebm.evaluation.features import clusters
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split, extract
from ssl_ebm.evaluation.features.cost import cost
from ssl_ebm.evaluation.features.health import health
from ssl_ebm.evaluation.probes.protocols import DESCRIPTIONS, evaluate_bank
from ssl_ebm.evaluation.probes.sgd import sgd_probe
from ssl_ebm.evaluation.results import VERSION
from ssl_ebm.evaluation.stored import current_results, fingerprint
from ssl_ebm.generative.heads import FreeEnergyHead
from ssl_ebm.model import EnergyModel, load
from ssl_ebm.networks.encoder import build_encoder
from ssl_ebm.objectives import FAMILIES, create_objective
from ssl_ebm.run_directory import RunDirectory, load_tensors, write_atomically, write_json

GALLERY_QUERIES, GALLERY_NEIGHBOURS = 8, 7  # images in the report, and neighbours of each


def evaluate(run_dir: str | Path, *, device: str = "auto", force: bool = False, sgd: bool = False) -> dict[str, Any]:
    """Evaluate a run and write `evaluation.json` and `{predictions,pairs,gallery}.npz` into its directory.

    Results that are there already are returned, unless the weights have changed since or `force` is set. Features are
    kept in `features/`; baselines beside the run, shared with its neighbours. `sgd` adds the literature's probe of the
    encoder's features, which takes minutes.

    Raises:
        FileNotFoundError: It is not a run directory, or there are no weights yet.
    """
    run = RunDirectory(Path(run_dir)).require()
    weights = fingerprint(run.encoder)
    stored = None if force else current_results(run.evaluation, weights)
    if stored is not None:
        return _with_sgd(run, stored) if sgd else stored
    compute = choose_compute(TrainingConfig(device=device))
    model = compute.place(load(run.path))
    splits = load_data(model.config.data)
    protocol = _protocol(run, model, splits, weights)
    bank = _bank(run, model, splits, protocol)
    views = two_views(model.config, splits.image_size, held_out(splits.test).images)
    features = encode_views(model.features, views)
    row, predictions = evaluate_encoder(bank, features, splits.test)
    energy, pairs = measure_energy(model, splits, features, project(model, features))
    clean = splits.test.images[:1].to(model.device).float() / 255
    results: dict[str, Any] = {
        "run": str(run.path),
        "objective": describe_objective(model.config),
        "protocol": protocol,
        "rows": {"encoder": row} | baselines(run, model, splits, views, compute),
        "energy": {"features": row["energy"], **energy},
        "ood": outlier_detection(model, bank, splits, beta=energy["trained"]["calibration"]["beta"]),
        "image": image_measures(model, splits, run.read_metrics()),
        "cost": cost(model.encoder, clean, run.read_metrics(), model.config.training.batch_size),
        "config": dataclasses.asdict(model.config),
    }
    if results["image"] is not None:
        for name, scores in results["image"].pop("ood").items():
            results["ood"][name]["image_energy"] = scores
    arrays = {"predictions": predictions, "pairs": pairs, "gallery": gallery(model, splits.test)}
    if isinstance(model.head, FreeEnergyHead):
        arrays["gallery"]["filters"] = filters(model.head, model.sample_shape)
    for name, content in arrays.items():
        write_atomically(run.path / f"{name}.npz", partial(_save_arrays, content))
    write_json(run.evaluation, results)
    return _with_sgd(run, results) if sgd else results


def _with_sgd(run: RunDirectory, results: dict[str, Any]) -> dict[str, Any]:
    """The results with those of the SGD probe, which is trained where they lack it."""
    row = results["rows"]["encoder"]
    if "sgd" not in row:
        row["sgd"] = sgd_probe(Bank.load(run.features))
        row["sgd"]["test"].pop("predictions")
        write_json(run.evaluation, results)
    return results


def _save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def describe_objective(config: Config) -> dict[str, Any]:
    """The properties of an objective that tables state: its energy as a formula, its family, what it reads."""
    name = config.objective["name"]
    objective = create_objective(**config.objective)
    return {
        "name": name,
        "family": next((family for family, members in FAMILIES.items() if name in members), "custom"),
        "energy": objective.scorer.formula.format(a="x", b="x'"),
        "conservative": objective.conservative,
        "surrogate": objective.surrogate,
        "reads_labels": objective.by_label,
    }


def _protocol(run: RunDirectory, model: EnergyModel, splits: Splits, weights: str) -> dict[str, Any]:
    """The conditions under which the numbers were measured: data, sizes, a description of each protocol, weights."""
    metadata = load_tensors(run.encoder)[1]
    return {
        "version": VERSION,
        "data": splits.name,
        "split_seed": model.config.data.split_seed,
        "sizes": {name: len(getattr(splits, name)) for name in SPLITS},
        "layer": "backbone, pooled",
        "images": "clean, [0, 1], float32, eval mode",
        **DESCRIPTIONS,
        **describe_energies(splits),
        "clusters": clusters.DESCRIPTION,
        "seed": model.config.seed,
        "step": int(metadata["step"]),
        "finished": metadata["finished"] == "True",
        "weights": weights,
    }


def _bank(run: RunDirectory, model: EnergyModel, splits: Splits, protocol: dict[str, Any]) -> Bank:
    """The run's bank of features: read if its weights are these, else extracted and kept."""
    if (run.features / "protocol.json").is_file():
        bank = Bank.load(run.features)
        if bank.protocol.get("weights") == protocol["weights"]:
            return bank
    bank = extract_bank(model.features, splits, model.device, protocol)
    bank.save(run.features)
    return bank


def extract_bank(
    encode: Encode, splits: Splits, device: torch.device | str, protocol: dict[str, Any], name: str = "features"
) -> Bank:
    """A bank of the features that an encoder gives of all three splits."""
    features = {
        split: Split(
            extract(encode, getattr(splits, split).images, device=device, desc=f"{name} of {split}"),
            getattr(splits, split).labels.numpy(),
        )
        for split in SPLITS
    }
    return Bank(**features, classes=splits.num_classes, protocol=protocol)


def evaluate_encoder(bank: Bank, views: Views, test: Images) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The results of one encoder, a row of the tables, and its classifiers' test predictions.

    Args:
        bank: Features of the three splits.
        views: Features of two views of the held-out test images.
        test: The test split.
    """
    probes, predictions = evaluate_bank(bank)
    clean = torch.from_numpy(bank.test.features[evenly_spaced(len(test), ENERGY_IMAGES).numpy()])
    row = {
        "num_features": bank.test.features.shape[1],
        **probes,
        "clusters": clusters.cluster_scores(bank.test.features, bank.test.labels, classes=bank.classes),
        "health": health(clean, views),
        "energy": verification(Cosine(), views, held_out(test).labels),
    }
    return row, predictions


def baselines(run: RunDirectory, model: EnergyModel, splits: Splits, views: Tensor, compute: Compute) -> dict[str, Any]:
    """Results of the initial encoder and of raw pixels; runs in one folder share them if data and views are equal."""
    config = model.config
    data = {name: value for name, value in dataclasses.asdict(config.data).items() if name != "root"}
    shared = {"version": VERSION, "data": data, "views": config.views}
    encoder = {"encoder": dataclasses.asdict(config.encoder), "seed": config.seed}
    initial = "pretrained_encoder" if config.encoder.pretrained else "random_encoder"

    def untrained() -> Encode:
        torch.manual_seed(config.seed)
        statistics = {name: getattr(model.encoder, name).flatten().tolist() for name in ("mean", "std")}
        size, channels = splits.image_size, splits.in_chans
        return compute.place(build_encoder(config.encoder, in_chans=channels, image_size=size, **statistics)).eval()

    rows: dict[str, tuple[dict[str, Any], Callable[[], Encode]]] = {
        initial: (shared | encoder, untrained),
        "raw_pixels": (shared, lambda: partial(torch.flatten, start_dim=1)),
    }
    return {name: _baseline(run, name, key, make, compute.device, splits, views) for name, (key, make) in rows.items()}


def _baseline(
    run: RunDirectory,
    name: str,
    key: dict[str, Any],
    make: Callable[[], Encode],
    device: torch.device,
    splits: Splits,
    views: Tensor,
) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = run.path.parent / ".baselines" / f"{name}-{digest}.json"
    if path.is_file():
        return json.loads(path.read_text())
    encode = make()
    bank = extract_bank(encode, splits, device, key, name.replace("_", " "))
    row, _ = evaluate_encoder(bank, encode_views(encode, views), splits.test)
    write_json(path, row)
    return row


@torch.inference_mode()
def gallery(model: EnergyModel, test: Images) -> dict[str, np.ndarray]:
    """Arrays for the report's pictures: test images with their neighbours of lowest energy, and the worst mistakes."""
    test = held_out(test)
    count, scorer = len(test), copy.deepcopy(model.scorer).cpu()
    queries = [int((test.labels == c).nonzero()[0]) for c in test.labels.unique()][:GALLERY_QUERIES]
    embeddings = encode_views(model.embed, test.images[None].float() / 255)[0]
    index = EnergyIndex(scorer, embeddings)
    energies, positions = index.search(embeddings[queries], min(GALLERY_NEIGHBOURS + 1, count))
    for row, query in enumerate(queries):  # the query first, also where another image has a lower energy with it
        others = positions[row] != query
        others[-1] &= not bool(others.all())
        energy_with_itself = scorer.paired(embeddings[[query]], embeddings[[query]])
        positions[row] = torch.cat([torch.tensor([query]), positions[row][others]])
        energies[row] = torch.cat([energy_with_itself, energies[row][others]])
    pairs, lowest = worst_mistakes(lambda rows: scorer.cross(embeddings[rows], embeddings), test.labels)
    return {
        "images": test.images[positions].numpy(),
        "labels": test.labels[positions].numpy(),
        "energies": energies.numpy(),
        "mistakes": test.images[pairs].numpy(),
        "mistake_labels": test.labels[pairs].numpy(),
        "mistake_energies": lowest.numpy(),
        "classes": np.array(test.classes),
    }
