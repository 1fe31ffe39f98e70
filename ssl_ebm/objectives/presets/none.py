"""No joint embedding: the objective of runs that only the section `generative` of their config trains."""

from __future__ import annotations

from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.contrasts import Attract
from ssl_ebm.objectives.parts.targets import Target


class Itself(Target):
    """The target of a view is its own projection, so that one view per image is enough."""

    same_view = True


def none(*, projector: MLP = MLP(hidden=(), out=128, hidden_norm=False)) -> Objective:
    """0, for runs that a section `generative` trains, e.g. a plain EBM; one view per image is enough.

    Trained models score pairs by the cosine of a random projection of their features, which training does not change.
    Source: nobody's.
    """
    return Objective(
        energy=Cosine(), contrast=Attract(), target=Itself(), heads=HeadSpec(projector=projector), weight=0.0
    )
