"""The supervised objective, which self-supervision is measured against: the label is the code that views share."""

from __future__ import annotations

from ssl_ebm.energies.codes import CodeCrossEntropy, Codes, SharedCode
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.code_targets import LabelTarget
from ssl_ebm.objectives.parts.contrasts import Attract


def supervised(*, temperature: float = 1.0, projector: MLP = MLP(hidden=(), out=10)) -> Objective:
    """-log p(y | x) = E(x, y) + log Σ_k exp(-E(x, k)), E(x, y) = -f_y(x) / τ: an energy with an exact partition.

    The projector gives f, so its output has as many dimensions as there are classes. Pairs of images are scored by the
    label that they share, -log Σ_k p(k|x) p(k|x') / p(k).
    Source: LeCun et al. 2006, A Tutorial on Energy-Based Learning: the negative log-likelihood loss.
    """
    codes = Codes(temperature=temperature)
    return Objective(
        energy=CodeCrossEntropy(codes),
        contrast=Attract(),
        target=LabelTarget(count=projector.dim),
        heads=HeadSpec(projector=projector),
        scorer=SharedCode(codes, count=projector.dim),
    )
