"""What a run's energy of single images is worth: of data, of its own samples, and of images of another kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from ssl_ebm.data.datasets import Splits
from ssl_ebm.evaluation.energy.of_pairs import ENERGY_IMAGES, evenly_spaced, foreign_sets
from ssl_ebm.evaluation.energy.outlier_images import resize_to
from ssl_ebm.evaluation.energy.outlier_scores import detection
from ssl_ebm.evaluation.energy.verification import histograms
from ssl_ebm.evaluation.probes.classification import classification_scores
from ssl_ebm.generative.heads import FreeEnergyHead, JointHead, LogitsHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.log_partition import linear_path, rbm_log_partition
from ssl_ebm.model import EnergyModel

SAMPLES = 64  # chains from noise
FILTERS = 96  # pictures
AXIS = 12  # standard deviations around test images that histograms reach
BANK = 256  # training images that the joint head sums over
ANNEALED, TEMPERATURES = 256, 4000  # chains and steps of annealed importance sampling


@torch.no_grad()
def image_measures(
    model: EnergyModel, splits: Splits, metrics: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """Energies E(x) of test images, of samples and of foreign sets, all at the size of the training's views.

    Gives `histograms` over common `edges`, at most 12 standard deviations around the mean of test, beyond which values
    are in the end bins; `mean` and `std` of every set; `steps` and `temperature` of the sampler, and
    `sampling_failed`, the reason, where chains diverged; `ood`, how well E(x) tells each foreign set from test images;
    of the logits head `classifier`, accuracy and calibration of p(y | x) on test; `gradient_cosine`, of the generative
    gradient with the objective's, its mean over the second half of the training's `metrics`, None where there is none.
    of an RBM `log_likelihood`, as `log_likelihood` gives it.
    None for a run without a generative head, or whose head needs an energy of pairs that is not there.
    """
    if model.head is None or (model.missing is not None and isinstance(model.head, JointHead)):
        return None
    size = model.sample_shape[-1]

    def resized(images: Tensor) -> Float[Tensor, "n c h w"]:
        return resize_to(images.float() / 255, splits.in_chans, size).clamp(0, 1)

    bank = None
    if isinstance(model.head, JointHead):
        bank = resized(splits.train.images[evenly_spaced(len(splits.train), BANK)])

    def energies(images: Float[Tensor, "n c h w"]) -> Float64[np.ndarray, " n"]:
        parts = [model.image_energy(part, bank=bank).double().cpu() for part in images.split(500)]
        return torch.cat(parts).numpy()

    sets = {"test": energies(resized(splits.test.images[evenly_spaced(len(splits.test), ENERGY_IMAGES)]))}
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
    if isinstance(model.head, FreeEnergyHead):
        results["log_likelihood"] = log_likelihood(model.head, splits)
    results["ood"] = {name: detection(sets["test"], sets[name]) for name in foreign}
    return results | {
        **histograms(sets, limits=_around(sets["test"])),
        "mean": {name: float(values.mean()) for name, values in sets.items()},
        "std": {name: float(values.std()) for name, values in sets.items()},
    }


@torch.no_grad()
def log_likelihood(head: FreeEnergyHead, splits: Splits, *, temperatures: int = TEMPERATURES) -> dict[str, float]:
    """Mean log p(v) = -F(v) - log Z of an RBM over images, in nats an image, with log Z annealed.

    Gives it of `train` (as many images as test has) and `test`; `independent`, of test under a Bernoulli for each pixel
    that is fitted to training images, which a model must beat; `log_partition` with its `standard_error` and
    `effective_samples` of `chains`, and `temperatures`. Annealing tends to miss mass, so that log Z is rather too low
    and log p too high.

    Args:
        head: Of the RBM.
        splits: Images.
        temperatures: Steps of annealing.
    """
    device = head.rbm.weight.device
    images = {
        "train": splits.train.images[evenly_spaced(len(splits.train), len(splits.test))],
        "test": splits.test.images,
    }
    units = {
        name: torch.cat([head.visible(part.to(device).float() / 255) for part in own.split(1000)])
        for name, own in images.items()
    }
    on = units["train"].double().mean(0)
    on = (on * len(units["train"]) + 1) / (len(units["train"]) + 2)  # no pixel is certain
    independent = units["test"].double() @ on.log() + (1 - units["test"].double()) @ (1 - on).log()
    generator = torch.Generator(device).manual_seed(0)
    found = rbm_log_partition(head.rbm, chains=ANNEALED, on=on, betas=linear_path(temperatures), generator=generator)
    return {
        **{name: -float(head.rbm(v).double().mean()) - found.value for name, v in units.items()},
        "independent": float(independent.mean()),
        "log_partition": found.value,
        "standard_error": found.standard_error,
        "effective_samples": found.effective_samples,
        "chains": ANNEALED,
        "temperatures": temperatures,
    }


def filters(head: FreeEnergyHead, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "k c h w"]:
    """Pictures of the hidden units of largest weights: grey is 0, and black to white the unit's own range.

    Args:
        head: Of the RBM.
        shape: Channels, height and width of an image.
    """
    weight = head.rbm.weight.detach().cpu()
    largest = weight.norm(dim=0).argsort(descending=True)[:FILTERS]
    own = weight[:, largest] / weight[:, largest].abs().amax(0).clamp_min(1e-12)
    return (127.5 * (own + 1)).round().byte().T.reshape(-1, *shape).numpy()


def _around(energies: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    mean, reach = float(energies.mean()), AXIS * float(energies.std())
    return (mean - reach, mean + reach) if reach > 0 else (-math.inf, math.inf)


def _late_mean(metrics: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Over the second half of the lines that have a finite value."""
    values = [line[name] for line in metrics if line.get(name) is not None]
    return fmean(values[len(values) // 2 :]) if values else None
