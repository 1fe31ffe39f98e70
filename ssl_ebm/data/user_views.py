"""Views that a function of the user's makes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_ebm.data.views import PRESETS, MultiCrop, Views, create_views
from ssl_ebm.registry import unknown_name
from ssl_ebm.user_code import entry_points, is_external, part_name

TOLERANCE = 1e-3  # beyond [0, 1], of interpolation


@runtime_checkable
class MakeViews(Protocol):
    """A callable that makes views of a batch.

    It takes images [batch, channels, height, width], uint8 on the run's device, and a generator on the same device. It
    gives views [views, batch, channels, size, size], floating point in [0, 1] on that device. What it draws from the
    generator, or from torch's global one, is the same when an interrupted run is resumed.
    """

    def __call__(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Views of the images, in their order."""
        ...


@final
class UserViews:
    """Views of the user's, with what the library reads of `Views`.

    Args:
        make: The user's.
        example: Images of the data set, at least one: the views of them say how many views there are, and of which
            size.

    Attributes:
        count: How many views of each image.
        global_count: As many: all are global.
        size: Side of the views, in pixels.
        sizes: The one size.

    Raises:
        TypeError: `make` gives no tensor of floating point.
        ValueError: Views are not [views, batch, channels, size, size] in [0, 1].
    """

    def __init__(self, make: MakeViews, example: UInt8[Tensor, "batch channels height width"]) -> None:
        self.make = make
        generator = torch.Generator(example.device).manual_seed(0)
        views = self(example, generator=generator)
        least, most = float(views.min()), float(views.max())
        if not (-TOLERANCE <= least and most <= 1 + TOLERANCE):
            raise ValueError(f"views of {part_name(make)} must be in [0, 1], got values from {least:g} to {most:g}")
        self.count = self.global_count = len(views)
        self.size = views.shape[-1]
        self.sizes = (self.size,)

    def __str__(self) -> str:
        return f"{self.count} of {self.size} pixels"

    def __call__(
        self,
        images: UInt8[Tensor, "batch channels height width"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "views batch channels size size"]:
        """Views in [0, 1]."""
        views, name = self.make(images, generator), part_name(self.make)
        if not isinstance(views, Tensor) or not views.is_floating_point():
            got = views.dtype if isinstance(views, Tensor) else type(views).__name__
            raise TypeError(f"views of {name} must be one tensor of floating point, got {got}")
        if views.ndim != 5 or views.shape[1:3] != images.shape[:2] or views.shape[3] != views.shape[4]:
            expected = ["views", *images.shape[:2], "size", "size"]
            raise ValueError(f"views of {name} must be {expected}, got {list(views.shape)}")
        return views


def build_views(
    section: Mapping[str, Any], example: UInt8[Tensor, "batch channels height width"], views: Any = None
) -> Views | MultiCrop | UserViews:
    """The views that a config's section describes; the size of built-in ones is that of the images if it is not given.

    Args:
        section: `name` and arguments.
        example: Images of the data set.
        views: As in `user_views`.

    Raises:
        TypeError: As `create_views` and `UserViews`.
        ValueError: Likewise, or as `user_views`.
    """
    if is_builtin(section):
        return create_views(**{"size": example.shape[-1], **section})
    return user_views(section, example, views)


def is_builtin(section: Mapping[str, Any]) -> bool:
    """Whether a config's section names a preset."""
    return not is_external(section) and section["name"] in PRESETS


def user_views(
    section: Mapping[str, Any], example: UInt8[Tensor, "batch channels height width"], views: Any = None
) -> UserViews:
    """The views of the user's, or of an installed package, that a config's section names.

    Args:
        section: `name` and arguments.
        example: Images of the data set.
        views: What it names, where it is the user's: a `MakeViews`, called with the section's arguments too; or a
            class, made with them.

    Raises:
        TypeError: As `UserViews`.
        ValueError: Likewise; an unknown name; or code of the user's that is not given.
    """
    name = section["name"]
    if views is None and is_external(section):
        raise ValueError(f"views {name} are code of the user's: give them with views=")
    if views is None:
        installed = entry_points("views")
        if name not in installed:
            raise ValueError(unknown_name("views preset", name, [*PRESETS, *installed]))
        views = installed[name].load()
    arguments = {key: value for key, value in section.items() if key not in ("name", "external")}
    make: Any = views(**arguments) if inspect.isclass(views) else partial(views, **arguments)
    return UserViews(make, example)
