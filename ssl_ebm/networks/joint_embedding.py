"""The networks that are trained: backbone and projector, and the predictor and teacher that an objective asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.encoder import Encoder
from ssl_ebm.networks.heads import HeadSpec, Prototypes


class JointEmbedding(nn.Module):
    """A backbone and its projector, and the predictor and teacher where the objective asks for them.

    All views of one size pass the backbone together, and all views pass the heads together, so that BatchNorm
    normalises over views and images. The teacher is a copy of backbone and projector that never gets a gradient and
    sees global views only; it stays in training mode with its own BatchNorm statistics, as in the official BYOL, MoCo
    and DINO.
    """

    def __init__(self, encoder: Encoder, heads: HeadSpec, *, uses: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = heads.projector.build(encoder.num_features)
        self.predictor = heads.predictor.build(heads.projector.dim) if heads.predictor else None
        self.teacher = (
            nn.Sequential(copy.deepcopy(encoder), copy.deepcopy(self.projector)) if "target" in uses else None
        )
        if self.teacher is not None:
            self.teacher.requires_grad_(False)
        self.frozen_prototypes = heads.projector.frozen_prototypes

    def forward(
        self,
        views: Float[Tensor, "v n c h w"] | tuple[Float[Tensor, "_ n c _ _"], ...],
        index: Int[Tensor, " n"] | None = None,
        label: Int[Tensor, " n"] | None = None,
    ) -> Embeddings:
        """Embeddings of all views of a batch; the views have one size, or several sizes with the global views first."""
        sizes = (views,) if isinstance(views, Tensor) else views
        features = torch.cat([_on_all_views(self.encoder.at_any_size, same_size) for same_size in sizes])
        projection = _on_all_views(self.projector, features)
        target = None
        if self.teacher is not None:
            with torch.no_grad():
                encoder, projector = cast("tuple[Encoder, nn.Module]", tuple(self.teacher))
                target = _on_all_views(projector, _on_all_views(encoder.at_any_size, sizes[0]))
        return Embeddings(
            features=features,
            projection=projection,
            prediction=None if self.predictor is None else _on_all_views(self.predictor, projection),
            target=target,
            index=index,
            label=label,
            global_views=None if isinstance(views, Tensor) else len(sizes[0]),
        )

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1], once a step: prototypes are frozen at its start."""
        for prototypes in self._prototypes():
            prototypes.frozen = fraction < self.frozen_prototypes

    def _prototypes(self) -> list[Prototypes]:
        return [module for module in self.projector.modules() if isinstance(module, Prototypes)]

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher's parameters, once a step: t ← momentum t + (1 - momentum) θ. Its buffers are its own."""
        if self.teacher is not None:
            student: list[Tensor] = [*self.encoder.parameters(), *self.projector.parameters()]
            teacher: list[Tensor] = list(self.teacher.parameters())
            torch._foreach_lerp_(teacher, student, 1 - momentum)


def _on_all_views(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network to all views of a batch [views, batch, ...] at once."""
    return network(x.flatten(0, 1)).unflatten(0, x.shape[:2])
