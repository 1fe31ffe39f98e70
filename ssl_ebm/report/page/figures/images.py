"""Arrays of pixels → PNG as text."""

from __future__ import annotations

import base64
import math
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

LARGEST_IMAGE = 96  # pixels


def png_uri(image: UInt8[np.ndarray, "c h w"], largest: int = LARGEST_IMAGE) -> str:
    """A data URI; channels beyond three are left out, large images are shrunk by a whole factor."""
    factor = math.ceil(max(image.shape[1:]) / largest)
    channels = 3 if len(image) >= 3 else 1
    height, width = (side // factor * factor for side in image.shape[1:])
    blocks = image[:channels, :height, :width].reshape(channels, height // factor, factor, width // factor, factor)
    pixels = np.ascontiguousarray(blocks.mean((2, 4)).round().astype(np.uint8).transpose(1, 2, 0))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return bytes_uri(b"\x89PNG\r\n\x1a\n" + body)


def bytes_uri(png: bytes) -> str:
    """A data URI of a PNG file's content."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
