"""Data sets, held in memory as uint8 tensors and split into train, validation and test."""

import http.client
import os
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torchvision import datasets

from ssl_ebm.data.from_dataset import to_images
from ssl_ebm.data.image_files import DataError, check_memory, class_files, find_idx, read_idx, read_images
from ssl_ebm.data.resize import resize
from ssl_ebm.data.splits import Images, Splits
from ssl_ebm.data.stratified import stratified_sample
from ssl_ebm.registry import unknown_name
from ssl_ebm.user_code import entry_points, is_external

SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
TEST_FRACTION = 0.2  # of the training images, for a folder that has no test images
DOWNLOAD_TIMEOUT_SECONDS = 20.0  # without an answer; torchvision itself would wait for ever


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to learn from.

    Args:
        name: A key of `DATASETS`, an entry point of the group `ssl_ebm.data`, or `package.module:function`.
        root: Where data sets lie or are downloaded to; for `folder`, the folder itself.
        image_size: Images are resized (antialiased) to this height and width. None keeps the data set's own size; a
            folder has none and needs it.
        validation_fraction: Part of the training images held out for validation, where the data set has no such split.
        split_seed: Seeds the validation split and `limit`, apart from all other randomness.
        limit: Keeps so many training images, and a fifth of that for each of validation and test
            (but at least 10 a class, where there are as many), all stratified.
        download: Whether a data set that is not on this machine may be fetched.
        kwargs: Arguments of the function that `name` stands for; built-in data sets take none.
        external: Whether the images are the user's, and come beside the config.
        fingerprint: Of the user's images and labels; the run fills it in, and takes no others from then on.

    Raises:
        ValueError: If a value is out of its range or the name is unknown.
    """

    name: str = "fashion_mnist"
    root: str = "data"
    image_size: int | None = None
    validation_fraction: float = 0.1
    split_seed: int = 0
    limit: int | None = None
    download: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    external: bool = False
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not is_external(self) and self.name not in DATASETS:
            installed = entry_points("data")
            if self.name not in installed:
                raise ValueError(unknown_name("data set", self.name, [*DATASETS, *installed]))
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction}")
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must lie in 0 .. 2**32 - 1, got {self.split_seed}")
        for key, value in (("image_size", self.image_size), ("limit", self.limit)):
            if value is not None and value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}")
        if self.name == "folder" and self.image_size is None:
            raise ValueError("image_size must be given for a folder of images, for example image_size=64")


def load_data(config: DataConfig, data: Any = None) -> Splits:
    """Loads a data set whole, splits it and applies `limit`.

    Args:
        config: Which, and how it is split.
        data: What `to_images` takes, or a function that returns it, called with `config.kwargs`; where `config` names
            code of the user's.

    Raises:
        DataError: If it is not found, is damaged, has too few images, or does not fit in memory.
        ValueError: If `limit` is less than the number of classes, or the images are not those that a run was made with.
    """
    if data is None and is_external(config):
        raise ValueError(f"the images of {config.name} come beside the config: give data=")
    if data is None and config.name in DATASETS:
        if config.kwargs:
            raise ValueError(f"data.kwargs are arguments of a function of your own, and {config.name} is built in")
        return DATASETS[config.name](config)
    source = entry_points("data")[config.name].load() if data is None else data
    images = source(**config.kwargs) if callable(source) else source
    splits = _splits(to_images(images), config, config.name)
    if config.fingerprint not in ("", splits.fingerprint()):
        raise ValueError(
            f"data {config.name} has other images or labels than the run was made with: give the same data="
        )
    return splits


def _split(labels: Int64[Tensor, " n"], parts: dict[str, Tensor], config: DataConfig) -> dict[str, Tensor]:
    """Takes a missing test or validation part off train, then applies the limit; parts are positions in `labels`."""
    random = np.random.RandomState(config.split_seed)  # its stream is the same in every version of NumPy (NEP 19)
    parts = dict(parts)
    for name, fraction in (("test", TEST_FRACTION), ("validation", config.validation_fraction)):
        if name not in parts:
            train = parts["train"]
            held_out = stratified_sample(labels[train], max(1, round(fraction * len(train))), random, spare=1)
            if len(held_out) == 0:
                raise DataError(f"'{config.root}' has one image a class to train on and none left for {name}: add some")
            kept = torch.ones(len(train), dtype=torch.bool)
            kept[held_out] = False
            parts |= {"train": train[kept], name: train[held_out]}
    if config.limit is not None:
        num_classes = len(labels[parts["train"]].unique())
        if config.limit < num_classes:
            raise ValueError(f"limit must be at least the number of classes, {num_classes}, got {config.limit}")
        fifth = config.limit // 5
        for name, total, least in (("train", config.limit, 1), ("validation", fifth, 10), ("test", fifth, 10)):
            parts[name] = parts[name][stratified_sample(labels[parts[name]], total, random, least=least)]
    return parts


def _splits(parts: dict[str, Images], config: DataConfig, source: str) -> Splits:
    """Splits images that are in memory, and resizes them where asked."""
    images, labels = (torch.cat([getattr(part, name) for part in parts.values()]) for name in ("images", "labels"))
    height, width = images.shape[-2:]
    if height != width and config.image_size is None:
        raise DataError(f"images must be square, got {height}×{width}: set data.image_size, which resizes them")
    size = config.image_size or width
    positions = dict(zip(parts, torch.arange(len(labels)).split([len(part) for part in parts.values()]), strict=True))
    positions = _split(labels, positions, config)
    check_memory(sum(map(len, positions.values())), images.shape[1], size)
    splits = {}
    for name, rows in positions.items():
        splits[name] = Images(resize(images[rows], size), labels[rows], parts["train"].classes)
    return Splits(**splits, name=config.name, source=source)


def _idx_folders(config: DataConfig, torchvision_name: str) -> list[Path]:
    """Folders in which an MNIST-like data set may lie: in the data folder, else where system packages put data sets."""
    root = Path(config.root).expanduser()
    shares = [share for share in os.environ.get("XDG_DATA_DIRS", "").split(os.pathsep) if share]
    prefixes = [os.environ.get("CONDA_PREFIX", sys.prefix), sys.prefix, sys.base_prefix, "/usr/local", "/usr"]
    shares += [f"{prefix}/share" for prefix in prefixes]
    packages = [Path(share) / "datasets" / config.name.replace("_", "-") for share in shares]
    return [root / config.name, root / torchvision_name / "raw", *packages]


def _load_idx(config: DataConfig, dataset: type[datasets.MNIST]) -> Splits:
    folders = _idx_folders(config, dataset.__name__)
    files = next(filter(None, map(find_idx, folders)), None)
    if files is None:
        package = ", or run 'apt install dataset-fashion-mnist'" if config.name == "fashion_mnist" else ""
        remedy = f"put its four files (train-images-idx3-ubyte.gz, ...) into '{folders[0]}'{package}"
        return _load_torchvision(config, dataset, {"train": True}, {"train": False}, remedy)
    parts = []
    for image_file, label_file in (files[:2], files[2:]):
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1).long()
        if len(images) != len(labels):
            raise DataError(f"'{label_file}' has {len(labels)} labels for {len(images)} images: replace both files")
        if labels.max() >= len(dataset.classes):
            raise DataError(f"'{label_file}' has a label {labels.max()} that is no class: replace it by a fresh copy")
        parts.append(Images(images.unsqueeze(1), labels, tuple(dataset.classes)))
    return _splits({"train": parts[0], "test": parts[1]}, config, str(files[0].parent))


def _load_torchvision(
    config: DataConfig, dataset: Callable[..., Any], train: dict[str, Any], test: dict[str, Any], remedy: str = ""
) -> Splits:
    parts = []
    for arguments in (train, test):
        loaded = _build_torchvision(config, dataset, arguments, remedy or f"unpack its archive in '{config.root}'")
        images = np.asarray(loaded.data)
        if images.ndim == 3:
            images = images[:, None]
        elif images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)
        labels = torch.as_tensor(loaded.targets if hasattr(loaded, "targets") else loaded.labels).long()
        classes = tuple(getattr(loaded, "classes", "0123456789"))
        parts.append(Images(torch.from_numpy(np.ascontiguousarray(images)), labels, classes))
    return _splits({"train": parts[0], "test": parts[1]}, config, config.root)


def _build_torchvision(config: DataConfig, dataset: Callable[..., Any], arguments: dict[str, Any], remedy: str) -> Any:
    """A data set of torchvision, downloaded where needed; whatever stops that becomes one `DataError`."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"dtype\(\): align")  # NumPy 2.4.0 to 2.4.4, of CIFAR's old pickles
            return dataset(Path(config.root).expanduser(), download=config.download, **arguments)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        online = f"go online ({' '.join(str(error).split())})" if config.download else "set download=true"
        raise DataError(f"{config.name} is missing or damaged: {remedy}, or {online}") from error
    finally:
        socket.setdefaulttimeout(timeout)


def _load_folder(config: DataConfig) -> Splits:
    """A folder of images: root/CLASS/IMAGE, or root/train/CLASS/IMAGE with root/val (valid, validation) and root/test.

    A missing part is split off train: test first, a fifth; then validation. Only where there is val and no test, val
    is the test set, as in ImageNet. Class folders are searched whole; hidden files and empty classes are ignored.
    """
    root, size = Path(config.root).expanduser(), config.image_size
    assert size is not None
    files, labels, parts, classes = _list_folder(root)
    parts = _split(labels, parts, config)
    rows = torch.cat(list(parts.values()))
    check_memory(len(rows), 3, size)
    images, readable = read_images([files[row] for row in rows.tolist()], size)
    counts = [int(part.sum()) for part in readable.split([len(part) for part in parts.values()])]
    if 0 in counts:
        raise DataError(f"no {list(parts)[counts.index(0)]} image in '{root}' can be read: replace the broken files")
    pieces = zip(parts, images.split(counts), labels[rows[readable]].split(counts), strict=True)
    return Splits(**{part: Images(x, y, classes) for part, x, y in pieces}, name=config.name, source=config.root)


def _list_folder(root: Path) -> tuple[list[Path], Int64[Tensor, " n"], dict[str, Tensor], tuple[str, ...]]:
    """The files of a folder, their labels, the positions of each part that it has, and the names of the classes."""
    listed = {part: classes for name, part in SPLIT_FOLDERS.items() if (classes := class_files(root / name))}
    if "train" not in listed:
        listed = {"train": class_files(root)}
    elif "validation" in listed and "test" not in listed:
        listed["test"] = listed.pop("validation")
    names = tuple(listed["train"])
    if not names:
        raise DataError(
            f"'{root}' has no images in class folders: lay them out as {root}/CLASS/IMAGE or {root}/train/CLASS/IMAGE "
            "(without labels, all in one class folder)"
        )
    files: list[Path] = []
    labels: list[int] = []
    parts = {}
    for part, by_class in listed.items():
        start = len(files)
        for name, paths in by_class.items():
            if name not in names:
                raise DataError(f"class '{name}' has {part} images but none to train on: add some or remove it")
            files += paths
            labels += [names.index(name)] * len(paths)
        parts[part] = torch.arange(start, len(files))
    return files, torch.tensor(labels), parts, names


DATASETS: dict[str, Callable[[DataConfig], Splits]] = {
    "fashion_mnist": partial(_load_idx, dataset=datasets.FashionMNIST),
    "mnist": partial(_load_idx, dataset=datasets.MNIST),
    "cifar10": partial(_load_torchvision, dataset=datasets.CIFAR10, train={"train": True}, test={"train": False}),
    "cifar100": partial(_load_torchvision, dataset=datasets.CIFAR100, train={"train": True}, test={"train": False}),
    "svhn": partial(_load_torchvision, dataset=datasets.SVHN, train={"split": "train"}, test={"split": "test"}),
    "stl10": partial(_load_torchvision, dataset=datasets.STL10, train={"split": "train"}, test={"split": "test"}),
    "folder": _load_folder,
}


def main() -> int:
    """Finds or fetches Fashion-MNIST and says where it is; the exit status is 1 if there is none."""
    try:
        data = load_data(DataConfig())
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    counts = f"{len(data.train):,} train, {len(data.validation):,} validation and {len(data.test):,} test images"
    print(f"{data.name}: {counts} of {data.num_classes} classes, from {data.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
