"""Operations on a batch of images, with one parameter per image: pure functions, on the device of the images.

Images are `[n, channels, height, width]` in [0, 1]; results stay there. Each agrees per image with the function of
torchvision that its docstring names. Saturation, hue and grey leave single-channel images as they are.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue: ITU-R 601-2, as torchvision rounds it


def resized_crop(
    images: Float[Tensor, "n channels height width"] | UInt8[Tensor, "n channels height width"],
    top: Int[Tensor, " n"],
    left: Int[Tensor, " n"],
    height: Int[Tensor, " n"],
    width: Int[Tensor, " n"],
    flip: Bool[Tensor, " n"],
    *,
    size: int,
) -> Float[Tensor, "n channels {size} {size}"]:
    """Crops a window, resizes it to a square with antialiased bilinear interpolation, and flips it left to right.

    One linear map per image, `R x Cᵀ`, where R and C are the interpolation matrices of rows and columns. No pixel
    outside of the window is read. Equals `resized_crop(antialias=True)`, then `horizontal_flip`. uint8 images are
    scaled to [0, 1] by the matrices.
    """
    gain = 1.0 if images.is_floating_point() else 1 / 255
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    n, channels, rows, columns = images.shape
    down = interpolation(top, height, extent=rows, size=size, dtype=images.dtype)
    across = interpolation(left, width, flip, extent=columns, size=size, dtype=images.dtype, gain=gain)
    wide = torch.bmm(images.reshape(n, channels * rows, columns), across.transpose(1, 2))
    return (down[:, None] @ wide.view(n, channels, rows, size)).clamp_(0, 1)


def interpolation(
    start: Int[Tensor, " n"],
    length: Int[Tensor, " n"],
    flip: Bool[Tensor, " n"] | None = None,
    *,
    extent: int,
    size: int,
    dtype: torch.dtype,
    gain: float = 1.0,
) -> Float[Tensor, "n {size} {extent}"]:
    """Matrices that resample the pixels `start ... start + length - 1` of a line of `extent` pixels to `size` pixels.

    Row i weighs pixel j by the triangle `max(0, s - |j - c_i|)` around `c_i = start + (i + ½)·length/size - ½`, with
    `s = max(1, length/size)`, zero outside of the window; each row sums to `gain`. As `interpolate(antialias=True)`.
    """
    start, length = start.to(dtype)[:, None], length.to(dtype)[:, None]
    steps = torch.arange(size, device=start.device, dtype=dtype).add_(0.5).div_(size)
    steps = steps if flip is None else torch.where(flip[:, None], steps.flip(0), steps)
    centre = start + length * steps - 0.5
    pixels = torch.arange(extent, device=start.device, dtype=dtype)
    if extent <= size:  # it only enlarges: two taps, and to renormalise at the border is to stay within the window
        centre = torch.minimum(torch.maximum(centre, start), start + length - 1)
        return torch.rsub((pixels - centre[..., None]).abs_(), gain, alpha=gain).clamp_min_(0)
    support = (length / size).clamp_min(1)[..., None]
    inside = _within(start, length, pixels).to(dtype)[:, None]
    weights = (support - (pixels - centre[..., None]).abs_()).clamp_min_(0).mul_(inside)
    return weights.mul_(gain / weights.sum(2, keepdim=True))


def adjust_brightness(
    images: Float[Tensor, "n channels height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """`factor · x`, clamped. As `adjust_brightness`."""
    return (images * factor[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "n channels height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """`factor · x + (1 - factor) · m`, clamped; m is the image's own mean grey. As `adjust_contrast`."""
    return _blend(images, _luma(images.mean((2, 3), keepdim=True)), factor)  # luma is linear


def adjust_saturation(
    images: Float[Tensor, "n channels height width"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """`factor · x + (1 - factor) · grey(x)`, clamped. As `adjust_saturation`."""
    return _blend(images, _luma(images), factor) if images.shape[1] > 1 else images


def adjust_hue(
    images: Float[Tensor, "n channels height width"], shift: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """Turns the hue by `shift` of a full circle, in [-½, ½]; saturation and value of HSV stay. As `adjust_hue`.

    With M, m the largest and the smallest channel and c = M - m, the hue's distance from red is, in sixths of the
    circle, `(M - 2m - r + g + b) / c` with the sign of g - b, on all six sides of the hexagon; back again, a channel
    whose own hue (red 0, green ⅓, blue ⅔) is d sixths away is `m + c · clamp(2 - d, 0, 1)`. No case distinction.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = _rgb(images)
    low = torch.minimum(torch.minimum(red, green), blue)
    high = torch.maximum(torch.maximum(red, green), blue)
    chroma = high - low
    hue = (high - red).add_(green).add_(blue).sub_(low, alpha=2).div_(chroma.clamp_min(1e-12) * 6)
    hue.copysign_(green - blue)
    pure = torch.tensor([0, 1 / 3, 2 / 3], device=images.device, dtype=images.dtype)  # hue of red, green and blue
    offset = (shift[:, None] - pure + 2.5)[:, :, None, None]  # + 2 keeps the fraction positive, + ½ centres it
    distance = (hue[:, None] + offset).frac_().sub_(0.5).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul((low + 2 * chroma)[:, None], distance, chroma[:, None], value=-6).clamp_(0, 1)


def to_grey(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
    """The luma in every channel. As `rgb_to_grayscale` with as many channels."""
    return _luma(images).repeat(1, images.shape[1], 1, 1) if images.shape[1] > 1 else images


def gaussian_blur(
    images: Float[Tensor, "n channels height width"], sigma: Float[Tensor, " n"], *, kernel_size: int
) -> Float[Tensor, "n channels height width"]:
    """Convolves with a Gaussian of `sigma` pixels cut at `kernel_size` taps, the border reflected. As `gaussian_blur`.

    Raises:
        ValueError: `kernel_size` is even, or its half is not smaller than the image.
    """
    height, width = images.shape[2:]
    radius = kernel_size // 2
    if kernel_size % 2 == 0 or radius >= min(height, width):
        raise ValueError(f"kernel_size must be odd and its half < {min(height, width)}, got {kernel_size}")
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1).T[..., None, None, None]
    images = F.pad(images, (radius,) * 4, mode="reflect")
    for dim, extent in ((2, height), (3, width)):  # a depthwise convolution is slower for a varying number of images
        blurred = images.narrow(dim, 0, extent) * taps[0]
        for k in range(1, kernel_size):
            blurred.addcmul_(images.narrow(dim, k, extent), taps[k])
        images = blurred
    return images.clamp_(0, 1)


def solarise(
    images: Float[Tensor, "n channels height width"], threshold: Float[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:
    """Inverts the pixels at or above `threshold`. As `solarize`."""
    return torch.where(images >= threshold[:, None, None, None], 1 - images, images)


def erase(
    images: Float[Tensor, "n channels height width"],
    top: Int[Tensor, " n"],
    left: Int[Tensor, " n"],
    height: Int[Tensor, " n"],
    width: Int[Tensor, " n"],
    *,
    value: float = 0.0,
) -> Float[Tensor, "n channels height width"]:
    """Sets a box to `value`. As `erase`."""
    rows, columns = (torch.arange(extent, device=images.device) for extent in images.shape[2:])
    inside_rows = _within(top[:, None], height[:, None], rows)
    inside_columns = _within(left[:, None], width[:, None], columns)
    return images.masked_fill((inside_rows[:, :, None] & inside_columns[:, None])[:, None], value)


def _within(start: Tensor, length: Tensor, pixels: Tensor) -> Tensor:
    return (pixels >= start) & (pixels < start + length)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return (images * factor).add_(other * (1 - factor)).clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = _rgb(images)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def _rgb(images: Tensor) -> tuple[Tensor, ...]:
    if images.shape[1] != 3:
        raise ValueError(f"colour operations need 1 or 3 channels, got {images.shape[1]}; switch them off (strength 0)")
    return images.unbind(1)
