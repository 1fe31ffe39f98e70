"""One filter for whole images: torchvision's, in every type, and the same wherever an image is resized."""

import struct
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from ssl_ebm.data import image_ops
from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.data.image_files import read_image
from ssl_ebm.data.resize import CHUNK, resize
from ssl_ebm.evaluation import external
from ssl_ebm.evaluation.energy import of_pairs
from ssl_ebm.model import EnergyModel
from ssl_ebm.networks.encoder import Encoder
from ssl_ebm.report import samples


def drawn(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("size", [5, 20, 28, 31, 64])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 24)])
def test_it_is_torchvisions_and_the_crops_filter(height: int, width: int, size: int) -> None:
    images = drawn(6, 3, height, width) / 255
    resized = resize(images, size)
    expected = tv.resize(images, [size, size], InterpolationMode.BILINEAR, antialias=True)
    assert resized.shape == (6, 3, size, size) and torch.allclose(resized, expected, atol=1e-6)
    zero, whole = torch.zeros(6).long(), [torch.full((6,), extent) for extent in (height, width)]
    crop = image_ops.resized_crop(images, zero, zero, *whole, zero.bool(), size=size)
    assert torch.allclose(resized, crop, atol=1e-5)


@pytest.mark.parametrize("size", [9, 28, 40])
@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("given", [1, 3])
def test_integers_are_the_floating_point_result_rounded_once(size: int, channels: int | None, given: int) -> None:
    images = drawn(CHUNK + 3, given, 28, 28)  # more than one chunk
    integers, numbers = (resize(x, size, channels=channels) for x in (images, images.double() / 255))
    assert integers.dtype == torch.uint8 and numbers.dtype == torch.float64
    assert integers.shape == numbers.shape == (CHUNK + 3, channels or given, size, size)
    assert (integers - 255 * numbers).abs().max() <= 0.5 + 1e-4
    assert 0 <= numbers.min() and numbers.max() <= 1


def test_an_image_of_that_size_is_the_image_itself() -> None:
    for images in (drawn(4, 3, 28, 28), torch.rand(4, 3, 28, 28)):
        assert resize(images, 28) is images and resize(images, 28, channels=3) is images


def test_channels_become_their_mean_and_grey_is_repeated() -> None:
    images = torch.rand(4, 3, 10, 10)
    assert torch.allclose(resize(images, 10, channels=1)[:, 0], images.mean(1))
    grey = images[:, :1]
    assert torch.equal(resize(grey, 10, channels=3), grey.expand(-1, 3, -1, -1))
    assert torch.equal(resize(grey, 20, channels=3), resize(grey, 20).expand(-1, 3, -1, -1))


def test_constant_images_stay_constant_and_fine_stripes_become_grey() -> None:
    assert (resize(torch.full((1, 1, 28, 28), 200, dtype=torch.uint8), 20) == 200).all()
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 1
    assert (resize(stripes, 8)[..., 1:-1] - 0.5).abs().max() < 0.05


def test_files_are_resized_by_the_same_filter(tmp_path: Path) -> None:
    """By Pillow, which rounds after each of the two directions."""
    images = drawn(1, 3, 50, 50)
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    for size in (20, 50, 80):
        pixels = torch.from_numpy(read_image(tmp_path / "a.png", size)).permute(2, 0, 1)
        assert (pixels.int() - resize(images, size)[0].int()).abs().max() <= 1


def test_data_sets_foreign_sets_starts_of_chains_and_external_encoders_see_the_same_image(tmp_path: Path) -> None:
    """What is held as uint8 is equal, and what is not rounded is within half a grey level of it."""
    (tmp_path / "mnist").mkdir()
    images, labels = drawn(40, 1, 28, 28), torch.arange(40) % 10
    for stem, array in (("images-idx3", images[:, 0]), ("labels-idx1", labels.byte())):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        for part in ("train", "t10k"):
            (tmp_path / "mnist" / f"{part}-{stem}-ubyte").write_bytes(head + array.numpy().tobytes())
    whole, small = (load_data(DataConfig(name="mnist", root=str(tmp_path), image_size=size)) for size in (None, 20))
    assert torch.equal(whole.test.images, images) and torch.equal(small.test.images, resize(images, 20))

    foreign = of_pairs.foreign_sets(DataConfig(root=str(tmp_path)), whole, size=20)
    assert torch.equal(foreign["mnist"], small.test.images)
    starts = samples._resized(Mock(spec=EnergyModel, sample_shape=(1, 20, 20), device="cpu"), whole.test, 40)
    flat = Mock(spec=Encoder, in_chans=1, image_size=20, side_effect=lambda x: x.flatten(1))
    assert torch.equal(starts.flatten(1), external._encode(flat, images / 255))
    assert (255 * starts - small.test.images).abs().max() <= 0.5 + 1e-4
