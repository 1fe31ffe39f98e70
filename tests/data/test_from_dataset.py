"""Images that the user brings become splits: of which parts, with which values, and what is refused."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.data.from_dataset import to_images
from ssl_ebm.data.image_files import DataError
from ssl_ebm.data.splits import Images, Splits

MINE = DataConfig(name="mine", external=True)


def pixels(count=60, *, channels=1, size=6):
    """Every image is one value, its position."""
    values = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return values.expand(count, channels, size, size).clone()


LABELS = torch.arange(60) % 3


class Items:
    """A data set without a base class."""

    classes = ("a", "b", "c", "d")

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    "data",
    [
        (pixels(), LABELS),
        (pixels().numpy(), LABELS.numpy().astype(np.int16)),
        (pixels().double() / 255, LABELS.tolist()),
        TensorDataset(pixels(), LABELS),
        TensorDataset(pixels().float() / 255, LABELS),
        Items(*((image.numpy(), int(label)) for image, label in zip(pixels(), LABELS, strict=True))),
        lambda: (pixels(), LABELS),
    ],
    ids=["tensors", "arrays", "doubles", "dataset", "floats", "items", "function"],
)
def test_every_form_gives_the_same_splits(data):
    splits = load_data(MINE, data)
    assert {name: len(getattr(splits, name)) for name in ("train", "validation", "test")} == {
        "train": 43,
        "validation": 5,
        "test": 12,
    }
    rows = torch.cat([getattr(splits, name).images[:, 0, 0, 0] for name in ("train", "validation", "test")])
    assert sorted(rows.tolist()) == list(range(60)), "each image is in one split"
    for part in (splits.train, splits.validation, splits.test):
        assert torch.equal(part.labels, part.images[:, 0, 0, 0].long() % 3)
    assert splits.test.labels.bincount().tolist() == [4, 4, 4], "stratified"
    assert splits.fingerprint() == load_data(MINE, (pixels(), LABELS)).fingerprint()


def test_classes_are_named_where_the_data_set_names_them():
    items = [(image, int(label)) for image, label in zip(pixels(), LABELS, strict=True)]
    assert load_data(MINE, Items(*items)).train.classes == ("a", "b", "c", "d")
    assert load_data(MINE, (pixels(), LABELS)).train.classes == ("0", "1", "2")


@pytest.mark.parametrize("data", [pixels(), Items(*pixels())], ids=["array", "items"])
def test_images_without_labels_are_of_one_class(data):
    splits = load_data(MINE, data)
    assert splits.num_classes == 1 and not splits.train.labels.any() and len(splits.train) == 43


def test_limit_and_size_apply():
    config = DataConfig(name="mine", external=True, limit=20, image_size=3)
    splits = load_data(config, (pixels(), LABELS))
    assert len(splits.train) <= 21 and splits.image_size == 3
    wide = torch.zeros(30, 3, 4, 8, dtype=torch.uint8)
    assert load_data(config, (wide, torch.arange(30) % 2)).train.images.shape[1:] == (3, 3, 3)
    with pytest.raises(DataError, match="images must be square, got 4×8: set data.image_size"):
        load_data(MINE, (wide, torch.arange(30) % 2))


def test_splits_are_taken_as_they_are():
    parts = [Images(pixels()[i::3], LABELS[i::3], ("a", "b", "c")) for i in range(3)]
    splits = load_data(MINE, Splits(*parts, name="theirs"))
    for mine, theirs in zip((splits.train, splits.validation, splits.test), parts, strict=True):
        assert torch.equal(mine.images, theirs.images) and torch.equal(mine.labels, theirs.labels)
    assert splits.name == "mine"


def test_a_fingerprint_is_of_images_labels_and_their_order():
    splits = load_data(MINE, (pixels(), LABELS))
    others = [(pixels().flip(0), LABELS), (pixels(), (LABELS + 1) % 3), (pixels() + 1, LABELS)]
    prints = {load_data(MINE, other).fingerprint() for other in others} | {splits.fingerprint()}
    assert len(prints) == 4
    kept = DataConfig(name="mine", external=True, fingerprint=splits.fingerprint())
    assert len(load_data(kept, (pixels(), LABELS)).train) == 43
    with pytest.raises(ValueError, match="data mine has other images or labels than the run was made with"):
        load_data(kept, others[0])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("images", TypeError, "item 0 holds a str"),
        (3, TypeError, "data must be Splits, a map-style torch Dataset, or arrays"),
        (Items(), DataError, "the data set is empty"),
        (torch.zeros(4, 6, 6), DataError, r"an image must be \[channels, height, width\], got \[6, 6\]"),
        (torch.full((4, 1, 6, 6), 1.5), DataError, r"must be uint8, or floating point in \[0, 1\]"),
        (torch.zeros(4, 1, 6, 6, dtype=torch.int64), DataError, "must be uint8"),
        ((pixels(), LABELS[:5]), DataError, r"an integer from 0 for each of 60 images, got \[5\]"),
        ((pixels(), LABELS - 1), DataError, "an integer from 0"),
        ((pixels(), LABELS / 2), DataError, "labels must be integers from 0"),
        (
            Items(pixels()[0], pixels(size=7)[0]),
            DataError,
            r"image 1 is \[1, 7, 7\] and others are \[1, 6, 6\]: resize",
        ),
    ],
)
def test_other_data_are_refused(data, kind, message):
    with pytest.raises(kind, match=message):
        to_images(data)


def test_built_in_data_take_no_arguments():
    with pytest.raises(ValueError, match="data.kwargs are arguments of a function of your own"):
        load_data(DataConfig(kwargs={"count": 3}))
    with pytest.raises(ValueError, match="did you mean 'fashion_mnist'"):
        DataConfig(name="fashion_mnst")
