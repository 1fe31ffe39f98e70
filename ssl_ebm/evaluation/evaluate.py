"""A run -> evaluation.json: probes, energies and health of its encoder, beside baselines that were never trained.

Every row is computed by the same code on the same images: the encoder, the same encoder at its initial weights, and the
raw pixels. Labels of the validation split choose hyper-parameters; the test split is read once.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_ebm.config import Config, TrainingConfig, load_config
from ssl_ebm.data.datasets import load_data
from ssl_ebm.data.splits import Images, Splits
from ssl_ebm.devices import Compute, choose_compute
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.evaluation.encoder_rows import baselines, evaluate_encoder, extract_bank, settings
from ssl_ebm.evaluation.energy.mistakes import worst_mistakes
from ssl_ebm.evaluation.energy.of_images import filters, image_measures
from ssl_ebm.evaluation.energy.of_pairs import (
    describe_energies,
    encode_views,
    held_out,
    measure_energy,
    outlier_detection,
    project,
    two_views,
)
from ssl_ebm.evaluation.features import clusters
from ssl_ebm.evaluation.features.bank import SPLITS, Bank
from ssl_ebm.evaluation.features.cost import cost
from ssl_ebm.evaluation.probes.protocols import DESCRIPTIONS
from ssl_ebm.evaluation.probes.sgd import sgd_probe
from ssl_ebm.evaluation.results import VERSION
from ssl_ebm.evaluation.stored import current_results, fingerprint
from ssl_ebm.generative.heads import FreeEnergyHead
from ssl_ebm.model import EnergyModel, load
from ssl_ebm.objectives import FAMILIES, create_objective
from ssl_ebm.objectives.catalogue import traits
from ssl_ebm.run_directory import RunDirectory, load_tensors, write_atomically, write_json
from ssl_ebm.user_code import MissingPart, Parts, is_external

GALLERY_QUERIES, GALLERY_NEIGHBOURS = 8, 7  # images in the report, and neighbours of each


def evaluate(
    run_dir: str | Path,
    *,
    device: str = "auto",
    force: bool = False,
    sgd: bool = False,
    objective: Any = None,
    data: Any = None,
    encoder: Any = None,
    views: Any = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Evaluate a run and write `evaluation.json` and `{predictions,pairs,gallery}.npz` into its directory.

    Results that are there already are returned, unless the weights have changed since or `force` is set. Features are
    kept in `features/`; baselines beside the run, shared with its neighbours. `sgd` adds the literature's probe of the
    encoder's features, which takes minutes.

    A run of its author's own objective, data, encoder or views needs them again. Without the objective its features are
    evaluated, results say under `missing` why there is no energy, and are made anew once it is given.

    Args:
        run_dir: The run.
        device: auto, cpu, cuda.
        force: Evaluate again.
        sgd: Add that probe.
        objective: As in `pretrain`; likewise `data`, `encoder` and `views`.
        data: Images.
        encoder: A backbone.
        views: What makes views.
        trust: Import what the run's config names.

    Raises:
        FileNotFoundError: It is not a run directory, or there are no weights yet.
        MissingPart: Its data, encoder or views are its author's, and were not given.
    """
    run = RunDirectory(Path(run_dir)).require()
    weights, config = fingerprint(run.encoder), load_config(run.config)
    parts = Parts(objective=objective, data=data, encoder=encoder, views=views, trust=trust).needed(config)
    stored = None if force else current_results(run.evaluation, weights)
    if stored is not None and not ("missing" in stored and parts.offers("objective", config)):
        return _with_sgd(run, stored) if sgd else stored
    try:
        parts = parts.resolved(config, optional=("objective",))
    except MissingPart as missing:
        raise MissingPart(f"{run.path} cannot be evaluated: {missing}") from None
    model = load(run.path, objective=parts.objective, encoder=parts.encoder)
    if model.missing is not None:
        print(f"{run.path}: {model.missing}; its features are evaluated without an energy", file=sys.stderr)
    compute = choose_compute(TrainingConfig(device=device))
    splits = load_data(config.data, parts.data)
    if splits.num_classes < 2:
        raise ValueError(
            f"{splits.name} has no labels to probe for: pretrain with labels, which training does not read"
        )
    results = _evaluate(run, compute.place(model), splits, _protocol(run, model, splits, weights), compute, parts)
    return _with_sgd(run, results) if sgd else results


def _evaluate(
    run: RunDirectory,
    model: EnergyModel,
    splits: Splits,
    protocol: dict[str, Any],
    compute: Compute,
    parts: Parts,
) -> dict[str, Any]:
    """All results but the SGD probe, written."""
    bank = _bank(run, model, splits, protocol)
    views = two_views(model.config, splits.image_size, held_out(splits.test).images, parts.views)
    features = encode_views(model.features, views)
    row, predictions = evaluate_encoder(bank, features, splits.test)
    energy, pairs = measure_energy(model, splits, features, project(model, features), parts.views)
    clean = splits.test.images[:1].to(model.device).float() / 255
    beta = energy["trained"]["calibration"]["beta"] if energy["trained"] is not None else 0.0
    results: dict[str, Any] = {
        "run": str(run.path),
        "objective": describe_objective(model.config, load_tensors(run.encoder)[1].get("objective")),
        "protocol": protocol,
        "rows": {"encoder": row} | baselines(run, model, splits, views, compute, parts.encoder),
        "energy": {"features": row["energy"], **energy},
        "ood": outlier_detection(model, bank, splits, beta=beta),
        "image": image_measures(model, splits, run.read_metrics()),
        "cost": cost(model.encoder, clean, run.read_metrics(), model.config.training.batch_size),
        "config": dataclasses.asdict(model.config)
        | {"data": settings(model.config.data), "encoder": settings(model.config.encoder)},
    }
    if results["image"] is not None:
        for name, scores in results["image"].pop("ood").items():
            results["ood"][name]["image_energy"] = scores
    arrays = {"predictions": predictions, "pairs": pairs}
    if model.missing is None:
        arrays["gallery"] = gallery(model, splits.test)
        if isinstance(model.head, FreeEnergyHead):
            arrays["gallery"]["filters"] = filters(model.head, model.sample_shape)
    else:
        results["missing"] = {"objective": model.missing}
        (run.path / "gallery.npz").unlink(missing_ok=True)
    for name, content in arrays.items():
        write_atomically(run.path / f"{name}.npz", partial(_save_arrays, content))
    write_json(run.evaluation, results)
    return results


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


def describe_objective(config: Config, stored: str | None = None) -> dict[str, Any]:
    """The properties of an objective that tables state: its energy as a formula, its family, what it reads.

    Args:
        config: Of the run.
        stored: What the run's weights say of it, as JSON; None: it is built to be asked.
    """
    name = config.objective["name"]
    family = next((family for family, members in FAMILIES.items() if name in members), "custom")
    known = traits(create_objective(**config.objective)) if stored is None else json.loads(stored)
    known.pop("projector")
    return {"name": name, "family": "external" if is_external(config.objective) else family, **known}


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
