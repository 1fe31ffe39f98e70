"""One equation for every objective.

    L = weight · mean over anchors of contrast({E⁺}, {E⁻}) + Σ_r weight_r · regularizer_r(z)

An objective is a choice of parts: the energy E, the contrast, the negatives, the target that anchors are compared with,
and the regularizers. The files of `presets` hold the published choices, one file for each family of theories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.energies.canonical import CanonicalForm, Gaussian
from ssl_ebm.energies.codes import CodeCrossEntropy, SharedCode
from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.energies.rows import Rows
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import HeadSpec
from ssl_ebm.objectives.parts.borrowed import Borrowed
from ssl_ebm.objectives.parts.compatibility import BatchNames, Graph
from ssl_ebm.objectives.parts.contrasts import Contrast
from ssl_ebm.objectives.parts.negatives import Negatives, QueueNegatives, ViewPair
from ssl_ebm.objectives.parts.regularizers import Regularizer
from ssl_ebm.objectives.parts.targets import Target

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
    converted to float32. With several processes, every rank calls the objective with its own share of the batch, and
    DDP's average of the gradients is the gradient of one process on the whole batch.

    Args:
        energy: E(x, x') between anchor and target.
        heads: The paper's projector and predictor.
        contrast: Loss of an anchor from the energies of its positives and negatives. None: the regularizers are the
            whole objective, and the energy is a surrogate to score pairs with.
        negatives: Where negatives come from.
        target: What an anchor is compared with.
        regularizers: Regularizers by name; each has its own weight.
        pairing: Which views are compared: "both" orders of every two views, the "first" view with the others, or each
            view with the "mean" of the global ones.
        graph: Which samples are compatible; None: the views of one image.
        transposed: Compare each target with the batch's anchors, instead of each anchor with the batch's targets.
        weight: Factor of the contrast in the loss.
        scorer: The energy by which the trained model scores pairs of projections; None: `energy`.

    Raises:
        ValueError: The parts do not go together; with the reason.
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
        graph: Graph | None = None,
        transposed: bool = False,
        weight: float = 1.0,
        scorer: Energy | None = None,
    ) -> None:
        super().__init__()
        if pairing not in ("both", "first", "mean"):
            raise ValueError(f"pairing must be 'both', 'first' or 'mean', got {pairing!r}")
        self.energy, self.heads, self.contrast = energy, heads, contrast
        self.negatives = negatives or Negatives()
        self.target = target or Target()
        self.regularizers = nn.ModuleDict(regularizers or {})
        self.graph, self.own_scorer = graph, scorer
        self.pairing, self.transposed, self.weight = pairing, transposed, float(weight)
        self.progress = 0.0
        self._check_parts()
        if graph is not None and isinstance(self.negatives, QueueNegatives):
            self.negatives.queue.remember_samples()

    def replace(self, **parts: Any) -> Objective:
        """An objective with some parts replaced; it shares the other parts with this one."""
        present: dict[str, Any] = {
            "energy": self.energy,
            "heads": self.heads,
            "contrast": self.contrast,
            "negatives": self.negatives,
            "target": self.target,
            "regularizers": self.named_regularizers,
            "pairing": self.pairing,
            "graph": self.graph,
            "transposed": self.transposed,
            "weight": self.weight,
            "scorer": self.own_scorer,
        }
        return Objective(**(present | parts))

    @property
    def named_regularizers(self) -> dict[str, Regularizer]:
        """The regularizers by name."""
        return cast("dict[str, Regularizer]", dict(self.regularizers.items()))

    def _check_parts(self) -> None:
        """Refuse parts that do not go together, before any work."""
        contrast, has_negatives = self.contrast, self.negatives.gives_negatives
        if contrast is None and not self.regularizers:
            raise ValueError("an objective needs a contrast, a regularizer, or both")
        if contrast is not None and contrast.needs_negatives and not has_negatives:
            raise ValueError(
                f"contrast {type(contrast).__name__} needs negatives, or a flat energy is its minimum: give negatives "
                "'batch' or 'queue'"
            )
        if has_negatives and (contrast is None or not contrast.needs_negatives):
            raise ValueError(f"{type(self.negatives).__name__} without a contrast that reads negatives: leave it out")
        if contrast is not None and contrast.needs_nonnegative and not self.energy.nonnegative:
            raise ValueError(
                f"contrast {type(contrast).__name__} squares energies, and {type(self.energy).__name__} can be "
                "negative, so it would push positives apart: use a distance"
            )
        if self.graph is not None and not self.negatives.takes_graph:
            raise ValueError(f"{type(self.negatives).__name__} knows no neighbours: a graph needs BatchNegatives")
        if self.graph is not None and (contrast is None or self.target.same_view or self.pairing == "mean"):
            raise ValueError("a graph says which pairs a contrast pulls together: this objective has no such pairs")
        if isinstance(self.negatives, QueueNegatives) and not self.energy.scale_free:
            raise ValueError(
                f"a queue holds unit vectors, and {type(self.energy).__name__} sees the lengths of the others: use "
                "cosine, or a distance with normalize=True"
            )
        self._check_target()
        self._check_owners()

    def _check_target(self) -> None:
        """Refuse a target that does not go with the other parts."""
        target = self.target
        if isinstance(self.energy, CodeCrossEntropy) != target.distribution:
            raise ValueError(
                f"energy {type(self.energy).__name__} and target {type(target).__name__} do not go together: a "
                "cross-entropy over codes needs a target that is a distribution over codes, and only it takes one"
            )
        if target.distribution and self.negatives.gives_negatives:
            raise ValueError("codes are limited by their target (centring, equipartition): they take no negatives")
        if target.distribution and self.transposed:
            raise ValueError("transposed makes anchors of the targets: a distribution over codes cannot be one")
        if target.same_view and self.pairing == "mean":
            raise ValueError(f"{type(target).__name__} is a target for each view: pairing 'mean' has one for all")
        for name, regularizer in self.named_regularizers.items():
            if "prediction" in regularizer.reads and self.heads.predictor is None:
                raise ValueError(f"regularizer {name} reads predictions: give the objective a predictor")
            if "target" in regularizer.reads and "target" not in target.uses:
                raise ValueError(f"regularizer {name} reads a teacher's projections: give target 'teacher'")

    def _check_owners(self) -> None:
        """Refuse a part that borrows from another one which is not, or no longer, a part of this objective."""
        modules = {id(module) for module in self.modules()}
        for part in self.modules():
            for borrowed in (value for value in vars(part).values() if isinstance(value, Borrowed)):
                if id(borrowed.module) not in modules:
                    user, used = type(part).__name__, type(borrowed.module).__name__
                    raise ValueError(f"{user} uses {used} that was replaced: replace it, too")

    @property
    def uses(self) -> frozenset[str]:
        """Optional embeddings that the objective reads: the model builds predictor and teacher for them."""
        read = {"prediction"} if self.heads.predictor is not None else set()
        read |= {part for regularizer in self.named_regularizers.values() for part in regularizer.reads}
        read |= self.target.uses | ({self.graph.reads} if self.graph is not None else set())
        return frozenset(read - {"projection"})

    @property
    def by_label(self) -> bool:
        """True if the objective reads labels."""
        return "label" in self.uses

    @property
    def scorer(self) -> Energy:
        """The energy E(x, x') of a trained model's projections; low = compatible."""
        return self.energy if self.own_scorer is None else self.own_scorer

    @property
    def conservative(self) -> bool:
        """True if the update is the gradient of a function, given what is remembered of earlier batches."""
        return self.target.conservative

    @property
    def surrogate(self) -> bool:
        """True if the loss is one of the whole batch, and the energy only stands in for it to score pairs."""
        return self.contrast is None

    @property
    def canonical_form(self) -> CanonicalForm | None:
        """What the scorer means at the optimum; None: it orders pairs and no more.

        With a predictor it is None: the trained model leaves the predictor out, and what the energy of projections
        means is not known.
        """
        if isinstance(self.scorer, SharedCode):
            return CanonicalForm()
        if self.heads.predictor is not None:
            return None
        if self.contrast is not None and self.contrast.canonical_form is not None:
            return self.contrast.canonical_form
        return Gaussian() if any(regularizer.gaussian for regularizer in self.named_regularizers.values()) else None

    @property
    def teacher_momentum(self) -> float | None:
        """Momentum of the teacher at the present progress of the training; None without a teacher."""
        return self.target.teacher_momentum(self.progress)

    def least_batch(self) -> int:
        """The smallest batch that the objective can be computed on."""
        dim = self.heads.projector.dim
        return max([2, *(regularizer.least_batch(dim) for regularizer in self.named_regularizers.values())])

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1]; called once a step."""
        self.progress = float(fraction)
        self.target.set_progress(self.progress)
        if isinstance(self.energy, CodeCrossEntropy):
            self.energy.codes.set_progress(self.progress)

    def fit_to(self, dataset_size: int) -> None:
        """Tell how many images there are to train on, before the first batch: a memory holds one entry for each."""
        self.target.fit_to(dataset_size)
        if self.contrast is not None:
            self.contrast.fit_to(dataset_size)

    def forward(self, embeddings: Embeddings | Float[Tensor, "batch dim"], *views: Float[Tensor, "batch dim"]) -> Step:
        """Loss and terms of one batch. In training, queues and memories are updated after the batch was scored.

        Args:
            embeddings: All that the objective reads; or the projections of the first view, where it reads no more.
            *views: The projections of the other views then.

        Raises:
            ValueError: A part that it reads is missing, or there are too few views or images.
        """
        if isinstance(embeddings, Tensor):
            embeddings = Embeddings.of_views(embeddings, *views)
        elif views:
            raise ValueError("an objective takes Embeddings alone, or one tensor [batch, dim] for each view")
        with torch.autocast(embeddings.projection.device.type, enabled=False):
            embeddings = embeddings.float()
            self._check_shape(embeddings)
            anchors = embeddings.projection
            if self.heads.predictor is not None:
                anchors = embeddings.require("prediction", why="an objective with a predictor")
            targets = self.target(embeddings)
            if self.pairing == "mean":
                targets = targets[: embeddings.global_views].mean(0, keepdim=True)
            pairs = self._pairs(len(anchors), len(targets))
            if self.transposed:
                anchors, targets, pairs = targets, anchors, [(b, a) for a, b in pairs]
            names = None
            if self.graph is not None:
                sample_names = embeddings.require(self.graph.reads, why=f"a graph by {self.graph.reads}")
                names = BatchNames(self.graph, sample_names)
            comparisons = self.negatives(anchors, targets, pairs, names)
            rows = [comparison.rows(self.energy) for comparison in comparisons]
            loss, terms = anchors.new_zeros(()), {}
            if self.contrast is not None:
                value = torch.cat([self.contrast(positive, negative) for positive, negative in rows]).mean()
                loss = loss + self.weight * value
                terms["contrast"] = value.detach()
            # after the contrast: rows keep the energies that are computed first, and the contrast needs their gradient
            terms = self._energies(rows) | terms
            gathered: dict[str, Tensor] = {}
            for name, regularizer in self.named_regularizers.items():
                value = regularizer(self._gather_parts(embeddings, regularizer, gathered))
                loss = loss + regularizer.weight * value
                terms[name] = value.detach()
            # queues must not remember a batch that the training loop will skip; the mean makes all ranks agree
            if self.training and bool(distributed.mean(loss.detach()).isfinite()):
                self._take_note(embeddings, targets, pairs, names)
            return Step(loss, terms)

    @staticmethod
    def _gather_parts(embeddings: Embeddings, regularizer: Regularizer, gathered: dict[str, Tensor]) -> Tensor:
        """The parts of all ranks' batch that a regularizer reads; `gathered` keeps them for the next regularizer."""
        parts = []
        for part in regularizer.reads:
            if part not in gathered:
                local = embeddings.require(part, why=f"the regularizer {type(regularizer).__name__}")
                local = local.detach() if part == "target" else local
                gathered[part] = distributed.gather(local, dim=1)
            limit = embeddings.global_views if regularizer.global_views_only else None
            parts.append(gathered[part][:limit])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.no_grad()
    def _take_note(
        self, embeddings: Embeddings, targets: Tensor, pairs: list[ViewPair], names: BatchNames | None
    ) -> None:
        """Let queues, memories and running statistics follow a batch that was scored."""
        self.negatives.update(targets, pairs, names)
        self.target.update(embeddings)
        for regularizer in self.named_regularizers.values():
            regularizer.update()
        updating = [energy for energy in (self.energy, self.own_scorer) if energy is not None and energy.updates]
        if updating:
            projection = distributed.gather(embeddings.projection.detach(), dim=1)
            for energy in updating:
                energy.update(projection)

    def _check_shape(self, embeddings: Embeddings) -> None:
        """Refuse embeddings of other dimensions than the parts have, and too few views or images."""
        views, batch, dim = embeddings.projection.shape
        for part in (self.energy, self.target, self.negatives, self.scorer):
            if part.dim not in (None, dim):
                raise ValueError(
                    f"embeddings have {dim} dimensions and {type(part).__name__} {part.dim}: give the objective the "
                    "projector that the model has"
                )
        if views < 2 and not self.target.same_view:
            raise ValueError(f"the objective compares views: needs at least 2 an image, got {views}")
        batch, least = batch * distributed.world_size(), self.least_batch()
        if batch < 2:
            raise ValueError("a batch of 1 image has nothing to be told apart from: use a batch of at least 2")
        if batch < least:
            raise ValueError(f"the objective needs a batch of at least {least} images at this dimension, got {batch}")

    def _pairs(self, views: int, targets: int) -> list[ViewPair]:
        """The pairs (anchor's view, target's view) that are compared."""
        if self.target.same_view:
            return [(v, v) for v in range(views)]
        if self.pairing == "mean":
            return [(v, 0) for v in range(views)]
        anchors = range(views) if self.pairing == "both" else range(1)
        pairs = [(a, b) for a in anchors for b in range(targets) if a != b]
        if not pairs:
            raise ValueError(f"the first view is compared with other global ones: needs at least 2, got {targets}")
        return pairs

    @staticmethod
    @torch.no_grad()
    def _energies(rows: list[tuple[Rows, Rows | None]]) -> dict[str, Tensor]:
        """Mean E⁺ and, where there are negatives, mean E⁻, for the log."""
        means = {"energy_positive": torch.cat([positive.mean_energy() for positive, _ in rows]).mean()}
        negatives = [negative.mean_energy() for _, negative in rows if negative is not None]
        if negatives:
            means["energy_negative"] = torch.cat(negatives).mean()
        return means
