"""Images that the user brings, as the library holds them: a data set of torch's, arrays, or splits."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from tqdm import tqdm

from ssl_ebm.data.image_files import DataError, check_memory
from ssl_ebm.data.splits import Images, Splits


@runtime_checkable
class ImageDataset(Protocol):
    """A map-style `torch.utils.data.Dataset`.

    An item is an image, or a pair of an image and its label. Images are [channels, height, width], all of one shape,
    uint8 or floating point in [0, 1]; labels are integers from 0. Names of the classes are read from `classes`, where
    there is such an attribute. Items are read once, so augmentation belongs into views and not into `__getitem__`.
    """

    def __len__(self) -> int:
        """How many items."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Item 0, ..., len - 1."""
        ...


def to_images(data: Any) -> dict[str, Images]:
    """The parts that the data come in: those of `Splits`, or all in "train", to be split.

    Args:
        data: `Splits`; an `ImageDataset`; or arrays, of images alone or a pair (images, labels): images
            [n, channels, height, width], uint8 or floating point in [0, 1], and labels [n], integers from 0. Without
            labels all images are of one class.

    Raises:
        DataError: There is no image, images differ in shape, or a value is out of its range.
        TypeError: It is none of these.
    """
    if isinstance(data, Splits):
        return {"train": data.train, "validation": data.validation, "test": data.test}
    if isinstance(data, (Tensor, np.ndarray)):
        data = (data, None)
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], (Tensor, np.ndarray)):
        images, labels = data
        return {"train": _labelled(_as_bytes(torch.as_tensor(images)), labels, None)}
    if not isinstance(data, ImageDataset):
        raise TypeError(
            f"data must be Splits, a map-style torch Dataset, or arrays (images, labels), got {type(data).__name__}"
        )
    return {"train": _read(data)}


def _read(dataset: ImageDataset) -> Images:
    """All items of a data set."""
    if len(dataset) == 0:
        raise DataError("the data set is empty: it needs images to train on")
    images, labels = None, []
    for i in tqdm(range(len(dataset)), desc="reading the data", disable=None, leave=False):
        item = dataset[i]
        image, label = item if isinstance(item, (tuple, list)) else (item, None)
        if not isinstance(image, (Tensor, np.ndarray)):
            raise TypeError(f"item {i} holds a {type(image).__name__}: make it a tensor, e.g. by PILToTensor()")
        image = _as_bytes(torch.as_tensor(image)[None])
        if images is None:
            check_memory(len(dataset), image.shape[1], image.shape[-1])
            images = torch.empty((len(dataset), *image.shape[1:]), dtype=torch.uint8)
        if image.shape[1:] != images.shape[1:]:
            raise DataError(
                f"image {i} is {list(image.shape[1:])} and others are {list(images.shape[1:])}: resize them"
            )
        images[i] = image[0]
        labels.append(label)
    assert images is not None
    return _labelled(images, None if labels[0] is None else labels, getattr(dataset, "classes", None))


def _as_bytes(images: Tensor) -> UInt8[Tensor, "n c h w"]:
    if images.ndim != 4:
        raise DataError(f"an image must be [channels, height, width], got {list(images.shape[1:])}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise DataError(f"images must be uint8, or floating point in [0, 1], got {images.dtype} beyond that")
    return (images * 255).round().to(torch.uint8)


def _labelled(images: UInt8[Tensor, "n c h w"], labels: Any, classes: Any) -> Images:
    if labels is None:
        return Images(images, torch.zeros(len(images), dtype=torch.long), ("unlabelled",))
    values = _whole_numbers(labels)
    if values.shape != (len(images),) or len(images) == 0 or values.min() < 0:
        raise DataError(f"labels must be an integer from 0 for each of {len(images)} images, got {list(values.shape)}")
    count = int(values.max()) + 1
    named = classes is not None and len(classes) >= count
    return Images(images, values, tuple(map(str, classes if named else range(count))))


def _whole_numbers(labels: Any) -> Int64[Tensor, ...]:
    values = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    if values.is_floating_point() or values.is_complex():
        raise DataError(f"labels must be integers from 0, got {values.dtype}")
    return values.long()
