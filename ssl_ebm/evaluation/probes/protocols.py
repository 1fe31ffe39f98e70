"""The probes by name, for features of any origin: arrays in, numbers out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int32

from ssl_ebm.data.stratified import stratified_sample
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split
from ssl_ebm.evaluation.probes import few_shot, knn, linear, ridge, sgd
from ssl_ebm.registry import unknown_name

PROTOCOLS: dict[str, Callable[[Bank], dict[str, Any]]] = {
    "knn": knn.knn_evaluate,
    "linear": linear.linear_probe,
    "ridge": ridge.ridge_probe,
    "few_shot": few_shot.few_shot,
    "sgd": sgd.sgd_probe,
}
DESCRIPTIONS = {  # of what each does, for results and reports
    "knn": knn.DESCRIPTION,
    "linear": linear.DESCRIPTION,
    "ridge": ridge.DESCRIPTION,
    "few_shot": few_shot.DESCRIPTION,
    "sgd": sgd.DESCRIPTION,
}
DEFAULT = ("knn", "linear", "ridge", "few_shot")  # protocols, where none are named
PREDICTIONS = {  # where a protocol's results hold test predictions, and their name
    ("knn", "headline"): "knn",
    ("knn", "chosen"): "knn_chosen",
    ("linear", "test"): "linear",
    ("ridge", "test"): "ridge",
    ("sgd", "test"): "sgd",
}
VALIDATION_FRACTION = 0.1  # of train, where no validation split is given


def evaluate_features(
    train: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    test: npt.ArrayLike,
    test_labels: npt.ArrayLike,
    *,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    classes: int | None = None,
    protocols: Sequence[str] = DEFAULT,
    seed: int = 0,
) -> dict[str, Any]:
    """Results of the probes on features of any encoder; test labels choose nothing.

        results = evaluate_features(train, train_labels, test, test_labels)
        results["linear"]["test"]["top1"]

    Gives the results of each protocol by its name, as the functions in `PROTOCOLS` give them; `predictions`, a class
    for each test image by each classifier; `num_features`, `classes` and the `sizes` of the splits.

    Args:
        train: Features [n, d] of any real type.
        train_labels: Classes 0, 1, ... of the same images.
        test: Features [m, d].
        test_labels: Their classes.
        validation: Features and labels that choose hyper-parameters; None: 10% of train, stratified.
        classes: Number of classes; None: the largest training label + 1.
        protocols: Of `PROTOCOLS`; `sgd` takes minutes.
        seed: Of the validation split.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, a label is out of its range, there is one class only,
            a class has one training image and `validation` is not given, or a protocol is unknown.
        TypeError: If features are not real numbers or labels are not integers.
    """
    bank = make_bank(train, train_labels, test, test_labels, validation=validation, classes=classes, seed=seed)
    results, predictions = evaluate_bank(bank, protocols)
    return results | {
        "predictions": predictions,
        "num_features": bank.train.features.shape[1],
        "classes": bank.classes,
        "sizes": {name: len(getattr(bank, name)) for name in SPLITS},
    }


def evaluate_bank(
    bank: Bank, protocols: Sequence[str] = DEFAULT
) -> tuple[dict[str, Any], dict[str, Int32[np.ndarray, " test"]]]:
    """Results of each protocol by its name, and the test predictions of the classifiers.

    Raises:
        ValueError: If a protocol is unknown or there are none.
    """
    if not protocols or isinstance(protocols, str):
        raise ValueError(f"protocols must be a list of names, got {protocols!r}; valid: {', '.join(PROTOCOLS)}")
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(unknown_name("protocol", name, PROTOCOLS))
    results = {name: PROTOCOLS[name](bank) for name in protocols}
    predictions = {
        title: np.array(results[name][part].pop("predictions"), dtype=np.int32)
        for (name, part), title in PREDICTIONS.items()
        if name in results
    }
    return results, predictions


def make_bank(
    train: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    test: npt.ArrayLike,
    test_labels: npt.ArrayLike,
    *,
    validation: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    classes: int | None = None,
    seed: int = 0,
    protocol: dict[str, Any] | None = None,
) -> Bank:
    """The bank of these arrays, with a validation split taken off train where none is given.

    Raises:
        ValueError: As `evaluate_features`.
        TypeError: As `evaluate_features`.
    """
    train_split, test_split = _split("train", train, train_labels), _split("test", test, test_labels)
    if (train_split.labels == train_split.labels[0]).all():
        raise ValueError(f"train must hold at least two classes, got class {train_split.labels[0]} only")
    if classes is None:
        classes = int(train_split.labels.max()) + 1
    if validation is None:
        train_split, validation_split = _split_off_validation(train_split, seed)
    else:
        validation_split = _split("validation", *validation)
    return Bank(
        train=train_split, validation=validation_split, test=test_split, classes=classes, protocol=protocol or {}
    )


def _split(name: str, features: npt.ArrayLike, labels: npt.ArrayLike) -> Split:
    """A split of arrays of any type, checked."""
    x, y = np.asarray(features), np.asarray(labels)
    if x.dtype.kind not in "fiu":
        raise TypeError(f"features of the {name} split must be real numbers, got {x.dtype}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels of the {name} split must be integers 0, 1, ..., got {y.dtype}")
    if x.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"the {name} split must have features [n, d] and labels [n], got {list(x.shape)} and {list(y.shape)}"
        )
    if len(x) != len(y) or not len(x):
        raise ValueError(f"the {name} split must have a label for each image, got {len(x)} and {len(y)}")
    if y.min() < 0:
        raise ValueError(f"labels of the {name} split must be integers from 0, got {y.min()}")
    return Split(_float32(x), y.astype(np.int64))


def _float32(x: np.ndarray) -> Float32[np.ndarray, "n d"]:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the bank refuses it
        return np.ascontiguousarray(x, dtype=np.float32)


def _split_off_validation(split: Split, seed: int) -> tuple[Split, Split]:
    """Train and validation, a stratified sample; every class is in both."""
    images = np.bincount(split.labels)
    if (images == 1).any():
        raise ValueError(
            f"class {int((images == 1).argmax())} has one training image, which cannot be in train and validation: "
            "give validation=(features, labels), or leave the class out"
        )
    total = max(1, round(VALIDATION_FRACTION * len(split)))
    validation = stratified_sample(
        torch.from_numpy(split.labels), total, np.random.RandomState(seed), least=1, spare=1
    ).numpy()
    train = np.delete(np.arange(len(split)), validation)
    features, labels = split.features, split.labels
    return Split(features[train], labels[train]), Split(features[validation], labels[validation])
