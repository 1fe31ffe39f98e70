"""Images in memory, and a data set as its three parts: train, validation and test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels; `classes[label]` is a label's name."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Int64[Tensor, " m"]) -> Images:
        """Those images, in that order."""
        return Images(self.images[index], self.labels[index], self.classes)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: choose on validation, read test once. `source` tells where its files were found."""

    train: Images
    validation: Images
    test: Images
    name: str
    source: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each occurs in every split."""
        return len(self.train.classes)

    @property
    def in_chans(self) -> int:
        """Channels of each image: 1 or 3."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of each image in pixels."""
        return self.train.images.shape[-1]

    def fingerprint(self) -> str:
        """Of all images and labels in their order, 16 hexadecimal digits of SHA-256."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            digest.update(repr(tuple(part.images.shape)).encode())
            digest.update(part.images.contiguous().numpy().data)
            digest.update(part.labels.contiguous().numpy().data)
        return digest.hexdigest()[:16]
