"""No joint embedding: what a run has whose config's section `generative` is the whole objective."""

from __future__ import annotations

from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.contrasts import Attract
from ssl_ebm.objectives.parts.targets import Target


class Itself(Target):
    """Each view's own projection, so that one view is enough."""

    same_view = True


def none(*, projector: MLP = MLP(hidden=(), out=128, hidden_norm=False)) -> Objective:
    """0: for runs with a section `generative`, e.g. a plain EBM, and with one view an image.

    Trained models score pairs by the cosine of a random projection of their features, which training leaves alone.
    Source: nobody's.
    """
    return Objective(
        energy=Cosine(), contrast=Attract(), target=Itself(), heads=HeadSpec(projector=projector), weight=0.0
    )
