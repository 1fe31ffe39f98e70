"""Samples of a run as a picture: chains from noise and from images, and images compatible with given ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid
from tqdm import tqdm

from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import load_data
from ssl_ebm.data.resize import resize
from ssl_ebm.data.splits import Images
from ssl_ebm.evaluation.energy.of_pairs import evenly_spaced
from ssl_ebm.evaluation.features.frechet import frechet_distance
from ssl_ebm.generative.draw_images import Samples
from ssl_ebm.generative.heads import FreeEnergyHead, JointHead
from ssl_ebm.model import EnergyModel, load
from ssl_ebm.run_directory import RunDirectory, load_tensors, write_atomically
from ssl_ebm.user_code import MissingPart, Parts

GAP = 4  # white pixels around and between images; three times as many between blocks
LEAST_SIDE = 40  # pixels that an image is enlarged to
SHOWN = 64  # images a block of the picture
REFERENCE = 10_000  # training images that samples are measured against


class Picture(NamedTuple):
    """What was written, and a line on each of its blocks."""

    path: Path
    lines: list[str]


def sample(
    run_dir: str | Path,
    *,
    count: int = 16,
    steps: int | None = None,
    seed: int = 0,
    convert_batch_norm: bool = False,
    force: bool = False,
    judge: str | Path | None = None,
    device: str = "cpu",
    objective: Any = None,
    data: Any = None,
    encoder: Any = None,
    trust: bool = False,
) -> Picture:
    """Write RUN/samples/update_N.png: blocks of `count` chains each, with the run's sampler.

    From noise and from validation images under E(x), where the run has an image energy; then validation images x, and
    below them where chains from noise went under E(x, ·), which without an image energy is an adversarial probe. An RBM
    has no such chains; its own are shown by the probabilities of their pixels.

    Args:
        run_dir: A run directory.
        count: Chains from noise, of which the picture shows at most 64; at most 64 images in the other blocks.
        steps: Of each chain; None: as `EnergyModel.sample` has it.
        seed: Of the chains.
        convert_batch_norm: Make BatchNorm the fixed map that it is in eval mode.
        force: Overwrite the picture.
        judge: A run whose encoder's features give the Fréchet distance of the images from noise to training images,
            beside that of as many validation images.
        device: Where to compute.
        objective: The run's own, as in `evaluate`; without it there are no images compatible with others.
        data: Likewise its images.
        encoder: Likewise its backbone; of the judge, too, where that has the same.
        trust: Import what the runs' configs name.

    Raises:
        FileNotFoundError: It is not a run directory, or has no checkpoint yet.
        MissingPart: Its data or encoder are its author's, and were not given.
        FileExistsError: The picture is there and `force` is False.
        ValueError: A BatchNorm that was not to be converted, chains that diverge, or no samples to judge.
    """
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    run = RunDirectory(Path(run_dir)).require()
    update = int(load_tensors(run.encoder)[1]["step"])
    path = run.path / "samples" / f"update_{update:07d}.png"
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists: overwrite it with --force")
    parts = Parts(objective=objective, data=data, encoder=encoder, trust=trust)
    model = _load(run, device, parts)
    if model.missing is not None and model.head is None:
        raise MissingPart(f"{run.path} cannot be sampled: {model.missing}")
    if judge is not None and (model.head is None or count < 2):
        raise ValueError(f"--judge needs a run with an image energy and --count of at least 2, got {run.path}, {count}")
    judging = None if judge is None else _load(RunDirectory(Path(judge)).require(), device, parts)
    splits = load_data(model.config.data, parts.find("data", model.config.data))
    images = _resized(model, splits.validation, max(count, 256))
    blocks, lines = [], []

    def draw(title: str, **options: object) -> Samples:
        total = steps or 0
        with tqdm(total=total or None, desc=title, unit="step", dynamic_ncols=True) as bar:
            given: dict[str, object] = {"steps": steps, "seed": seed, "progress": bar.update}
            drawn = model.sample(**given, convert_batch_norm=convert_batch_norm, **options)  # type: ignore[arg-type]
            lines.append(f"{title}: {bar.n} steps, {_describe(drawn)}")
        shown = drawn.images[:SHOWN]
        blocks.append(model.head.expected(shown) if isinstance(model.head, FreeEnergyHead) else shown)
        return drawn

    bank = images if isinstance(model.head, JointHead) else None
    starts = images[: min(count, SHOWN)]
    if model.head is not None:
        drawn = draw("from noise", n=count, bank=bank)
        if judging is not None:
            reference = _resized(model, splits.train, REFERENCE)
            of_samples, of_data = _distances(judging, reference, drawn.images, images[:count])
            lines.append(
                f"Fréchet distance of these {count} to training images: {of_samples:.4g}, of "
                f"{min(count, len(images))} validation images: {of_data:.4g} (features of {judge}: "
                f"{judging.config.encoder.name}, {judging.encoder.num_features} dimensions)"
            )
        draw("from images", x0=starts, bank=bank)
    if model.missing is not None:
        lines.append(f"no images compatible with others: {model.missing}")
    elif not isinstance(model.head, FreeEnergyHead):  # an RBM's chains move under its own energy only
        blocks.append(starts)
        draw("compatible with the images above", given=starts)
    write_atomically(path, lambda p: Image.fromarray(grid(blocks)).save(p, format="PNG"))
    return Picture(path, lines)


def _load(run: RunDirectory, device: str, parts: Parts) -> EnergyModel:
    """A run's model, with those of the parts that it needs."""
    needed = parts.needed(load_config(run.config))
    return load(run.path, device, objective=needed.objective, encoder=needed.encoder, trust=needed.trust)


def _describe(samples: Samples) -> str:
    probe = ", an adversarial probe: the energy was never contrasted in x" if samples.adversarial else ""
    energy = samples.energy
    return (
        f"effective temperature {samples.temperature:.3g}, energy {float(energy.mean()):.3f} "
        f"± {float(energy.std(correction=0)):.3f} nats{probe}"
    )


@torch.no_grad()
def _distances(judge: EnergyModel, reference: Tensor, *sets: Tensor) -> list[float]:
    """Fréchet distances of sets of images to a reference, in the features of another run's encoder."""
    channels, size = judge.encoder.in_chans, judge.encoder.image_size

    def features(images: Tensor) -> Tensor:
        resized = resize(images.clamp(0, 1), size, channels=channels)
        return torch.cat([judge.features(part) for part in resized.split(500)])

    known = features(reference)
    return [frechet_distance(features(images), known) for images in sets]


def _resized(model: EnergyModel, split: Images, count: int) -> Float[Tensor, "n c h w"]:
    """Images of a split in [0, 1], from all over it, at the size that the run was trained on."""
    images = split.images[evenly_spaced(len(split), count)].float() / 255
    return resize(images, model.sample_shape[-1]).to(model.device)


def grid(blocks: list[Float[Tensor, "_ c h w"]], columns: int | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels: blocks of images below each other, a wider gap between blocks; small images enlarged by a whole number.

    Args:
        blocks: Images in [0, 1], of one size; of other than one or three channels, the first is shown.
        columns: Images a row; None: at most 16.
    """
    columns = columns or min(16, max(len(block) for block in blocks))
    pictures = []
    for block in blocks:
        images = block.detach().float().cpu()
        images = images if images.shape[1] in (1, 3) else images[:, :1]
        images = F.interpolate(images, scale_factor=max(1, math.ceil(LEAST_SIDE / images.shape[2])))
        white = images.new_ones(-len(images) % columns, *images.shape[1:])
        picture = make_grid(torch.cat([images, white]), nrow=columns, padding=GAP, pad_value=1.0)
        pictures += [picture, picture.new_ones(3, GAP, picture.shape[2])]
    return torch.cat(pictures[:-1], dim=1).mul(255).round().byte().permute(1, 2, 0).numpy()
