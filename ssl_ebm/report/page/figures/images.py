"""Pixels and PNG files as data URIs, which a page without other files shows as images."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LARGEST_IMAGE = 96  # pixels


def png_uri(image: UInt8[np.ndarray, "c h w"], largest: int = LARGEST_IMAGE) -> str:
    """The PNG of an image, in grey or in the first three channels; a large image is shrunk to means of square blocks.

    Args:
        image: Pixels.
        largest: Pixels of the longer side that are shown.
    """
    pixels = Image.fromarray(np.moveaxis(image[:3], 0, -1) if len(image) >= 3 else image[0])
    file = io.BytesIO()
    pixels.reduce(math.ceil(max(pixels.size) / largest)).save(file, format="PNG", optimize=True)
    return bytes_uri(file.getvalue())


def bytes_uri(png: bytes) -> str:
    """A PNG file's content as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
