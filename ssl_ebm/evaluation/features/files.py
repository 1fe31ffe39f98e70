"""Features and labels that other programs left in files of numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_ebm.data.stratified import stratified_sample

TEST_FRACTION = 0.2  # of the features in an .npy, which has no test split


def read_features(path: str | Path, labels: str | Path | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of features and labels by split, and a description of their origin for the results.

    An .npz holds `train`, `train_labels`, `test`, `test_labels`, and `validation` with `validation_labels` where there
    are any. An .npy holds one array [n, d], with labels [n] in another .npy: a fifth of it, stratified, is the test
    split. Nothing in a file is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Another kind of file, or an array that is missing or does not fit.
    """
    path = Path(path)
    if path.suffix == ".npz":
        if labels is not None:
            raise ValueError(f"{path} holds its own labels: leave out --labels, or give features as .npy")
        return _read_npz(path), {"features": str(path)}
    if path.suffix == ".npy":
        features = _read_npy(path)
        if labels is None:
            raise ValueError(f"{path} holds no labels: give --labels FILE.npy, or an .npz with train and test")
        test = f"{TEST_FRACTION:.0%} of the features, stratified, seed 0"
        return _split_off_test(features, _read_npy(Path(labels))), {"features": str(path), "test": test}
    raise ValueError(f"features must be a file ending in .npz or .npy, got {str(path)!r}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"no features at {path}: give an .npz or .npy file") from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}): save it with numpy.savez") from error
    needed = ["train", "train_labels", "test", "test_labels"]
    needed += ["validation", "validation_labels"] if {"validation", "validation_labels"} & set(arrays) else []
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it holds {', '.join(arrays) or 'nothing'}")
    return arrays


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"no array at {path}: give an .npy file") from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}): save it with numpy.save") from error


def _split_off_test(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    if len(features) != len(labels) or labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any():
        raise ValueError(
            f"labels must be one integer from 0 for each of {len(features)} features, got {labels.dtype} of shape "
            f"{list(labels.shape)}"
        )
    total = round(TEST_FRACTION * len(labels))
    test = stratified_sample(
        torch.from_numpy(labels.astype(np.int64)), total, np.random.RandomState(0), least=1, spare=1
    ).numpy()
    train = np.delete(np.arange(len(labels)), test)
    return {
        "train": features[train],
        "train_labels": labels[train],
        "test": features[test],
        "test_labels": labels[test],
    }
