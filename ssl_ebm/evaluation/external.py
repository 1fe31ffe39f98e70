"""Probes of encoders that this library did not train: a timm model by name, or a file of features.

Such an encoder has no energy and no views, so that `compare`, which sets energies side by side, does not take it; the
probes are those of a run's `evaluation.json`, by the same code.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.models import load_state_dict
from torch import Tensor

from ssl_ebm.config import TrainingConfig
from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.data.resize import resize
from ssl_ebm.devices import choose_compute
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split, extract
from ssl_ebm.evaluation.features.files import read_features
from ssl_ebm.evaluation.probes.protocols import DEFAULT, evaluate_bank, make_bank
from ssl_ebm.networks.encoder import Encoder, create_encoder
from ssl_ebm.registry import unknown_name
from ssl_ebm.run_directory import write_atomically, write_json


def evaluate_timm(
    name: str,
    data: DataConfig,
    *,
    out: str | Path,
    images: Any = None,
    pretrained: bool = True,
    checkpoint: str | Path | None = None,
    protocols: Sequence[str] = DEFAULT,
    device: str = "auto",
    force: bool = False,
) -> dict[str, Any]:
    """Probes of a timm model's pooled features; writes `evaluation.json`, `predictions.npz` and `features/` into `out`.

    Images get the model's number of channels, its mean and its standard deviation. They are resized, by the filter of
    `data.resize`, to its input size, unless `data.image_size` is given: then the network runs at that size.

    Args:
        name: As in `timm.list_models()`, with a tag of its weights where wanted.
        data: Which images.
        out: Directory of the results.
        images: The user's own that `data` names, as in `load_data`.
        pretrained: Load timm's weights from its cache or the hub; else they are random, by seed 0.
        checkpoint: A file of weights to load instead, with or without classifier.
        protocols: Of `ssl_ebm.evaluation.PROTOCOLS`.
        device: auto, cpu, cuda.
        force: Overwrite results.

    Raises:
        ValueError: An unknown name, weights that cannot be had or do not fit, or images that the network cannot take.
        FileExistsError: There are results and `force` is not set.
        FileNotFoundError: There is no such checkpoint.
    """
    folder = _vacant(out, force)
    torch.manual_seed(0)
    encoder = timm_encoder(name, image_size=data.image_size, pretrained=pretrained, checkpoint=checkpoint)
    compute = choose_compute(TrainingConfig(device=device))
    encoder = compute.place(encoder).eval()
    splits = load_data(data, images)
    weights = str(checkpoint) if checkpoint else "timm's" if pretrained else "random, seed 0"
    protocol = {
        "encoder": name,
        "weights": weights,
        "input_size": encoder.image_size,
        "layer": "backbone, pooled",
        "data": dataclasses.asdict(data),
    }
    parts = {
        split: Split(
            extract(partial(_encode, encoder), part.images, device=compute.device, desc=f"{name} of {split}"),
            part.labels.numpy(),
        )
        for split in SPLITS
        for part in [getattr(splits, split)]
    }
    bank = Bank(**parts, classes=splits.num_classes, protocol=protocol)
    bank.save(folder / "features")
    return _write(folder, bank, protocols)


def evaluate_file(
    path: str | Path,
    *,
    out: str | Path,
    labels: str | Path | None = None,
    protocols: Sequence[str] = DEFAULT,
    force: bool = False,
) -> dict[str, Any]:
    """Probes of features in a file; writes `evaluation.json` and `predictions.npz` into `out`.

    `read_features` says what the file holds. Without a validation split, 10% of train, stratified, seed 0.

    Raises:
        FileNotFoundError: There is no such file.
        FileExistsError: There are results and `force` is not set.
        ValueError: Another kind of file, an array that is missing, or what `evaluate_features` refuses.
        TypeError: As `evaluate_features`.
    """
    folder = _vacant(out, force)
    arrays, protocol = read_features(path, labels)
    validation = (arrays["validation"], arrays["validation_labels"]) if "validation" in arrays else None
    splits = (arrays[key] for key in ("train", "train_labels", "test", "test_labels"))
    return _write(folder, make_bank(*splits, validation=validation, protocol=protocol), protocols)


def timm_encoder(
    name: str, *, image_size: int | None = None, pretrained: bool = True, checkpoint: str | Path | None = None
) -> Encoder:
    """A timm model as it is: with its number of channels, its input size and its normalisation.

    Raises:
        ValueError: As `evaluate_timm`.
        FileNotFoundError: There is no such checkpoint.
    """
    if not timm.is_model(name):
        raise ValueError(unknown_name("timm model", name, timm.list_models()))
    config = timm.get_pretrained_cfg(name)
    channels, *_, size = config.input_size if config else (3, 224, 224)
    statistics: dict[str, Any] = {"mean": config.mean, "std": config.std} if config else {}
    build: Callable[..., Encoder] = partial(
        create_encoder, name, in_chans=channels, image_size=image_size or size, adapt=False, **statistics
    )
    if checkpoint is not None:
        return _with_weights(build(), Path(checkpoint), config.classifier if config else None)
    if not pretrained:
        return build()
    try:
        with _quiet_hub():
            return build(pretrained=True)
    except ValueError as error:
        build()  # what is wrong without the weights too is not their fault
        raise ValueError(
            f"weights of {name!r} cannot be reached ({' '.join(str(error.__cause__).split())[:200]}): connect to the "
            "hub or fill timm's cache, give a file with --checkpoint, or take random weights with --no-pretrained"
        ) from error


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silences the hub's line for each of its retries: the error says what stopped it."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _with_weights(encoder: Encoder, path: Path, classifier: Any) -> Encoder:
    """The encoder with the weights of a checkpoint, whose classifier (by its layers' names) is dropped."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: give a file of weights for timm, e.g. of ssl-ebm export")
    try:
        state = load_state_dict(str(path), use_ema=True, weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    state = {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
    try:
        encoder.backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"checkpoint {path} does not fit the timm model: {reason[:300]}") from error
    return encoder


def _encode(encoder: Encoder, images: Tensor) -> Tensor:
    """Features of images in [0, 1] of any size and of 1 or 3 channels."""
    return encoder(resize(images, encoder.image_size, channels=encoder.in_chans))


def _vacant(out: str | Path, force: bool) -> Path:
    """The directory for results, if it holds none or `force` lets them be replaced."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: name a directory with --out")
    if (folder / "config.yaml").is_file():
        raise FileExistsError(f"{folder} is a run's directory: choose another with --out")
    if (folder / "evaluation.json").exists() and not force:
        raise FileExistsError(f"{folder / 'evaluation.json'} exists: choose another --out, or overwrite with --force")
    return folder


def _write(folder: Path, bank: Bank, protocols: Sequence[str]) -> dict[str, Any]:
    """Evaluates the bank and writes the results into the folder."""
    results, predictions = evaluate_bank(bank, protocols)
    record = {
        "protocol": bank.protocol | {"sizes": {name: len(getattr(bank, name)) for name in SPLITS}},
        "rows": {"encoder": {"num_features": bank.train.features.shape[1]} | results},
    }

    def save(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez_compressed(file, **predictions)  # type: ignore[arg-type]

    write_atomically(folder / "predictions.npz", save)
    write_json(folder / "evaluation.json", record)
    return record
