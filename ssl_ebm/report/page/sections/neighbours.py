"""Test images that each energy holds compatible, and its worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import numpy as np
from jaxtyping import Float

from ssl_ebm.report.page.figures.axes import fixed
from ssl_ebm.report.page.figures.images import LARGEST_IMAGE, png_uri
from ssl_ebm.report.page.sections.layout import Figure
from ssl_ebm.report.runs import Group

BUDGET = 3_000_000  # bytes of pixels of all pictures: a page stays quick to open
Gallery = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A test image.

    Attributes:
        uri: Its pixels.
        name: Of its class.
        energy: Its energy with the query; of the query, empty.
        wrong: Whether its class is not the query's.
    """

    uri: str
    name: str
    energy: str = ""
    wrong: bool = False


def neighbours(groups: Sequence[Group]) -> dict[str, Any]:
    """Neighbours of lowest energy, a figure a group, and pairs of different classes of lowest energy."""
    galleries = {group.name: group.first.gallery for group in groups}
    part = _part_shown([gallery for gallery in galleries.values() if gallery is not None])
    nearest, mistakes = [], []
    for group in groups:
        gallery = galleries[group.name]
        if gallery is None:
            nearest.append(Figure.of(group, []))
            continue
        labels = gallery["labels"]
        wrong = int((labels[:, 1:] != labels[:, :1]).sum())
        note = f"{wrong} of {labels[:, 1:].size} neighbours are of another class"
        nearest.append(Figure.of(group, _rows(gallery, part), note))
        if len(gallery.get("mistakes", ())):
            mistakes.append(Figure.of(group, _mistakes(gallery, part)))
    return {"nearest": nearest, "mistakes": mistakes}


def _part_shown(galleries: Sequence[Gallery]) -> float:
    """The part of each gallery that is shown: 1 where all of their pixels are within the budget."""
    shown = [gallery[key] for gallery in galleries for key in ("images", "mistakes") if key in gallery]
    pixels = sum(images.size * min(1, LARGEST_IMAGE / max(images.shape[-2:])) ** 2 for images in shown)
    return min(1.0, BUDGET / max(pixels, 1))


def _rows(gallery: Gallery, part: float) -> list[list[Thumbnail]]:
    """Queries, each with its neighbours after it; at least two."""
    digits = _digits(gallery["energies"][:, 1:])
    count = max(2, int(len(gallery["labels"]) * part))
    return [
        [
            Thumbnail(
                uri=png_uri(image),
                name=str(gallery["classes"][label]),
                energy=fixed(float(energy), digits) if i else "",
                wrong=bool(label != labels[0]),
            )
            for i, (image, label, energy) in enumerate(zip(images, labels, energies, strict=True))
        ]
        for images, labels, energies in zip(
            gallery["images"][:count], gallery["labels"][:count], gallery["energies"][:count], strict=True
        )
    ]


def _mistakes(gallery: Gallery, part: float) -> list[tuple[list[Thumbnail], str]]:
    """Pairs of images and their energies; at least two pairs."""
    energies = gallery["mistake_energies"]
    digits = _digits(energies[None])
    pairs = []
    for i in range(min(len(energies), max(2, int(len(energies) * part)))):
        names = [str(gallery["classes"][label]) for label in gallery["mistake_labels"][i]]
        images = [Thumbnail(uri=png_uri(x), name=n) for x, n in zip(gallery["mistakes"][i], names, strict=True)]
        pairs.append((images, fixed(float(energies[i]), digits)))
    return pairs


def _digits(energies: Float[np.ndarray, "queries neighbours"]) -> int:
    """Decimals by which a typical query's neighbours differ in two digits."""
    spread = float(np.median(np.ptp(energies, axis=1))) if energies.size else 1.0
    return int(np.clip(np.ceil(1 - log10(max(spread, 1e-9))), 0, 4))
