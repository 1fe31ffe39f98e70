import functools
import gzip
import http.server
import pickle
import socket
import struct
import tarfile
import threading
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from ssl_ebm.data import datasets as data
from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.data.image_files import DataError, read_idx, read_image
from ssl_ebm.data.splits import Splits
from ssl_ebm.data.stratified import stratified_sample

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx_set(folder: Path, train: int = 200, test: int = 50, offset: int = 0, suffix: str = ".gz") -> Path:
    """An MNIST-like data set: labels run 0, 1, .., 9, 0, ..; every pixel of an image is its row plus `offset`."""
    folder.mkdir(parents=True)
    for n, names in ((train, IDX_NAMES[:2]), (test, IDX_NAMES[2:])):
        rows = np.arange(n)
        arrays = (np.broadcast_to(rows[:, None, None] + offset, (n, 28, 28)), rows % 10)
        for name, array in zip(names, arrays, strict=True):
            content = idx_bytes(array)
            (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return folder


def write_folder(root: Path, counts: dict[str, int], colour: bool = True) -> Path:
    """Class folders of 8x8 PNG files: the first channel is the image's number in its class, the second its class."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.broadcast_to(np.uint8([i, 100 + label, 255]), (8, 8, 3))
            Image.fromarray(pixels if colour else pixels[..., 0].copy()).save(root / name / f"{i:03}.png")
    return root


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def folder_config(root: Path, image_size: int = 8, limit: int | None = None) -> DataConfig:
    return DataConfig(name="folder", root=str(root), image_size=image_size, limit=limit)


def error_of(config: DataConfig) -> str:
    with pytest.raises(DataError) as error:
        load_data(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the data sets that this machine's packages have installed."""
    folders = data._idx_folders
    monkeypatch.setattr(data, "_idx_folders", lambda config, name: folders(config, name)[:2])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/", folder
        web.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fashionmnist"}, "unknown data set 'fashionmnist': did you mean 'fashion_mnist'"),
        ({"name": "xyz"}, "unknown data set 'xyz'; valid: cifar10"),
        ({"validation_fraction": 0.0}, "validation_fraction must lie between 0 and 1, got 0.0"),
        ({"validation_fraction": 1.0}, "validation_fraction must lie between 0 and 1, got 1.0"),
        ({"split_seed": -1}, "split_seed must lie in 0 .. 2**32 - 1, got -1"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"name": "folder"}, "image_size must be given for a folder of images, for example image_size=64"),
    ],
)
def test_a_wrong_configuration_names_value_and_remedy(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        DataConfig(**arguments)
    assert str(error.value).startswith(message)


# Stratified samples


def random_labels(seed: int) -> torch.Tensor:
    random = np.random.RandomState(seed)
    return torch.from_numpy(random.permutation(np.repeat(np.arange(7), random.randint(1, 60, size=7))))


@pytest.mark.parametrize("seed", range(10))
def test_a_sample_is_exact_and_proportional(seed: int) -> None:
    labels = random_labels(seed)
    for total in (0, 1, 10, len(labels) // 2, len(labels)):
        index = stratified_sample(labels, total, np.random.RandomState(seed))
        assert len(index) == total
        assert (index.diff() > 0).all()
        share = labels.bincount(minlength=7) * total / len(labels)
        assert ((labels[index].bincount(minlength=7) - share).abs() < 1).all()


@pytest.mark.parametrize("seed", range(10))
def test_a_sample_keeps_its_bounds(seed: int) -> None:
    labels = random_labels(seed)
    most = labels.bincount(minlength=7) - 1
    lowest = most.clamp(max=5)
    for total in (1, 30, 100, len(labels)):
        index = stratified_sample(labels, total, np.random.RandomState(seed), least=5, spare=1)
        got = labels[index].bincount(minlength=7)
        assert ((lowest <= got) & (got <= most)).all()
        assert len(index) == min(max(total, int(lowest.sum())), int(most.sum()))


def test_samples_of_one_seed_are_nested_and_never_change() -> None:
    labels = torch.arange(100) % 4
    small, large = (stratified_sample(labels, total, np.random.RandomState(0)) for total in (12, 40))
    assert small.tolist() == [2, 16, 24, 26, 53, 55, 73, 75, 86, 92, 93, 95]
    assert set(small.tolist()) < set(large.tolist())
    assert not torch.equal(small, stratified_sample(labels, 12, np.random.RandomState(1)))


# MNIST-like files


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2)])
def test_idx_round_trips(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    array = np.random.RandomState(0).randint(0, 256, size=shape)
    content = idx_bytes(array)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_idx(tmp_path / name, len(shape)).tolist() == array.tolist()


GOOD = idx_bytes(np.arange(400) % 256)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", GOOD[:-1], "holds 399 bytes, not (400,)"),
        ("a", GOOD + b"\0", "holds 401 bytes, not (400,)"),
        ("a", idx_bytes(np.zeros(0)), "holds 0 bytes, not (0,)"),
        ("a", GOOD[:7], "is not an idx file of bytes in 1 dimensions"),
        ("a", b"", "is not an idx file"),
        ("a", b"\0\0\x0d\x01" + GOOD[4:], "is not an idx file"),
        ("a", idx_bytes(np.zeros((2, 2, 2))), "is not an idx file"),
        ("a.gz", gzip.compress(GOOD)[:-20], "cannot be read"),
        ("a.gz", gzip.compress(GOOD)[:40] + b"x" * 20 + gzip.compress(GOOD)[60:], "cannot be read"),
        ("a.gz", GOOD, "cannot be read (Not a gzipped file"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path, 1)
    assert str(error.value).startswith(f"'{path}' {message}")
    assert str(error.value).endswith("replace it by a fresh copy")


@pytest.mark.parametrize(("name", "suffix"), [("fashion_mnist", ".gz"), ("mnist", "")])
def test_an_mnist_like_set_is_split_exactly(tmp_path: Path, name: str, suffix: str) -> None:
    folder = write_idx_set(tmp_path / name, suffix=suffix)
    splits = load_data(DataConfig(name=name, root=str(tmp_path)))
    assert (splits.name, splits.source) == (name, str(folder))
    assert (splits.num_classes, splits.in_chans, splits.image_size) == (10, 1, 28)
    assert sizes(splits) == (180, 20, 50)
    rows = [part.images[:, 0, 0, 0].long() for part in (splits.train, splits.validation, splits.test)]
    assert sorted(torch.cat(rows[:2]).tolist()) == list(range(200))
    assert rows[2].tolist() == list(range(50))
    for part, row in zip((splits.train, splits.validation, splits.test), rows, strict=True):
        assert torch.equal(part.labels, row % 10)
        assert part.images.is_contiguous()
    assert splits.validation.labels.bincount().tolist() == [2] * 10


def test_a_split_depends_on_its_seed_alone(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "mnist")

    def validation_rows(global_seed: int, split_seed: int, limit: int | None = None) -> list[int]:
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        config = DataConfig(name="mnist", root=str(tmp_path), split_seed=split_seed, limit=limit)
        return load_data(config).validation.images[:, 0, 0, 0].tolist()

    assert validation_rows(0, 0) == validation_rows(1, 0) == validation_rows(2, 0, limit=100)
    assert validation_rows(0, 0) != validation_rows(0, 1)


def test_limit_is_stratified_and_leaves_ten_test_images_a_class(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "mnist", train=250, test=250)

    def limited(limit: int) -> Splits:
        return load_data(DataConfig(name="mnist", root=str(tmp_path), limit=limit, validation_fraction=0.2))

    splits = limited(50)
    assert sizes(splits) == (50, 50, 100)  # validation has only 5 a class
    assert splits.train.labels.bincount().tolist() == [5] * 10
    assert splits.test.labels.bincount().tolist() == [10] * 10
    assert sizes(limited(10_000)) == sizes(
        load_data(DataConfig(name="mnist", root=str(tmp_path), validation_fraction=0.2))
    )
    with pytest.raises(ValueError, match="limit must be at least the number of classes, 10, got 9"):
        limited(9)


def test_a_class_of_one_image_stays_in_train(tmp_path: Path) -> None:
    folder = write_idx_set(tmp_path / "mnist")
    labels = np.r_[9, np.zeros(199)]
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    splits = load_data(DataConfig(name="mnist", root=str(tmp_path), validation_fraction=0.9999))
    assert sorted(splits.train.labels.tolist()) == [0, 9]
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(3))))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((3, 28, 28)))))
    assert "one image a class" in error_of(DataConfig(name="mnist", root=str(tmp_path)))


def test_images_are_resized(tmp_path: Path) -> None:
    folder = write_idx_set(tmp_path / "mnist")
    own = load_data(DataConfig(name="mnist", root=str(tmp_path)))
    large = load_data(DataConfig(name="mnist", root=str(tmp_path), image_size=32))
    assert large.image_size == 32 and large.train.images.shape == (180, 1, 32, 32)
    assert torch.equal(large.train.images[:, :, :28, :28], own.train.images)  # constant images stay constant
    stripes = np.broadcast_to((np.arange(28) % 4 == 0) * 255, (50, 28, 28))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(stripes)))
    small = load_data(DataConfig(name="mnist", root=str(tmp_path), image_size=7)).test.images
    assert small.shape == (50, 1, 7, 7) and small.float().mean() == pytest.approx(64, abs=10)  # antialiased: all seen


def test_a_set_that_does_not_fit_in_memory_is_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "mnist")
    message = error_of(DataConfig(name="mnist", root=str(tmp_path), image_size=10**7))
    assert message.startswith("250 images of 1×10000000×10000000 need 23283064.4 GiB of memory and")
    assert message.endswith("are available: lower image_size or limit")


def test_labels_must_match_the_images(tmp_path: Path) -> None:
    folder = write_idx_set(tmp_path / "mnist")
    path = folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(49))))
    config = DataConfig(name="mnist", root=str(tmp_path))
    assert error_of(config) == f"'{path}' has 49 labels for 50 images: replace both files"
    path.write_bytes(gzip.compress(idx_bytes(np.full(50, 10))))
    assert error_of(config).startswith(f"'{path}' has a label 10 that is no class")


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, share, conda = tmp_path / "data", tmp_path / "share", tmp_path / "conda"
    monkeypatch.setenv("XDG_DATA_DIRS", f"/nowhere:{share}")
    monkeypatch.setenv("CONDA_PREFIX", str(conda))
    folders = [
        conda / "share/datasets/fashion-mnist",
        share / "datasets/fashion-mnist",
        root / "FashionMNIST/raw",
        root / "fashion_mnist",
    ]
    for offset, folder in enumerate(folders):
        write_idx_set(folder, offset=offset)
        splits = load_data(DataConfig(root=str(root)))
        assert splits.source == str(folder)
        assert splits.test.images[0, 0, 0, 0] == offset
    (folders[-1] / "t10k-labels-idx1-ubyte.gz").unlink()  # three of four are none
    assert load_data(DataConfig(root=str(root))).source == str(folders[-2])


# Downloads


def test_mnist_is_downloaded(tmp_path: Path, no_packages: None, server: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    url, served = server
    files = sorted(write_idx_set(served / "x").iterdir())
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{url}x/"])
    resources = [(file.name, md5(file.read_bytes()).hexdigest()) for file in files]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    config = DataConfig(name="mnist", root=str(tmp_path / "data"))
    first = load_data(config)
    assert sizes(first) == (180, 20, 50)
    for file in files:
        file.unlink()
    again = load_data(config)  # from the disk now
    assert again.source == str(tmp_path / "data/MNIST/raw")
    assert torch.equal(first.train.images, again.train.images) and torch.equal(first.train.labels, again.train.labels)


def test_offline_is_one_line_that_names_three_ways(
    tmp_path: Path, no_packages: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    message = error_of(DataConfig(root=str(tmp_path)))
    for way in (f"into '{tmp_path}/fashion_mnist'", "apt install dataset-fashion-mnist", "go online", "refused"):
        assert way in message
    assert error_of(DataConfig(root=str(tmp_path), download=False)).endswith(
        "dataset-fashion-mnist', or set download=true"
    )
    assert data.main() == 1
    out, err = capsys.readouterr()
    assert (
        out == "" and err.count("\n") == 1 and err.startswith("fashion_mnist is missing or damaged: put its four files")
    )


def test_a_server_that_never_answers_does_not_hang(
    tmp_path: Path, no_packages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(data, "DOWNLOAD_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        assert "timed out" in error_of(DataConfig(name="mnist", root=str(tmp_path)))
    assert socket.getdefaulttimeout() is None


# torchvision


def write_pickle(path: Path, content: dict) -> str:
    """Pickled as by NumPy 1, which wrote a dtype's flags as integers; gives the file's MD5."""
    packed = pickle.dumps(content, protocol=2).replace(b"\x89\x88\x87", b"K\x00K\x01\x87")
    path.write_bytes(packed)
    return md5(packed).hexdigest()


def write_cifar(root: Path, dataset: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Small batches in CIFAR's format, with the checks of torchvision set to them; gives the pixels."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    label_key = "labels" if dataset is datasets.CIFAR10 else "fine_labels"
    batches = [name for name, _ in dataset.train_list + dataset.test_list]
    pixels = np.random.RandomState(0).randint(0, 256, size=(len(batches), 30, 3072)).astype(np.uint8)
    sums = [
        [name, write_pickle(folder / name, {"data": batch, label_key: [i % 10 for i in range(30)]})]
        for name, batch in zip(batches, pixels, strict=True)
    ]
    names = [f"class {i}" for i in range(10)]
    meta = dict(dataset.meta, md5=write_pickle(folder / dataset.meta["filename"], {dataset.meta["key"]: names}))
    for key, value in (("train_list", sums[:-1]), ("test_list", sums[-1:]), ("meta", meta)):
        monkeypatch.setattr(dataset, key, value)
    return pixels


@pytest.mark.parametrize("dataset", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar(tmp_path: Path, dataset: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path, dataset, monkeypatch)
    config = DataConfig(name=dataset.__name__.lower(), root=str(tmp_path), download=False)
    splits = load_data(config)
    n = 30 * (len(pixels) - 1)
    assert sizes(splits) == (n * 9 // 10, n // 10, 30)
    assert (splits.in_chans, splits.image_size, splits.num_classes) == (3, 32, 10)
    assert splits.train.classes[3] == "class 3"
    assert torch.equal(splits.test.images.flatten(1), torch.from_numpy(pixels[-1]))
    assert splits.test.labels.tolist() == list(range(10)) * 3
    (tmp_path / dataset.base_folder / dataset.test_list[0][0]).write_bytes(b"cut")
    assert error_of(config).startswith(f"{config.name} is missing or damaged: unpack its archive in '{tmp_path}'")


def test_cifar_is_downloaded(tmp_path: Path, server: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    url, served = server
    pixels = write_cifar(served, datasets.CIFAR10, monkeypatch)
    with tarfile.open(served / "cifar.tar.gz", "w:gz") as archive:
        archive.add(served / datasets.CIFAR10.base_folder, datasets.CIFAR10.base_folder)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{url}cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5((served / "cifar.tar.gz").read_bytes()).hexdigest())
    splits = load_data(DataConfig(name="cifar10", root=str(tmp_path / "data")))
    assert torch.equal(splits.test.images.flatten(1), torch.from_numpy(pixels[-1]))


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, size=(32, 32, 3, 40)).astype(np.uint8)
    labels = np.arange(40)[:, None] % 10 + 1  # the format writes the digit 0 as 10
    checks = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": pixels, "y": labels})
        checks[part] = ["", path.name, md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", checks)
    config = DataConfig(name="svhn", root=str(tmp_path))
    splits = load_data(config)
    assert sizes(splits) == (36, 4, 40) and splits.train.classes == tuple("0123456789")
    assert torch.equal(splits.test.images, torch.from_numpy(pixels).permute(3, 2, 0, 1))
    assert splits.test.labels.tolist() == [(i + 1) % 10 for i in range(40)]


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, size=(20, 3, 96, 96)).astype(np.uint8)
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    lists = {}
    for part in ("train", "test"):
        pixels.tofile(folder / f"{part}_X.bin")  # columns first
        (np.arange(20) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
        files = [folder / f"{part}_X.bin", folder / f"{part}_y.bin"]
        lists[part] = [[file.name, md5(file.read_bytes()).hexdigest()] for file in files]
        monkeypatch.setattr(datasets.STL10, f"{part}_list", lists[part])
    splits = load_data(DataConfig(name="stl10", root=str(tmp_path)))
    assert sizes(splits) == (18, 2, 20) and splits.image_size == 96 and splits.train.classes[9] == "class 9"
    assert torch.equal(splits.test.images, torch.from_numpy(pixels).transpose(2, 3))
    assert splits.test.labels.tolist() == [i % 10 for i in range(20)]


# Folders


def test_a_plain_folder_is_split_three_ways(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 50, "ant": 100, "train": 2})  # a class may be named like a split
    splits = load_data(folder_config(tmp_path))
    assert splits.train.classes == ("ant", "cat", "train")
    assert splits.in_chans == 3 and splits.image_size == 8
    assert sizes(splits) == (110, 12, 30)
    seen = set()
    for part in (splits.train, splits.validation, splits.test):
        colours = part.images[:, :, 0, 0]
        assert torch.equal(colours[:, 1] - 100, torch.tensor([1, 0, 2], dtype=torch.uint8)[part.labels])
        seen |= {tuple(colour) for colour in colours.tolist()}
    assert len(seen) == 152
    assert splits.train.labels.bincount()[2] >= 1
    again = load_data(folder_config(tmp_path))
    assert torch.equal(again.train.images, splits.train.images)


def test_split_folders_are_used(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 20, "b": 20})
    assert sizes(load_data(folder_config(tmp_path))) == (29, 3, 8)
    write_folder(tmp_path / "valid", {"a": 5, "b": 6})
    splits = load_data(folder_config(tmp_path))  # as in ImageNet
    assert sizes(splits) == (36, 4, 11) and splits.test.labels.tolist() == [0] * 5 + [1] * 6
    write_folder(tmp_path / "test", {"b": 3})
    splits = load_data(folder_config(tmp_path))
    assert sizes(splits) == (40, 11, 3) and splits.test.labels.tolist() == [1, 1, 1]
    assert sizes(load_data(folder_config(tmp_path, limit=10))) == (10, 11, 3)
    write_folder(tmp_path / "test", {"c": 1})
    assert error_of(folder_config(tmp_path)) == "class 'c' has test images but none to train on: add some or remove it"


def test_hidden_files_other_files_and_empty_classes_are_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._000.png").write_text("no image")
    write_folder(tmp_path / "a" / ".cache", {"x": 3})
    (tmp_path / "loose.png").write_bytes((tmp_path / "a" / "000.png").read_bytes())
    write_folder(tmp_path / "b" / "deeper", {"still b": 2})
    splits = load_data(folder_config(tmp_path))
    assert splits.train.classes == ("a", "b") and sum(sizes(splits)) == 12


@pytest.mark.parametrize("layout", ["missing", "empty", "loose"])
def test_a_folder_without_classes_names_the_layout(tmp_path: Path, layout: str) -> None:
    if layout == "loose":
        write_folder(tmp_path, {"root": 3})
    root = tmp_path / {"missing": "none", "empty": "", "loose": "root"}[layout]
    assert f"{root}/CLASS/IMAGE or {root}/train/CLASS/IMAGE" in error_of(folder_config(root))


def test_broken_files_are_skipped_and_named_in_one_warning(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 50, "b": 50})
    whole = load_data(folder_config(tmp_path))
    broken = [tmp_path / "a" / f"{i:03}.png" for i in (3, 7, 20, 21, 30)]
    for path, length in zip(broken, (0, 10, 40, 45, 50), strict=True):
        path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(UserWarning, match="skipped 5 of 100 images that cannot be read: '.*, ...") as caught:
        splits = load_data(folder_config(tmp_path))
    assert len(caught) == 1 and sum(str(path) in str(caught[0].message) for path in broken) == 3
    for part in ("train", "validation", "test"):
        before, after = getattr(whole, part), getattr(splits, part)
        kept = [
            not (y == 0 and x[0, 0, 0] in (3, 7, 20, 21, 30)) for x, y in zip(before.images, before.labels, strict=True)
        ]
        assert torch.equal(before.images[kept], after.images) and torch.equal(before.labels[kept], after.labels)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped 100 of 100"):
        assert error_of(folder_config(tmp_path)).startswith("no train image in")


def test_a_grey_folder_has_one_channel(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10, "b": 10}, colour=False)
    grey = load_data(folder_config(tmp_path))
    assert grey.in_chans == 1 and set(grey.train.images.flatten().tolist()) <= set(range(10))
    Image.new("RGB", (8, 8), (1, 2, 2)).save(tmp_path / "a" / "999.png")
    colour = load_data(folder_config(tmp_path))
    assert colour.in_chans == 3 and sum(sizes(colour)) == 21


def test_a_folder_that_does_not_fit_in_memory_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 10})
    assert error_of(folder_config(tmp_path, image_size=10**7)).startswith("10 images of 3×10000000×10000000 need")


@pytest.mark.parametrize(
    ("name", "mode", "fill", "expected"),
    [
        ("a.png", "L", 77, (77, 77, 77)),
        ("a.png", "1", 1, (255, 255, 255)),
        ("a.png", "P", 5, (15, 16, 17)),
        ("a.png", "RGB", (9, 8, 7), (9, 8, 7)),
        ("a.png", "RGBA", (0, 100, 200, 0), (255, 255, 255)),
        ("a.png", "RGBA", (0, 100, 200, 51), (204, 224, 244)),
        ("a.png", "LA", (0, 51), (204, 204, 204)),
        ("a.png", "I;16", 40_000, (156, 156, 156)),
        ("a.tif", "I;16", 40_000, (156, 156, 156)),
        ("a.tif", "CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("a.bmp", "RGB", (9, 8, 7), (9, 8, 7)),
        ("a.gif", "RGB", (9, 8, 7), (9, 8, 7)),
        ("a.ppm", "RGB", (9, 8, 7), (9, 8, 7)),
        ("a.jpg", "RGB", (128, 128, 128), (128, 128, 128)),
        ("a.jpg", "CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_kind_of_image(tmp_path: Path, name: str, mode: str, fill: int | tuple, expected: tuple) -> None:
    image = Image.new(mode, (12, 10), fill)
    if mode == "P":
        image.putpalette([0] * 15 + [15, 16, 17])
    image.save(tmp_path / name)
    pixels = read_image(tmp_path / name, 4)
    assert pixels.shape == (4, 4, 3)
    assert (pixels == np.uint8(expected)).all()


def test_transparent_entries_of_a_palette_are_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    image.save(tmp_path / "a.gif", transparency=1)
    assert (read_image(tmp_path / "a.png", 4) == 255).all() and (read_image(tmp_path / "a.gif", 4) == 255).all()


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="no known range"):
        read_image(tmp_path / "a.tif", 4)


def test_an_image_is_turned_as_its_exif_tag_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255  # a white line on top, which the tag 6 puts on the right
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png", 8)[:, -1] == 255).all()
    assert (read_image(tmp_path / "a.png", 8)[:, :-1] == 0).all()


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_square_is_kept(tmp_path: Path, wide: bool) -> None:
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, 30:60] = 200
    pixels[:, 45:60] = 100
    Image.fromarray(pixels if wide else pixels.swapaxes(0, 1)).save(tmp_path / "a.png")
    square = read_image(tmp_path / "a.png", 30)
    assert np.array_equal(square if wide else square.swapaxes(0, 1), pixels[:, 30:60])


def test_shrinking_is_antialiased_and_agrees_with_a_full_decoding(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png", 16).astype(int) - 128).max() <= 2
    smooth = np.random.RandomState(0).randint(0, 256, size=(60, 80, 3)).astype(np.uint8)
    photo = Image.fromarray(smooth).resize((800, 600), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "b.png")
    photo.save(tmp_path / "b.jpg", quality=95, subsampling=0)
    difference = read_image(tmp_path / "b.png", 128).astype(int) - read_image(tmp_path / "b.jpg", 128)
    assert np.abs(difference).mean() < 1


# The real thing


def test_fashion_mnist(capsys: pytest.CaptureFixture) -> None:
    splits = load_data(DataConfig())
    assert sizes(splits) == (54_000, 6_000, 10_000)
    assert splits.train.labels.bincount().tolist() == [5_400] * 10
    assert splits.validation.labels.bincount().tolist() == [600] * 10
    assert splits.test.labels.bincount().tolist() == [1_000] * 10
    assert splits.train.classes[::3] == ("T-shirt/top", "Dress", "Shirt", "Ankle boot")
    assert splits.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    pixels = torch.cat([splits.train.images, splits.validation.images]).double() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3530, abs=5e-5)
    train_labels = read_idx(next(Path(splits.source).glob("train-labels*")), 1)
    assert train_labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert data.main() == 0
    counts = "54,000 train, 6,000 validation and 10,000 test images of 10 classes"
    assert capsys.readouterr().out == f"fashion_mnist: {counts}, from {splits.source}\n"
