import json

import numpy as np
import pytest
import torch

from ssl_ebm.evaluation.features.bank import Bank, Split, extract


def images(n=7):
    return torch.randint(0, 256, (n, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def split(n, d=6, seed=0, classes=3):
    random = np.random.default_rng(seed)
    return Split(random.standard_normal((n, d), dtype=np.float32), random.integers(0, classes, n))


def bank(seed=0, **protocol):
    parts = {"train": split(9, seed=seed), "validation": split(5, seed=seed + 1), "test": split(4, seed=seed + 2)}
    return Bank(**parts, classes=3, protocol=protocol)


def assert_equal(a, b):
    for name in ("train", "validation", "test"):
        assert np.array_equal(getattr(a, name).features, getattr(b, name).features)
        assert np.array_equal(getattr(a, name).labels, getattr(b, name).labels)
        assert getattr(b, name).features.dtype == np.float32
    assert (a.classes, a.protocol) == (b.classes, b.protocol)


def test_extract_gives_images_in_unit_range_and_in_order():
    x = images()
    features = extract(lambda batch: batch.flatten(1), x, batch_size=3)
    assert features.dtype == np.float32
    assert np.array_equal(features, x.flatten(1).numpy().astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_extract_is_independent_of_batch_size(batch_size):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    network.eval()
    assert extract(network, images(), batch_size=batch_size) == pytest.approx(extract(network, images()), abs=1e-6)


def test_extract_builds_no_graph_and_casts_to_float32():
    seen = []

    def encode(batch):
        seen.append((torch.is_grad_enabled(), batch.dtype))
        return batch.flatten(1).bfloat16()

    assert extract(encode, images()).dtype == np.float32
    assert seen == [(False, torch.float32)]


def test_extract_refuses_no_images_and_maps():
    with pytest.raises(ValueError, match="at least one image"):
        extract(lambda x: x.flatten(1), images()[:0])
    with pytest.raises(ValueError, match=r"\[7, dim\].*\[7, 3, 4, 5\].*pool"):
        extract(lambda x: x, images())
    with pytest.raises(ValueError, match=r"\[7, dim\].*\[1, 60\]"):
        extract(lambda x: x.flatten(1)[:1], images())


def test_bank_round_trips_exactly(tmp_path):
    original = bank(encoder="resnet18", seed=3)
    folder = original.save(tmp_path / "run" / "features")
    assert_equal(original, Bank.load(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["protocol.json"] + [f"{s}{end}" for s in ("train", "validation", "test") for end in (".faiss", "_labels.npy")]
    )


def test_saving_again_replaces_the_bank_and_leaves_nothing_else(tmp_path):
    bank(0).save(tmp_path / "features")
    bank(7).save(tmp_path / "features")
    assert_equal(bank(7), Bank.load(tmp_path / "features"))
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_a_failed_save_keeps_the_old_bank(tmp_path):
    bank(0).save(tmp_path / "features")
    with pytest.raises(TypeError):
        bank(7, encoder=object()).save(tmp_path / "features")
    assert_equal(bank(0), Bank.load(tmp_path / "features"))
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_loading_nothing_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="evaluate the run first"):
        Bank.load(tmp_path)


def truncate(folder):
    data = (folder / "test.faiss").read_bytes()
    (folder / "test.faiss").write_bytes(data[: len(data) // 2])


def swap(folder):
    (folder / "train.faiss").rename(folder / "x")
    (folder / "test.faiss").rename(folder / "train.faiss")
    (folder / "x").rename(folder / "test.faiss")


def mix(folder):
    for end in (".faiss", "_labels.npy"):
        (folder / f"test{end}").write_bytes((folder / f"train{end}").read_bytes())


def shorten_labels(folder):
    np.save(folder / "train_labels.npy", np.zeros(3, dtype=np.int64))


def pickle_labels(folder):
    np.save(folder / "train_labels.npy", np.array([object()] * 9), allow_pickle=True)


def change_classes(folder):
    about = json.loads((folder / "protocol.json").read_text())
    (folder / "protocol.json").write_text(json.dumps(about | {"classes": 1}))


def remove_index(folder):
    (folder / "validation.faiss").unlink()


def break_protocol(folder):
    (folder / "protocol.json").write_text('{"classes": 3')


@pytest.mark.parametrize(
    "damage", [truncate, swap, mix, shorten_labels, pickle_labels, change_classes, remove_index, break_protocol]
)
def test_loading_a_damaged_bank_is_refused(tmp_path, damage):
    folder = bank().save(tmp_path / "features")
    damage(folder)
    with pytest.raises(ValueError, match="damaged .*: delete it and evaluate again"):
        Bank.load(folder)


def test_full_train_is_train_then_validation():
    b = bank()
    full = b.full_train()
    assert len(full) == 14
    assert np.array_equal(full.features[9:], b.validation.features)
    assert np.array_equal(full.labels[:9], b.train.labels)


def test_bank_refuses_what_cannot_be_evaluated():
    good = {"train": split(9), "validation": split(5), "test": split(4), "classes": 3}
    with pytest.raises(ValueError, match="one feature dimension"):
        Bank(**good | {"test": split(4, d=5)})
    with pytest.raises(ValueError, match="train split must hold at least one image"):
        Bank(**good | {"train": split(0)})
    with pytest.raises(ValueError, match=r"validation split must lie in 0 \.\. 2, got .*\.\. 5"):
        Bank(**good | {"validation": Split(split(5).features, np.arange(1, 6))})
    with pytest.raises(ValueError, match="a label for each image, got 5 and 4"):
        Bank(**good | {"test": Split(split(5).features, np.zeros(4, dtype=np.int64))})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_bank_refuses_features_that_are_not_finite(value):
    broken = split(9)
    broken.features[4, 2] = value
    with pytest.raises(ValueError, match="train split must be finite.*1 of 9 rows, the first row 4"):
        Bank(train=broken, validation=split(5), test=split(4), classes=3)
