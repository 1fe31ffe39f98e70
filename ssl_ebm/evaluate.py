"""A run -> evaluation.json: probes, energy verification and health, beside what needs no training.

Every row is computed by the same code on the same images: the encoder, the same encoder at its initial weights, and the
raw pixels. Labels of the validation split choose hyper-parameters; the test split is read once.
"""

from __future__ import annotations

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

from ssl_ebm.checkpoint import RunDirectory, load_tensors, write_atomically, write_json
from ssl_ebm.config import Config, TrainingConfig
from ssl_ebm.data import Images, Splits, load_data
from ssl_ebm.devices import choose_compute
from ssl_ebm.energies import Cosine, Energy
from ssl_ebm.evaluation.diagnostics import health
from ssl_ebm.evaluation.energy import verify
from ssl_ebm.evaluation.features import SPLITS, Bank, Split, extract
from ssl_ebm.evaluation.protocols import evaluate_bank
from ssl_ebm.evaluation.sgd import sgd_probe
from ssl_ebm.gauges import mutual_information
from ssl_ebm.model import EnergyIndex, EnergyModel, build_encoder, load
from ssl_ebm.objectives import FAMILIES, create_objective
from ssl_ebm.views import create_views

ENERGY_IMAGES = 2000  # held-out images whose views are verified: 4 million pairs
CALIBRATION_IMAGES = 5000  # training images whose views calibrate the canonical energy
GALLERY_QUERIES, GALLERY_SIZE = 8, 7  # images in the report, and neighbours of each
VERSION = 3  # of the protocol; a change makes stored baselines stale

Encode = Callable[[Tensor], Tensor]


def evaluate(run_dir: str | Path, *, device: str = "auto", force: bool = False, sgd: bool = False) -> dict[str, Any]:
    """Evaluate a run and write `evaluation.json`, `predictions.npz` and `gallery.npz` into its directory.

    Results that are there already are returned, unless the weights have changed since or `force` is set. Features are
    kept in `features/`; baselines beside the run, shared with its neighbours. `sgd` adds the literature's probe of the
    encoder's features, which takes minutes.

    Raises:
        FileNotFoundError: It is not a run directory, or there are no weights yet.
    """
    run = RunDirectory(Path(run_dir)).require()
    fingerprint = _fingerprint(run.encoder)
    if run.evaluation.is_file() and not force:
        results = json.loads(run.evaluation.read_text())
        if results["protocol"]["weights"] == fingerprint and results["protocol"]["version"] == VERSION:
            return _with_sgd(run, results) if sgd else results
    compute = choose_compute(TrainingConfig(device=device))
    model = load(run.path, compute.device)
    if compute.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    splits = load_data(model.config.data)
    protocol = _protocol(run, model, splits, fingerprint)
    bank = _bank(run, model, splits, protocol)
    views = held_out_views(model.config, splits)
    row, predictions = evaluate_encoder(bank, model.features, views, splits.test)
    results = {
        "run": str(run.path),
        "objective": describe_objective(model.config),
        "protocol": protocol,
        "rows": {"encoder": row} | baselines(run, model, splits, views),
        "energy": {
            "trained": dataclasses.asdict(_verify(model.embed, model.scorer, views, splits.test)),
            "features": row["energy"],
            "canonical": canonical(model, splits, views),
        },
        "config": dataclasses.asdict(model.config),
    }
    write_atomically(run.path / "predictions.npz", partial(_save_arrays, predictions))
    write_atomically(run.path / "gallery.npz", partial(_save_arrays, gallery(model, splits.test)))
    write_json(run.evaluation, results)
    return _with_sgd(run, results) if sgd else results


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


def describe_objective(config: Config) -> dict[str, Any]:
    """What the tables say of an objective."""
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
        "energy": f"two training views of {min(ENERGY_IMAGES, len(splits.test))} test images, all pairs, seed 0",
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


def held_out_views(config: Config, splits: Splits) -> Tensor:
    """Two training views of test images, the same for every run with these views: [2, n, channels, size, size]."""
    return _two_views(config, splits, splits.test.images[:ENERGY_IMAGES])


def _two_views(config: Config, splits: Splits, images: Tensor) -> Tensor:
    make = create_views(**(config.views | {"views": 2, "local_views": 0, "size": splits.image_size}))
    return make(images, generator=torch.Generator().manual_seed(0))


def evaluate_encoder(
    bank: Bank, encode: Encode, views: Tensor, test: Images
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One row of results, and the test predictions behind it."""
    probes, predictions = evaluate_bank(bank)
    clean = torch.from_numpy(bank.test.features[: views.shape[1]])
    row = {
        "num_features": bank.test.features.shape[1],
        **probes,
        "health": health(clean, torch.from_numpy(_encode_all(encode, views[0]))),
        "energy": dataclasses.asdict(_verify(encode, Cosine(), views, test)),
    }
    return row, predictions


@torch.inference_mode()
def _encode_all(encode: Encode, images: Tensor) -> np.ndarray:
    return torch.cat([encode(batch).cpu() for batch in images.split(500)]).numpy()


def _verify(encode: Encode, energy: Energy, views: Tensor, test: Images) -> Any:
    a, b = (torch.from_numpy(_encode_all(encode, view)) for view in views)
    energy = energy.cpu()
    with torch.no_grad():
        return verify(lambda rows: energy.cross(a[rows], b), test.labels[: len(a)])


def canonical(model: EnergyModel, splits: Splits, views: Tensor) -> dict[str, Any]:
    """The energy as an estimate of -PMI in nats, calibrated on training images: its meaning, verification, information.

    Without a canonical form, or where the bank is too small for the dimension, the reason instead.
    """
    if model.gauge is None:
        return {"meaning": "order"}
    bank = _two_views(model.config, splits, splits.train.images[:CALIBRATION_IMAGES])
    try:
        fitted = model.canonical(bank)
    except ValueError as error:
        return {"meaning": model.gauge.meaning, "reason": str(error)}
    a, b = (torch.from_numpy(_encode_all(model.embed, view)) for view in views)
    return {
        "meaning": model.gauge.meaning,
        "calibration_images": bank.shape[1],
        "mutual_information": float(mutual_information(fitted.scorer.cpu(), a, b).detach()),
        "verification": dataclasses.asdict(_verify(model.embed, fitted.scorer, views, splits.test)),
    }


def baselines(run: RunDirectory, model: EnergyModel, splits: Splits, views: Tensor) -> dict[str, Any]:
    """The rows of the initial encoder and of raw pixels, computed once for all runs side by side."""
    config = model.config
    data = {name: value for name, value in dataclasses.asdict(config.data).items() if name != "root"}
    shared = {"version": VERSION, "data": data, "views": config.views}
    encoder = {"encoder": dataclasses.asdict(config.encoder), "seed": config.seed}
    initial = "pretrained_encoder" if config.encoder.pretrained else "random_encoder"

    def untrained() -> Encode:
        torch.manual_seed(config.seed)
        statistics = {name: getattr(model.encoder, name).flatten().tolist() for name in ("mean", "std")}
        return (
            build_encoder(config.encoder, in_chans=splits.in_chans, image_size=splits.image_size, **statistics)
            .to(model.device)
            .eval()
        )

    rows: dict[str, tuple[dict[str, Any], Callable[[], Encode]]] = {
        initial: (shared | encoder, untrained),
        "raw_pixels": (shared, lambda: partial(torch.flatten, start_dim=1)),
    }
    return {name: _baseline(run, name, key, make, model.device, splits, views) for name, (key, make) in rows.items()}


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
    row, _ = evaluate_encoder(bank, encode, views, splits.test)
    write_json(path, row)
    return row


@torch.inference_mode()
def gallery(model: EnergyModel, test: Images) -> dict[str, np.ndarray]:
    """Test images with their neighbours of lowest energy among other test images, for the report's pictures."""
    count = min(ENERGY_IMAGES, len(test))
    queries = [int((test.labels[:count] == c).nonzero()[0]) for c in test.labels[:count].unique()][:GALLERY_QUERIES]
    embeddings = torch.from_numpy(_encode_all(model.embed, test.images[:count].float() / 255))
    index = EnergyIndex(model.scorer, embeddings)
    energies, positions = index.search(embeddings[queries], min(GALLERY_SIZE + 1, count))
    for row, query in enumerate(queries):  # the query first, also where another image has a lower energy with it
        others = positions[row] != query
        others[-1] &= not bool(others.all())
        own = model.scorer.cpu().paired(embeddings[[query]], embeddings[[query]])
        positions[row] = torch.cat([torch.tensor([query]), positions[row][others]])
        energies[row] = torch.cat([own, energies[row][others]])
    return {
        "images": test.images[positions].numpy(),
        "labels": test.labels[positions].numpy(),
        "energies": energies.numpy(),
        "classes": np.array(test.classes),
    }
