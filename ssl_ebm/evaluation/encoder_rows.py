"""One row of results: an encoder's features, probed; and the rows of baselines that need no training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.data.datasets import DataConfig
from ssl_ebm.data.splits import Images, Splits
from ssl_ebm.devices import Compute
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.energy.of_pairs import (
    ENERGY_IMAGES,
    Encode,
    Views,
    encode_views,
    evenly_spaced,
    held_out,
    verification,
)
from ssl_ebm.evaluation.features import clusters
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split, extract
from ssl_ebm.evaluation.features.health import health
from ssl_ebm.evaluation.probes.protocols import evaluate_bank
from ssl_ebm.evaluation.results import VERSION
from ssl_ebm.model import EnergyModel
from ssl_ebm.networks.encoder import Encoder, EncoderConfig, build_encoder
from ssl_ebm.run_directory import RunDirectory, write_json
from ssl_ebm.user_code import is_external


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


def baselines(
    run: RunDirectory, model: EnergyModel, splits: Splits, views: Tensor, compute: Compute, encoder: Any = None
) -> dict[str, Any]:
    """Results of the initial encoder and of raw pixels; runs in one folder share them if data and views are equal.

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

    data = {name: value for name, value in settings(config.data).items() if name != "root"}
    shared = {"version": VERSION, "data": data, "views": config.views}
    if is_external(config.views):  # two functions may have one name
        shared["pixels"] = _digest(views)
    of_encoder = {"encoder": settings(config.encoder), "seed": config.seed}
    if is_external(config.encoder):
        of_encoder["weights"] = _digest(*untrained().state_dict().values())
    initial = "pretrained_encoder" if config.encoder.pretrained else "random_encoder"
    rows: dict[str, tuple[dict[str, Any], Callable[[], Encode]]] = {
        initial: (shared | of_encoder, lambda: compute.place(untrained()).eval()),
        "raw_pixels": (shared, lambda: partial(torch.flatten, start_dim=1)),
    }
    return {name: _baseline(run, name, key, make, compute.device, splits, views) for name, (key, make) in rows.items()}


def settings(section: DataConfig | EncoderConfig) -> dict[str, Any]:
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
