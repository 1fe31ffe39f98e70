"""An objective that the user wrote without the parts of this library: a loss of all embeddings of a batch."""

from __future__ import annotations

from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import nn

from ssl_ebm.energies.canonical import CanonicalForm
from ssl_ebm.energies.pairwise import Cosine, Energy
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Step


@runtime_checkable
class PlainObjective(Protocol):
    """The least that a training needs of an objective: an `nn.Module`, or another callable, from embeddings to a step.

    `Embeddings.projection` is [views, batch, dim]; `Step.loss` is a scalar, and `Step.terms` maps names to detached
    scalars that are logged. What else `Objective` offers is used where the module has an attribute of that name;
    without it,

    - `heads`: a projector `MLP()`, 2048 hidden units and 128 dimensions, and no predictor;
    - `uses`: no labels, positions of images or teacher are given ("label", "index", "target");
    - `scorer`: the trained model scores pairs by their cosine, which tables call a surrogate;
    - `canonical_form`: its energies order pairs and no more;
    - `set_progress`, `fit_to`: it is told neither the training's progress nor the number of images;
    - `teacher_momentum`: needed with "target" in `uses`;
    - `least_batch`: 2 images; `conservative`: True, the update is the gradient of a function.
    """

    def __call__(self, embeddings: Embeddings) -> Step:
        """Loss and terms of one batch, on the device of the embeddings."""
        ...


@final
class FromModule(nn.Module):
    """A `PlainObjective` with everything that the library reads of an `Objective`.

    Args:
        loss: The user's `PlainObjective`; its parameters are trained and its state is kept where it is an `nn.Module`.

    Raises:
        TypeError: It cannot be called, or its heads are no `HeadSpec`.
        ValueError: It reads a teacher whose momentum it does not say.
    """

    weight = 1.0

    def __init__(self, loss: Any) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"an objective must be callable with Embeddings, got {type(loss).__name__}")
        self.loss = loss
        self.heads = self._of_loss("heads", HeadSpec(projector=MLP()))
        if not isinstance(self.heads, HeadSpec):
            raise TypeError(f"heads of {type(loss).__name__} must be a HeadSpec, got {self.heads!r}")
        self.uses = frozenset(self._of_loss("uses", ())) | ({"prediction"} if self.heads.predictor else frozenset())
        self.surrogate = bool(self._of_loss("surrogate", not hasattr(loss, "scorer")))
        self.conservative = bool(self._of_loss("conservative", True))
        if "target" in self.uses and not hasattr(loss, "teacher_momentum"):
            raise ValueError(f"{type(loss).__name__} reads a teacher's projections: give it a teacher_momentum")

    def _of_loss(self, name: str, default: Any) -> Any:
        return getattr(self.loss, name, default)

    @property
    def by_label(self) -> bool:
        """Whether it reads labels."""
        return "label" in self.uses

    @property
    def scorer(self) -> Energy:
        """E(x, x') of a trained model's projections; low = compatible."""
        return self._of_loss("scorer", None) or Cosine()

    @property
    def energy(self) -> Energy:
        """The same: what the loss lowers is not known."""
        return self.scorer

    @property
    def canonical_form(self) -> CanonicalForm | None:
        """What the scorer means at the optimum; None: it orders pairs and no more."""
        return self._of_loss("canonical_form", None)

    @property
    def teacher_momentum(self) -> float | None:
        """Momentum of the teacher at the present progress; None without a teacher."""
        return self._of_loss("teacher_momentum", None)

    def least_batch(self) -> int:
        """The smallest batch that it can be computed on."""
        return self._of_loss("least_batch", lambda: 2)()

    def fit_to(self, dataset_size: int) -> None:
        """Tell how many images there are to train on, before the first batch."""
        self._of_loss("fit_to", lambda count: None)(dataset_size)

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1], once a step."""
        self._of_loss("set_progress", lambda part: None)(fraction)

    def forward(self, embeddings: Embeddings) -> Step:
        """Loss and terms of one batch, in float32 where embeddings are of half precision.

        Raises:
            TypeError: The user's loss returned something else.
        """
        with torch.autocast(embeddings.projection.device.type, enabled=False):
            step = self.loss(embeddings.float())
        if not isinstance(step, Step) or step.loss.ndim != 0:
            got = f"a loss of shape {list(step.loss.shape)}" if isinstance(step, Step) else type(step).__name__
            raise TypeError(f"{type(self.loss).__name__} must return Step(scalar loss, terms), got {got}")
        return step
