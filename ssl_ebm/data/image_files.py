"""Image files: found, checked and decoded into uint8 tensors."""

import gzip
import math
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

IMAGE_EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class DataError(ValueError):
    """A data set that cannot be found, read or split. The message, one line, names the remedy."""


def read_idx(path: Path, ndim: int) -> UInt8[Tensor, "..."]:
    """The array in an idx file of unsigned bytes, MNIST's format, plain or gzipped.

    The file holds the bytes 0, 0, 8 (unsigned byte) and `ndim`, each dimension as a big-endian uint32, then the values.

    Raises:
        DataError: If it cannot be read, is another kind of file, or its length is not the product of its dimensions.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytearray(file.read())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read ({error}): replace it by a fresh copy") from error
    start = 4 + 4 * ndim
    if len(content) < start or content[:4] != bytes((0, 0, 8, ndim)):
        raise DataError(f"'{path}' is not an idx file of bytes in {ndim} dimensions: replace it by a fresh copy")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    if len(content) - start != math.prod(shape) or 0 in shape:
        raise DataError(f"'{path}' holds {len(content) - start} bytes, not {shape}: replace it by a fresh copy")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)


def find_idx(folder: Path) -> list[Path]:
    """The four files of an MNIST-like data set: images and labels of train, then of test. Empty unless all exist."""
    files = []
    for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        files += [path for path in (folder / f"{stem}-ubyte", folder / f"{stem}-ubyte.gz") if path.is_file()][:1]
    return files if len(files) == 4 else []


def class_files(folder: Path) -> dict[str, list[Path]]:
    """Paths of the images under each subfolder that has any, by its name, sorted."""
    by_class: dict[str, list[Path]] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = [name for name in sorted(names) if Path(name).suffix.lower() in IMAGE_EXTENSIONS and name[0] != "."]
        below = Path(parent).relative_to(folder).parts
        if below and images:
            by_class.setdefault(below[0], []).extend(Path(parent, name) for name in images)
    return by_class


def read_images(paths: list[Path], size: int) -> tuple[UInt8[Tensor, "n c size size"], Bool[Tensor, " m"]]:
    """The images of the files that can be read, and which those are; a warning names others.

    They are decoded in threads, and have one channel if every image is grey, else three.
    """
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)

    def fault_of(row: int) -> str:
        """Puts an image in its place; what is wrong with its file, or nothing."""
        try:
            images[row] = torch.from_numpy(read_image(paths[row], size)).permute(2, 0, 1)
        except Exception as error:  # a broken file can raise anything in Pillow's parsers
            return f"'{paths[row]}' ({type(error).__name__})"
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(fault_of, range(len(paths)))
        faults = list(tqdm(jobs, "reading images", len(paths), unit="image", disable=None))
    readable = torch.tensor([not fault for fault in faults])
    broken = [fault for fault in faults if fault]
    if broken:
        named = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        warnings.warn(f"skipped {len(broken)} of {len(paths)} images that cannot be read: {named}", stacklevel=4)
        for row, source in enumerate(readable.nonzero().flatten().tolist()):
            images[row] = images[source]  # in place: a second copy might not fit in memory
        images = images[: len(paths) - len(broken)]
    if all(torch.equal(image, image[:1].expand_as(image)) for image in images):
        images = images[:, :1].contiguous()
    return images, readable


def read_image(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The centre square of an image file in RGB, turned as its EXIF tag says and laid on white where transparent."""
    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a half, a quarter or an eighth of its size
        image = ImageOps.exif_transpose(file)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no known range")
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        if image.mode[-1] in "Aa" or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        # the filter of `data.resize`, without its copy in float32 in every thread: a photograph's takes 100 MB
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return np.array(square)


def check_memory(count: int, channels: int, size: int) -> None:
    """Refuses images that would not fit in the memory that Linux calls available; other systems are not asked.

    Raises:
        DataError: They would not fit.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    available = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), math.inf)
    needed = count * channels * size**2
    if needed > available:
        raise DataError(
            f"{count:,} images of {channels}×{size}×{size} need {needed / 2**30:.1f} GiB of memory and "
            f"{available / 2**30:.1f} GiB are available: lower image_size or limit"
        )
