"""What a run's energy of single images is worth: of data, of its own samples, and of images of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ssl_ebm.data import Splits
from ssl_ebm.evaluation.classification import classification_scores
from ssl_ebm.evaluation.energy import histograms
from ssl_ebm.evaluation.ood import detection
from ssl_ebm.evaluation.outliers import fitted
from ssl_ebm.generative.heads import JointHead, LogitsHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.measures import ENERGY_IMAGES, foreign_sets, spread
from ssl_ebm.model import EnergyModel

SAMPLES = 64  # chains from noise
BANK = 256  # training images that the joint head sums over


@torch.no_grad()
def image_measures(
    model: EnergyModel, splits: Splits, metrics: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """Energies E(x) of test images, of samples and of foreign sets, all at the size of the training's views.

    Gives `histograms` over common `edges`, `mean` and `std` of every set; `steps` and `temperature` of the sampler, and
    `sampling_failed`, the reason, where chains diverged; `ood`, how well E(x) tells each foreign set from test images;
    of the logits head `classifier`, accuracy and calibration of p(y | x) on test; `gradient_cosine`, of the generative
    gradient with the objective's, its mean over the second half of the training's `metrics`, None where there is none.
    None for a run without a generative head.
    """
    if model.head is None:
        return None
    size = model.sample_shape[-1]

    def resized(images: Tensor) -> Float[Tensor, "n c h w"]:
        return fitted(images.float() / 255, splits.in_chans, size).clamp(0, 1)

    bank = None
    if isinstance(model.head, JointHead):
        bank = resized(splits.train.images[spread(len(splits.train), BANK)])

    def energies(images: Float[Tensor, "n c h w"]) -> Float64[np.ndarray, " n"]:
        parts = [model.image_energy(part, bank=bank).double().cpu() for part in images.split(500)]
        return torch.cat(parts).numpy()

    sets = {"test": energies(resized(splits.test.images[spread(len(splits.test), ENERGY_IMAGES)]))}
    results: dict[str, Any] = {"gradient_cosine": _late_mean(metrics, "image_gradient_cosine")}
    taken: list[int] = []
    try:
        drawn = model.sample(SAMPLES, bank=bank, progress=taken.append)
        sets["samples"] = drawn.energy.double().cpu().numpy()
        results |= {"steps": sum(taken), "temperature": drawn.temperature}
    except ValueError as error:
        results["sampling_failed"] = str(error)
    foreign = foreign_sets(model.config.data, splits, size=size)
    sets |= {name: energies(resized(images)) for name, images in foreign.items()}
    if isinstance(model.head, LogitsHead):
        logits = ImageEnergy(model.encoder, model.projector, model.head).embed
        scores = torch.cat([logits(resized(part).to(model.device)).cpu() for part in splits.test.images.split(500)])
        temperature = model.head.label_energy.temperature
        results["classifier"] = classification_scores((scores / temperature).numpy(), splits.test.labels.numpy())
        results["classifier"].pop("predictions")
    results["ood"] = {name: detection(sets["test"], sets[name]) for name in foreign}
    return results | {
        **histograms(sets),
        "mean": {name: float(values.mean()) for name, values in sets.items()},
        "std": {name: float(values.std()) for name, values in sets.items()},
    }


def _late_mean(metrics: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Over the second half of the lines that have a finite value."""
    values = [line[name] for line in metrics if line.get(name) is not None]
    return fmean(values[len(values) // 2 :]) if values else None
