"""A loss that a run adds to its objective's, and the alarm that says when training it goes wrong."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.joint_embedding import JointEmbedding
from ssl_ebm.objectives.objective import Step

Views = Float[Tensor, "v n c h w"] | tuple[Float[Tensor, "_ n c _ _"], ...]


class Alarm:
    """Counts how often in a row a measurement showed a sign of trouble.

    Attributes:
        sign: What was wrong at the last measurement; None: nothing.
        count: Measurements in a row with a sign.

    Args:
        patience: Measurements in a row after which the sign has persisted.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self.count = 0
        self.sign: str | None = None

    def watch(self, sign: str | None) -> None:
        """Count one measurement."""
        self.sign = sign
        self.count = self.count + 1 if sign else 0

    @property
    def persisted(self) -> str | None:
        """The sign, where it was there for `patience` measurements in a row: the run should not go on like this."""
        return self.sign if self.count >= self.patience else None


class Term(nn.Module):
    """A loss that is added to the objective's: a map from a step to a step.

    Its parameters are trained with the run's, its state dict is saved in the checkpoint, and what it draws at random
    comes from the generator that it is called with, so that a resumed run is the run never stopped.

    Attributes:
        alarm: Signs that the training of this loss diverges; None: nothing is watched.
        rollbacks: How often a run in which the alarm persists returns to its last checkpoint before it stops.
        subject: What diverges, for the message.
        remedy: What to change in the config, for the message.
        is_logged: True in updates that are written to metrics.jsonl: costly measurements are wanted in these only.
    """

    alarm: Alarm | None = None
    rollbacks: int = 0
    subject: str = "the added loss"
    remedy: str = "lower its weight"
    is_logged: bool = False

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1], once an update."""

    def forward(
        self,
        model: JointEmbedding,
        step: Step,
        embeddings: Embeddings,
        views: Views,
        generator: torch.Generator,
    ) -> Step:
        """The step with this loss added, and what is to be logged of it.

        Args:
            model: The run's networks.
            step: Loss and logged scalars so far.
            embeddings: What the networks give for the views.
            views: Images in [0, 1].
            generator: Seeded by the run's seed and the update.
        """
        raise NotImplementedError

    def energy_parts(self) -> dict[str, nn.Module]:
        """What it trains of an `EnergyModel`, by the name of the part."""
        return {}
