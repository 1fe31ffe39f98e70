"""One equation for every objective.

    L = weight · mean over anchors of contrast({E⁺}, {E⁻}) + Σ_r weight_r · regularizer_r(z)

An objective is a choice of its parts: the energy E, the contrast, where negatives come from, what is done to the branch
compared with, and the regularizers. The files of this folder hold those choices, one a family of theories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.contrasts import Contrast
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.energies import Energy
from ssl_ebm.heads import HeadSpec
from ssl_ebm.negatives import Comparison, Negatives, Pair
from ssl_ebm.regularizers import Regularizer
from ssl_ebm.targets import Target

Pairing = Literal["both", "first", "mean"]


@dataclass(frozen=True)
class Step:
    """What an objective returns.

    Attributes:
        loss: The scalar to minimise.
        terms: Detached scalars: `energy_positive` (mean E⁺), `energy_negative` where there are negatives, and each
            part's unweighted value.
    """

    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """A joint-embedding objective as the composition of its parts.

    The anchor is the projection, or the prediction where `heads.predictor` is given. Half-precision embeddings are
    computed with in float32. With several processes, every rank calls it with its own share of the batch and DDP's
    average of the gradients is that of one process on the whole batch.

    Args:
        energy: E(x, x') between anchor and target; also what the trained model scores pairs with.
        heads: The paper's projector and predictor.
        contrast: Energies of positives and negatives -> loss per anchor. None: the regularizers are the whole
            objective, and the energy is a surrogate to score with.
        negatives: Where negatives come from.
        target: What is done to the branch compared with.
        regularizers: By name; each has its own weight.
        pairing: Which views are compared: "both" orders of every two views, the "first" view with the others, or each
            view with the "mean" of all.
        by_label: Samples of one class are compatible, instead of views of one image.
        weight: Factor of the contrast.
        conservative: Whether its update is the gradient of a function; not so for predictor and teacher methods.
    """

    def __init__(
        self,
        *,
        energy: Energy,
        heads: HeadSpec,
        contrast: Contrast | None,
        negatives: Negatives | None = None,
        target: Target | None = None,
        regularizers: Mapping[str, Regularizer] | None = None,
        pairing: Pairing = "both",
        by_label: bool = False,
        weight: float = 1.0,
        conservative: bool = True,
    ) -> None:
        super().__init__()
        self.energy, self.heads, self.contrast = energy, heads, contrast
        self.negatives = negatives or Negatives()
        self.target = target or Target()
        self.regularizers = nn.ModuleDict(regularizers or {})
        self.pairing, self.by_label, self.weight, self.conservative = pairing, by_label, float(weight), conservative
        self.progress = 0.0
        self._check_parts()

    def _check_parts(self) -> None:
        has_negatives = type(self.negatives) is not Negatives
        if self.contrast is not None and self.contrast.needs_negatives and not has_negatives:
            raise ValueError(f"contrast {type(self.contrast).__name__} needs negatives: give BatchNegatives or a queue")
        if has_negatives and (self.contrast is None or not self.contrast.needs_negatives):
            raise ValueError(f"{type(self.negatives).__name__} without a contrast that reads negatives: leave it out")
        if self.by_label and not self.negatives.by_label:
            raise ValueError(f"by_label needs BatchNegatives, got {type(self.negatives).__name__}")
        if self.contrast is None and not self.regularizers:
            raise ValueError("an objective needs a contrast, a regularizer, or both")

    @property
    def uses(self) -> frozenset[str]:
        """Optional embeddings that it reads: the model builds predictor and teacher from this."""
        own = {"prediction"} if self.heads.predictor is not None else set()
        return frozenset(own | self.target.uses | ({"label"} if self.by_label else set()))

    @property
    def surrogate(self) -> bool:
        """Whether its energy is a stand-in for a loss of the whole batch, fitted to score pairs."""
        return self.contrast is None

    @property
    def teacher_momentum(self) -> float | None:
        """Momentum of the teacher at the present progress; None without a teacher."""
        return self.target.teacher_momentum(self.progress)

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1], once a step."""
        self.progress = float(fraction)

    def forward(self, embeddings: Embeddings) -> Step:
        """Loss and terms of one batch; in training, queues and memories are updated after it was scored.

        Raises:
            ValueError: A part that it reads is missing, or there are too few views or images.
        """
        with torch.autocast(embeddings.projection.device.type, enabled=False):
            return self._step(embeddings.float())

    def _step(self, embeddings: Embeddings) -> Step:
        self._check_shape(embeddings)
        anchors = embeddings.projection
        if self.heads.predictor is not None:
            anchors = embeddings.require("prediction", why="an objective with a predictor")
        targets, pairs = self.target(embeddings), self._pairs(len(anchors))
        if self.pairing == "mean":
            targets = targets.mean(0, keepdim=True)
        label = embeddings.require("label", why="a supervised objective") if self.by_label else None
        compared = self.negatives(self.energy, anchors, targets, pairs, label)
        terms = self._energies(compared)
        loss = anchors.new_zeros(())
        if self.contrast is not None:
            value = torch.cat([self.contrast(positive, negative) for positive, negative in compared]).mean()
            loss = loss + self.weight * value
            terms["contrast"] = value.detach()
        everything = distributed.gather(embeddings.projection, dim=1) if self.regularizers else None
        for name, regularizer in self.regularizers.items():
            value = regularizer(everything)
            loss = loss + regularizer.weight * value
            terms[name] = value.detach()
        # a queue must not remember a batch that the loop will skip, and all ranks must agree on it
        if self.training and bool(distributed.mean(loss.detach()).isfinite()):
            self.negatives.update(targets, pairs)
            self.target.update(embeddings)
        return Step(loss, terms)

    def _check_shape(self, embeddings: Embeddings) -> None:
        views, batch = embeddings.projection.shape[:2]
        if views < 2 and not self.target.same_view:
            raise ValueError(f"the objective compares views: needs at least 2 an image, got {views}")
        if batch * distributed.world_size() < 2:
            raise ValueError("a batch of 1 image has nothing to be told apart from: use a batch of at least 2")

    def _pairs(self, views: int) -> list[Pair]:
        if self.target.same_view:
            return [(v, v) for v in range(views)]
        if self.pairing == "mean":
            return [(v, 0) for v in range(views)]
        anchors = range(views) if self.pairing == "both" else range(1)
        return [(a, b) for a in anchors for b in range(views) if a != b]

    @staticmethod
    @torch.no_grad()
    def _energies(compared: list[Comparison]) -> dict[str, Tensor]:
        means = {"energy_positive": torch.cat([positive.mean_energy() for positive, _ in compared]).mean()}
        negatives = [negative.mean_energy() for _, negative in compared if negative is not None]
        if negatives:
            means["energy_negative"] = torch.cat(negatives).mean()
        return means
