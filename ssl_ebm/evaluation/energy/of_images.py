"""The energy E(x) of single images, for runs with a generative head: of test images, samples and foreign images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.data.resize import resize
from ssl_ebm.evaluation.energy.of_pairs import ENERGY_IMAGES, evenly_spaced, foreign_sets
from ssl_ebm.evaluation.energy.outlier_scores import detection
from ssl_ebm.evaluation.energy.verification import histograms
from ssl_ebm.evaluation.probes.classification import classification_scores
from ssl_ebm.generative.heads import FreeEnergyHead, JointHead, LogitsHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.log_partition import linear_path, rbm_log_partition
from ssl_ebm.model import EnergyModel

SAMPLE_CHAINS = 64  # from noise
FILTER_PICTURES = 96  # hidden units that are shown
HISTOGRAM_REACH = 12  # standard deviations of test images' energies, to each side of their mean
JOINT_HEAD_IMAGES = 256  # training images that the joint head sums over
ANNEALED_CHAINS, ANNEALING_TEMPERATURES = 256, 4000  # of annealed importance sampling
BATCH = 500  # images in work at a time


@torch.no_grad()
def image_measures(
    model: EnergyModel, splits: Splits, metrics: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """Energies E(x) of test images, of samples and of foreign sets, all at the size of the training's views.

    Gives

    - `edges` and `histograms` of all sets over common bins, which reach at most 12 standard deviations from the mean of
      test, the end bins holding what lies beyond; `mean` and `std` of each set;
    - `steps` and `temperature` of the sampler, or where chains diverged `sampling_failed`, the reason;
    - `ood`: how well E(x) tells each foreign set from test images;
    - `gradient_cosine`: cosine of the generative gradient with the objective's, mean over the second half of the
      training's `metrics`; None where it was not measured;
    - `classifier`, of the logits head: accuracy and calibration of p(y | x) on test;
    - `log_likelihood`, of an RBM, as the function of that name gives it.

    None for a run without a generative head, or whose head needs an energy of pairs that is not there.
    """
    if model.head is None or (model.missing is not None and isinstance(model.head, JointHead)):
        return None
    size = model.sample_shape[-1]

    def at_size_of_views(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c size size"]:
        return resize(images.float() / 255, size)

    bank = None
    if isinstance(model.head, JointHead):
        bank = at_size_of_views(splits.train.images[evenly_spaced(len(splits.train), JOINT_HEAD_IMAGES)])

    def energies(images: UInt8[Tensor, "n c h w"]) -> Float64[np.ndarray, " n"]:
        batches = [model.image_energy(at_size_of_views(x), bank=bank).double().cpu() for x in images.split(BATCH)]
        return torch.cat(batches).numpy()

    sets = {"test": energies(splits.test.images[evenly_spaced(len(splits.test), ENERGY_IMAGES)])}
    samples, results = _energies_of_samples(model, bank)
    if samples is not None:
        sets["samples"] = samples
    foreign = foreign_sets(model.config.data, splits, size=size)
    sets |= {name: energies(images) for name, images in foreign.items()}
    if isinstance(model.head, LogitsHead):
        embed = ImageEnergy(model.encoder, model.projector, model.head).embed
        logits = [embed(at_size_of_views(x).to(model.device)).cpu() for x in splits.test.images.split(BATCH)]
        results["classifier"] = _classifier(torch.cat(logits) / model.head.label_energy.temperature, splits.test)
    if isinstance(model.head, FreeEnergyHead):
        results["log_likelihood"] = log_likelihood(model.head, splits)
    return results | {
        "gradient_cosine": _late_mean(metrics, "image_gradient_cosine"),
        "ood": {name: detection(sets["test"], sets[name]) for name in foreign},
        **histograms(sets, limits=_histogram_limits(sets["test"])),
        "mean": {name: float(values.mean()) for name, values in sets.items()},
        "std": {name: float(values.std()) for name, values in sets.items()},
    }


def _energies_of_samples(
    model: EnergyModel, bank: Tensor | None
) -> tuple[Float64[np.ndarray, " n"] | None, dict[str, Any]]:
    """Energies of images drawn from noise, None where chains diverge; and how they were drawn."""
    steps: list[int] = []
    try:
        samples = model.sample(SAMPLE_CHAINS, bank=bank, progress=steps.append)
    except ValueError as error:
        return None, {"sampling_failed": str(error)}
    return samples.energy.double().cpu().numpy(), {"steps": sum(steps), "temperature": samples.temperature}


def _classifier(logits: Float[Tensor, "n classes"], test: Images) -> dict[str, Any]:
    """Accuracy and calibration of p(y | x) = softmax(logits)."""
    scores = classification_scores(logits.numpy(), test.labels.numpy())
    scores.pop("predictions")
    return scores


@torch.no_grad()
def log_likelihood(
    head: FreeEnergyHead, splits: Splits, *, temperatures: int = ANNEALING_TEMPERATURES
) -> dict[str, float]:
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
        name: torch.cat([head.visible(batch.to(device).float() / 255) for batch in of_split.split(1000)])
        for name, of_split in images.items()
    }
    on = units["train"].double().mean(0)
    on = (on * len(units["train"]) + 1) / (len(units["train"]) + 2)  # no pixel is certain
    independent = units["test"].double() @ on.log() + (1 - units["test"].double()) @ (1 - on).log()
    generator = torch.Generator(device).manual_seed(0)
    log_z = rbm_log_partition(
        head.rbm, chains=ANNEALED_CHAINS, on=on, betas=linear_path(temperatures), generator=generator
    )
    return {
        **{name: -float(head.rbm(v).double().mean()) - log_z.value for name, v in units.items()},
        "independent": float(independent.mean()),
        "log_partition": log_z.value,
        "standard_error": log_z.standard_error,
        "effective_samples": log_z.effective_samples,
        "chains": ANNEALED_CHAINS,
        "temperatures": temperatures,
    }


def filters(head: FreeEnergyHead, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "k c h w"]:
    """Pictures of the weights of an RBM's hidden units, the largest first: grey is 0, black or white the extreme.

    Args:
        head: Of the RBM.
        shape: Channels, height and width of an image.
    """
    weight = head.rbm.weight.detach().cpu()
    largest = weight.norm(dim=0).argsort(descending=True)[:FILTER_PICTURES]
    scaled = weight[:, largest] / weight[:, largest].abs().amax(0).clamp_min(1e-12)
    return (127.5 * (scaled + 1)).round().byte().T.reshape(-1, *shape).numpy()


def _histogram_limits(energies: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """The ends of the histograms, around these energies; infinite where they are all equal."""
    mean, reach = float(energies.mean()), HISTOGRAM_REACH * float(energies.std())
    return (mean - reach, mean + reach) if reach > 0 else (-math.inf, math.inf)


def _late_mean(metrics: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean of a metric over the second half of the lines that have it."""
    values = [line[name] for line in metrics if line.get(name) is not None]
    return fmean(values[len(values) // 2 :]) if values else None
