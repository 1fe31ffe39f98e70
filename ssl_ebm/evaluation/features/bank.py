"""The bank: features of a frozen encoder, extracted once and kept in faiss files that every probe reads."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from tqdm import tqdm

SPLITS = ("train", "validation", "test")


def extract(
    encode: Callable[[Tensor], Tensor],
    images: UInt8[Tensor, "n c h w"],
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    desc: str = "features",
) -> Float32[np.ndarray, "n d"]:
    """Features of clean images, without gradients and in the images' order; a terminal shows a progress bar.

    Args:
        encode: Gives features [batch, d] of float images [batch, c, h, w] in [0, 1] on `device`. It normalises them and
            is in eval mode, so that a feature does not depend on the images beside it.
        images: In [0, 255].
        batch_size: Images in work at a time.
        device: Where `encode` computes.
        desc: Name of the progress bar.

    Raises:
        ValueError: If there are no images, or `encode` does not give one feature vector an image.
    """
    if len(images) == 0:
        raise ValueError("images must hold at least one image, got 0")
    features: list[np.ndarray] = []
    with torch.inference_mode():
        for batch in tqdm(images.split(batch_size), desc=desc, unit="batch", leave=False, disable=None):
            output = encode(batch.to(device).float() / 255)
            if output.ndim != 2 or len(output) != len(batch):
                raise ValueError(
                    f"encode must give features of shape [{len(batch)}, dim] for {len(batch)} images, got "
                    f"{list(output.shape)}: pool its output"
                )
            features.append(output.float().cpu().numpy())
    return np.concatenate(features)


def check_features(
    features: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, " m"], classes: int, split: str
) -> None:
    """Refuses features and labels that no probe can judge.

    Raises:
        ValueError: If the split is empty, lengths differ, a label is not in 0 .. classes - 1, or a feature vector's
            squared norm is not finite in float32.
    """
    if len(features) == 0:
        raise ValueError(f"the {split} split must hold at least one image, got 0")
    if len(features) != len(labels):
        raise ValueError(f"the {split} split must have a label for each image, got {len(features)} and {len(labels)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels of the {split} split must lie in 0 .. {classes - 1}, got {labels.min()} .. {labels.max()}"
        )
    bad = ~np.isfinite(np.einsum("nd,nd->n", features, features))  # no copy, so a memory-mapped bank may be checked
    if bad.any():
        raise ValueError(
            f"features of the {split} split must be finite, got NaN, infinity or overflow in {bad.sum()} of {len(bad)} "
            f"rows, the first row {bad.argmax()}: the encoder has diverged, evaluate an earlier checkpoint"
        )


@dataclass(frozen=True, eq=False)
class Split:
    """Raw features of the images of one split, and their labels; `Bank` checks that they belong together."""

    features: Float32[np.ndarray, "n d"]
    labels: Int64[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False, kw_only=True)
class Bank:
    """Features of the three splits, and how they came to be.

    Features are raw: a probe that needs unit length or standardised features makes its own copy.

    Args:
        train: What classifiers learn from.
        validation: What chooses their hyper-parameters.
        test: Read once.
        classes: Number of classes, whether or not each occurs in every split.
        protocol: Encoder, layer, data set, seed and the like: anything JSON holds.

    Raises:
        ValueError: If dimensions differ between the splits, or `check_features` refuses one.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    protocol: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dims = {name: getattr(self, name).features.shape[1] for name in SPLITS}
        if len(set(dims.values())) > 1:
            raise ValueError(f"the splits must have one feature dimension, got {dims}: extract them with one encoder")
        for name in SPLITS:
            check_features(getattr(self, name).features, getattr(self, name).labels, self.classes, name)

    def full_train(self) -> Split:
        """Train and validation together: the final classifier learns from both, once all is chosen."""
        splits = (self.train, self.validation)
        return Split(np.concatenate([s.features for s in splits]), np.concatenate([s.labels for s in splits]))

    def save(self, folder: str | Path) -> Path:
        """Writes the bank: `{train,validation,test}.faiss` (IndexFlatIP), `*_labels.npy` and `protocol.json`.

        The files are written beside `folder` and moved there whole: a reader sees the old bank, the new one or none,
        never a mixture.
        """
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            new.mkdir()
            for name in SPLITS:
                split: Split = getattr(self, name)
                index = faiss.IndexFlatIP(split.features.shape[1])
                index.add(np.ascontiguousarray(split.features))
                faiss.write_index(index, str(new / f"{name}.faiss"))
                np.save(new / f"{name}_labels.npy", split.labels)
            description = {
                "classes": self.classes,
                "shapes": {name: list(getattr(self, name).features.shape) for name in SPLITS},
                "protocol": self.protocol,
            }
            (new / "protocol.json").write_text(json.dumps(description, indent=2) + "\n")
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Bank":
        """Reads the bank that `save` wrote.

        Raises:
            FileNotFoundError: If there is no bank in `folder`.
            ValueError: If a file is damaged or the files do not belong together.
        """
        folder = Path(folder)
        if not (folder / "protocol.json").is_file():
            raise FileNotFoundError(f"'{folder}' holds no bank of features: evaluate the run first")
        try:
            description = json.loads((folder / "protocol.json").read_text())
            splits = {name: read_split(folder, name) for name in SPLITS}
            shapes = {name: list(split.features.shape) for name, split in splits.items()}
            if shapes != description["shapes"]:
                raise ValueError(f"shapes are {shapes}, not {description['shapes']}")
            return cls(**splits, classes=description["classes"], protocol=description["protocol"])
        except (RuntimeError, OSError, KeyError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the bank '{folder}' is damaged ({reason}): delete it and evaluate again") from error


def read_split(folder: Path, name: str) -> Split:
    """One split of the bank in `folder`, unchecked.

    Raises:
        RuntimeError: If faiss cannot read its index.
        OSError: If there are no labels.
        ValueError: If the index is of another kind.
    """
    index = faiss.read_index(str(folder / f"{name}.faiss"))
    if not isinstance(index, faiss.IndexFlatIP):
        raise ValueError(f"{name}.faiss is an {type(index).__name__}, not an IndexFlatIP")
    return Split(index.reconstruct_n(0, index.ntotal), np.load(folder / f"{name}_labels.npy", allow_pickle=False))
