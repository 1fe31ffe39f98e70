"""A backbone that the user brings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import timm
from torch import Tensor, nn

from ssl_ebm.registry import unknown_name
from ssl_ebm.user_code import entry_points, part_name


@runtime_checkable
class Backbone(Protocol):
    """A network that the user brings, an `nn.Module`: pooled features of images.

    It takes images [n, channels, height, width], float32, each channel less its mean over its standard deviation, and
    gives features [n, num_features]. In eval mode an image's features do not depend on the others of its batch.
    """

    num_features: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features."""
        ...


def installed_backbone(name: str) -> Callable[..., Any]:
    """What an installed package offers under a name that is no timm model's.

    Raises:
        ValueError: No package does.
    """
    installed = entry_points("encoder")
    if name not in installed:
        raise ValueError(unknown_name("timm model", name, [*timm.list_models(), *installed]))
    return installed[name].load()


def create_backbone(backbone: Any, **arguments: Any) -> nn.Module:
    """The user's network: a copy of the one given, or what a function makes of the arguments.

    Raises:
        TypeError: It is no module, or has no `num_features`.
    """
    made = copy.deepcopy(backbone) if isinstance(backbone, nn.Module) else backbone(**arguments)
    if not (isinstance(made, nn.Module) and isinstance(made, Backbone)):
        raise TypeError(
            f"encoder {part_name(backbone)} must be, or make, an nn.Module with num_features, got {type(made).__name__}"
        )
    return made
