"""Encoders: a timm backbone whose stem is adapted to the size of the images, or a network of the user's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.networks.stem import adapt_stem, choose_patch, find_downsampling, total_stride
from ssl_ebm.networks.user_backbone import create_backbone, installed_backbone
from ssl_ebm.registry import unknown_name
from ssl_ebm.user_code import is_external


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The section of a config that describes the encoder.

    Attributes:
        name: Name of a timm model or of an entry point of the group `ssl_ebm.encoders`, or `package.module:function`.
        kwargs: Arguments of the model, passed to `timm.create_model` or to the function.
        pretrained: Start from timm's weights; a network of the user's has its weights already.
        adapt_stem: Remove downsampling that small images do not survive.
        output_stride: Pixels of the image per pixel of the last feature map; None: chosen by the image size.
    """

    name: str = "resnet18"
    kwargs: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    adapt_stem: bool = True
    output_stride: int | None = None
    external: bool = False


class Encoder(nn.Module):
    """A backbone with the normalisation of its input: it maps images in [0, 1] to pooled features.

    Attributes:
        backbone: The timm model without classifier, or the user's network.
        num_features: Dimension of the features.
        in_chans: Channels of the images.
        image_size: Side of the images in pixels.
        output_stride: Pixels of the image per pixel of the last feature map; None: not known.
        recipe: How to build the backbone from timm: arguments of `create_model`, and the changes to its stem.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        in_chans: int,
        image_size: int,
        output_stride: int | None,
        mean: Sequence[float],
        std: Sequence[float],
        recipe: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.recipe = backbone, recipe or {}
        self.in_chans, self.image_size, self.output_stride = in_chans, image_size, output_stride
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor([float(v) for v in values]).view(-1, 1, 1))
        self.num_features = self._count_features(image_size)

    @torch.no_grad()
    def _count_features(self, size: int) -> int:
        training = self.training
        try:
            return self.eval().at_any_size(self.mean.new_zeros(1, self.in_chans, size, size)).shape[1]
        finally:
            self.train(training)

    def require_size(self, size: int) -> None:
        """Check that the backbone takes images of `size` pixels a side, by trying one.

        Raises:
            ValueError: The backbone does not take it, as transformers do not that are made for one size.
        """
        try:
            self._count_features(size)
        except (RuntimeError, AssertionError) as error:
            name, reason = self.recipe.get("model_name", "the encoder"), str(error).splitlines()[0]
            raise ValueError(
                f"{name} takes images of {self.image_size} pixels and not views of {size} ({reason}): use a "
                f"convolutional encoder, encoder.kwargs.dynamic_img_size=true for a ViT, or another size of the views"
            ) from error

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n feature"]:
        """Features of images in [0, 1].

        Raises:
            ValueError: Wrong number of channels or wrong size.
        """
        expected = (self.in_chans, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"the encoder takes images of {expected} (channels, height, width), got {tuple(images.shape[1:])}"
            )
        return self.at_any_size(images)

    def at_any_size(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n feature"]:
        """Features of images of another size than the encoder's, for networks that take them (`require_size`)."""
        return self.backbone((images - self.mean) / self.std)


def create_encoder(
    name: str,
    *,
    in_chans: int = 3,
    image_size: int = 224,
    pretrained: bool = False,
    adapt: bool = True,
    output_stride: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: Any,
) -> Encoder:
    """A timm backbone by name, its stem adapted by structure to small images.

    Args:
        name: A name that `timm.list_models()` has.
        in_chans: Channels of the images.
        image_size: Side of the images in pixels.
        pretrained: Load timm's weights, from its cache or the hub.
        adapt: Remove early strides and pooling (convolutional networks) or choose the patch size (transformers).
        output_stride: The total stride wanted; None: chosen by the image size.
        mean: Mean of each channel of images in [0, 1]; None: that of the pretraining, else .5.
        std: Standard deviation of each channel; None: that of the pretraining, else .25.
        **kwargs: Arguments of the timm model, e.g. `channels=(32, 64, 128, 256)`.

    Raises:
        ValueError: Unknown name, weights that cannot be had, or images that the network cannot take.
    """
    for argument, value in (("in_chans", in_chans), ("image_size", image_size)):
        if value < 1:
            raise ValueError(f"{argument} must be >= 1, got {value}")
    if not timm.is_model(name):
        raise ValueError(unknown_name("timm model", name, timm.list_models()))
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # of the model there are no such weights
        raise ValueError(unknown_name("timm model", name, timm.list_models(pretrained=True))) from error
    arguments = {"in_chans": in_chans, "num_classes": 0, **kwargs}
    changes: dict[str, str] = {}
    if _takes_patches(name):
        patch = choose_patch(image_size, output_stride) if adapt or output_stride is not None else None
        arguments |= {"img_size": image_size} | ({"patch_size": patch} if patch else {})
        backbone = _create(name, pretrained, arguments)
        output_stride = patch or int(np.max(backbone.patch_embed.patch_size))  # type: ignore[union-attr,arg-type]
    else:
        backbone = _create(name, pretrained, arguments)
        sizes = (config.input_size[-1], image_size) if config else (image_size,)
        levels = find_downsampling(backbone, in_chans=in_chans, sizes=sizes)
        if adapt or output_stride is not None:
            changes = adapt_stem(
                backbone, levels, in_chans=in_chans, image_size=image_size, output_stride=output_stride
            )
        output_stride = total_stride([level for level in levels if level[0].name not in changes])
    use = config if pretrained else None
    try:
        return Encoder(
            backbone,
            in_chans=in_chans,
            image_size=image_size,
            output_stride=output_stride,
            mean=mean or (_per_channel(use.mean, in_chans) if use else [0.5] * in_chans),
            std=std or (_per_channel(use.std, in_chans) if use else [0.25] * in_chans),
            recipe={"model_name": name, **arguments, "stem_changes": changes},
        )
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name} does not run on {in_chans}-channel images of {image_size} pixels: {reason}"
        ) from error


def _takes_patches(name: str) -> bool:
    """True if the model is made for a given image and patch size, as transformers and mixers are."""
    with torch.device("meta"):
        arguments = inspect.signature(type(timm.create_model(name)).__init__).parameters
    return {"img_size", "patch_size"} <= set(arguments)


def _per_channel(values: Sequence[float], in_chans: int) -> list[float]:
    return list(values) if len(values) == in_chans else [sum(values) / len(values)] * in_chans


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:
        raise ValueError(f"timm model {name!r} does not take these arguments: {error}") from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        if not pretrained:
            raise ValueError(f"timm cannot build {name!r}: {reason}") from error
        raise ValueError(
            f"pretrained weights of {name!r} cannot be loaded ({type(error).__name__}: {reason}): connect to the hub, "
            "fill timm's cache, or use pretrained=False"
        ) from error


def build_encoder(
    config: EncoderConfig,
    encoder: Any = None,
    *,
    in_chans: int,
    image_size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Encoder:
    """The encoder that a config describes.

    Args:
        config: Which.
        encoder: The user's own that it names: a `Backbone`, which is copied, or a function that makes one, called with
            `in_chans`, `image_size` and `config.kwargs`.
        in_chans: Channels of the images.
        image_size: Their side in pixels.
        mean: As in `create_encoder`.
        std: Likewise.

    Raises:
        ValueError: As `create_encoder`; the config names code of the user's, and it is not given; or features are not
            [n, num_features].
        TypeError: It makes no such module.
    """
    if encoder is None and is_external(config):
        raise ValueError(f"encoder {config.name} is code of the user's: give it with encoder=")
    images: dict[str, Any] = {"in_chans": in_chans, "image_size": image_size}
    if encoder is None and not timm.is_model(config.name):
        encoder = installed_backbone(config.name)
    if encoder is not None:
        backbone = create_backbone(encoder, **images, **config.kwargs)
        return _wrapped(backbone, config, **images, mean=mean, std=std)
    return create_encoder(
        config.name,
        pretrained=config.pretrained,
        adapt=config.adapt_stem,
        output_stride=config.output_stride,
        mean=mean,
        std=std,
        **images,
        **config.kwargs,
    )


def _wrapped(
    backbone: nn.Module, config: EncoderConfig, *, in_chans: int, image_size: int, **statistics: Any
) -> Encoder:
    """The user's network behind the normalisation, tried on one image."""
    mean, std = (statistics[name] or [value] * in_chans for name, value in (("mean", 0.5), ("std", 0.25)))
    recipe = {"model_name": config.name, "in_chans": in_chans, "image_size": image_size, "external": True}
    try:
        encoder = Encoder(
            backbone,
            in_chans=in_chans,
            image_size=image_size,
            output_stride=None,
            mean=mean,
            std=std,
            recipe=config.kwargs | recipe,
        )
    except (RuntimeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"encoder {config.name} does not run on {in_chans}-channel images of {image_size} pixels: {reason}"
        ) from error
    if encoder.num_features != backbone.num_features:
        raise ValueError(
            f"encoder {config.name} says num_features={backbone.num_features} and gives {encoder.num_features}: its "
            "features must be [n, num_features]"
        )
    return encoder
