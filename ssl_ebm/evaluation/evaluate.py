"""A run -> evaluation.json: probes, energy verification and health, beside what needs no training.

Every row is computed by the same code on the same images: the encoder, the same encoder at its initial weights, and the
raw pixels. Labels of the validation split choose hyper-parameters; the test split is read once.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.config import Config, TrainingConfig, load_config
from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.data.splits import Images, Splits
from ssl_ebm.devices import Compute, choose_compute
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.energy.mistakes import worst_mistakes
from ssl_ebm.evaluation.energy.of_images import filters, image_measures
from ssl_ebm.evaluation.energy.of_pairs import (
    ENERGY_IMAGES,
    OOD_BANK,
    STRENGTH_IMAGES,
    Encode,
    Views,
    encode_views,
    evenly_spaced,
    held_out,
    measure_energy,
    outlier_detection,
    project,
    two_views,
    verification,
)
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split, extract
from ssl_ebm.evaluation.features.clusters import cluster_scores
from ssl_ebm.evaluation.features.cost import cost
from ssl_ebm.evaluation.features.health import health
from ssl_ebm.evaluation.probes.protocols import evaluate_bank
from ssl_ebm.evaluation.probes.sgd import sgd_probe
from ssl_ebm.generative.heads import FreeEnergyHead
from ssl_ebm.model import EnergyModel, load
from ssl_ebm.networks.encoder import Encoder, EncoderConfig, build_encoder
from ssl_ebm.objectives import FAMILIES, create_objective
from ssl_ebm.objectives.catalogue import traits
from ssl_ebm.run_directory import RunDirectory, load_tensors, write_atomically, write_json
from ssl_ebm.user_code import MissingPart, Parts, is_external

GALLERY_QUERIES, GALLERY_SIZE = 8, 7  # images in the report, and neighbours of each
VERSION = 5  # of the protocol; a change makes stored baselines stale


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
    fingerprint, config = _fingerprint(run.encoder), load_config(run.config)
    parts = Parts(objective=objective, data=data, encoder=encoder, views=views, trust=trust).needed(config)
    if run.evaluation.is_file() and not force:
        results = json.loads(run.evaluation.read_text())
        current = results["protocol"]["weights"] == fingerprint and results["protocol"]["version"] == VERSION
        if current and not ("missing" in results and parts.offers("objective", config)):
            return _with_sgd(run, results) if sgd else results
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
    results = _evaluate(run, compute.place(model), splits, _protocol(run, model, splits, fingerprint), compute, parts)
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
        | {"data": _settings(model.config.data), "encoder": _settings(model.config.encoder)},
    }
    if results["image"] is not None:
        for name, found in results["image"].pop("ood").items():
            results["ood"][name]["image_energy"] = found
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
    row = results["rows"]["encoder"]
    if "sgd" not in row:
        row["sgd"] = sgd_probe(Bank.load(run.features))
        row["sgd"]["test"].pop("predictions")
        write_json(run.evaluation, results)
    return results


def _save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _fingerprint(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: the run has not reached its first checkpoint")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_objective(config: Config, stored: str | None = None) -> dict[str, Any]:
    """What the tables say of an objective.

    Args:
        config: Of the run.
        stored: What the run's weights say of it, as JSON; None: it is built to be asked.
    """
    name = config.objective["name"]
    family = next((family for family, members in FAMILIES.items() if name in members), "custom")
    known = traits(create_objective(**config.objective)) if stored is None else json.loads(stored)
    known.pop("projector")
    return {"name": name, "family": "external" if is_external(config.objective) else family, **known}


def _protocol(run: RunDirectory, model: EnergyModel, splits: Splits, fingerprint: str) -> dict[str, Any]:
    metadata = load_tensors(run.encoder)[1]
    return {
        "version": VERSION,
        "data": splits.name,
        "split_seed": model.config.data.split_seed,
        "sizes": {name: len(getattr(splits, name)) for name in SPLITS},
        "layer": "backbone, pooled",
        "images": "clean, [0, 1], float32, eval mode",
        "knn": "cosine, exact, bank = train + validation; headline k = 20, T = .07; choice on validation",
        "linear": "standardised, multinomial logistic regression, L2 by validation, refit on train + validation",
        "ridge": "standardised, least squares onto one-hot targets, penalty by validation, refit on train + validation",
        "few_shot": "standardised, length 1, logistic regression at C = 10, 5 nested draws from train, seed 0",
        "sgd": "where asked: standardised, momentum .9, cosine, 100 epochs, batch 256, rate of 13 by validation, refit",
        "energy": f"two training views of {len(held_out(splits.test))} test images, all pairs, seed 0; calibration "
        "fitted on the pairs of one half, reported of the other's, positives and negatives weighing the same",
        "information": "canonical energy by views of train; K = all these images; JSD's critic fitted by halves",
        "strength": f"clean against augmented, {min(STRENGTH_IMAGES, len(splits.test))} test images",
        "ood": f"foreign is positive; bank of {min(OOD_BANK, len(splits.train))} train; free energy at β = 1 and "
        "at the calibrated β, distance to the 50th neighbour, Mahalanobis without classes; E(x) at the views' size",
        "clusters": "k-means on unit vectors of test, as many clusters as classes, best of 5 starts",
        "seed": model.config.seed,
        "step": int(metadata["step"]),
        "finished": metadata["finished"] == "True",
        "weights": fingerprint,
    }


def _bank(run: RunDirectory, model: EnergyModel, splits: Splits, protocol: dict[str, Any]) -> Bank:
    """The run's bank: read where it is of these weights, else extracted and kept."""
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
    """Features of all three splits."""
    parts = {
        split: Split(
            extract(encode, getattr(splits, split).images, device=device, desc=f"{name} of {split}"),
            getattr(splits, split).labels.numpy(),
        )
        for split in SPLITS
    }
    return Bank(**parts, classes=splits.num_classes, protocol=protocol)


def evaluate_encoder(bank: Bank, views: Views, test: Images) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One row of results, and the test predictions behind it.

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
        "clusters": cluster_scores(bank.test.features, bank.test.labels, classes=bank.classes),
        "health": health(clean, views),
        "energy": verification(Cosine(), views, held_out(test).labels),
    }
    return row, predictions


def baselines(
    run: RunDirectory, model: EnergyModel, splits: Splits, views: Tensor, compute: Compute, encoder: Any = None
) -> dict[str, Any]:
    """The rows of the initial encoder and of raw pixels, computed once for all runs side by side.

    Args:
        run: Beside which they are kept.
        model: Its model.
        splits: Its data.
        views: Two of each held-out test image.
        compute: Where to compute.
        encoder: The user's own, where the run's is.
    """
    config = model.config

    def untrained() -> Encoder:
        torch.manual_seed(config.seed)
        statistics = {name: getattr(model.encoder, name).flatten().tolist() for name in ("mean", "std")}
        size, channels = splits.image_size, splits.in_chans
        return build_encoder(config.encoder, encoder, in_chans=channels, image_size=size, **statistics)

    data = {name: value for name, value in _settings(config.data).items() if name != "root"}
    shared = {"version": VERSION, "data": data, "views": config.views}
    if is_external(config.views):  # two functions may have one name
        shared["pixels"] = _digest(views)
    of_encoder = {"encoder": _settings(config.encoder), "seed": config.seed}
    if is_external(config.encoder):
        of_encoder["weights"] = _digest(*untrained().state_dict().values())
    initial = "pretrained_encoder" if config.encoder.pretrained else "random_encoder"
    rows: dict[str, tuple[dict[str, Any], Callable[[], Encode]]] = {
        initial: (shared | of_encoder, lambda: compute.place(untrained()).eval()),
        "raw_pixels": (shared, lambda: partial(torch.flatten, start_dim=1)),
    }
    return {name: _baseline(run, name, key, make, compute.device, splits, views) for name, (key, make) in rows.items()}


def _settings(section: DataConfig | EncoderConfig) -> dict[str, Any]:
    """A section as results record it: without the keys of the user's own parts where it has none."""
    unset = [key for key in ("external", "fingerprint") if not getattr(section, key, "")]
    unset += ["kwargs"] if isinstance(section, DataConfig) and not section.kwargs else []
    return {name: value for name, value in dataclasses.asdict(section).items() if name not in unset}


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


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
    """Test images with their neighbours of lowest energy among other test images, for the report's pictures."""
    test = held_out(test)
    count, scorer = len(test), copy.deepcopy(model.scorer).cpu()
    queries = [int((test.labels == c).nonzero()[0]) for c in test.labels.unique()][:GALLERY_QUERIES]
    embeddings = encode_views(model.embed, test.images[None].float() / 255)[0]
    index = EnergyIndex(scorer, embeddings)
    energies, positions = index.search(embeddings[queries], min(GALLERY_SIZE + 1, count))
    for row, query in enumerate(queries):  # the query first, also where another image has a lower energy with it
        others = positions[row] != query
        others[-1] &= not bool(others.all())
        own = scorer.paired(embeddings[[query]], embeddings[[query]])
        positions[row] = torch.cat([torch.tensor([query]), positions[row][others]])
        energies[row] = torch.cat([own, energies[row][others]])
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
