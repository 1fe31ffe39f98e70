"""Latent codes: one of K codes explains an image, p(k | x), and two images are compatible if one code explains both.

E(x, x') = min_k E(x, x', k), softened to a free energy. Training compares one view's distribution over codes with the
other's (`CodeCrossEntropy`); afterwards pairs are scored by the code they share (`SharedCode`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm.energies.pairwise import Energy, Factor, Side
from ssl_ebm.networks.heads import Prototypes


class Codes(nn.Module):
    """p(k | z) = softmax_k(logits / τ): the logits are z itself, or its cosines with K learned unit prototypes.

    Args:
        temperature: τ.
        prototypes: K; None: the network gives the logits (DINO's last layer has a teacher of its own).
        dim: Of the embeddings; only with prototypes.
        frozen: Fraction of the training at whose beginning prototypes get no gradient (SwAV, arXiv 2006.09882).
    """

    def __init__(
        self, *, temperature: float = 0.1, prototypes: int | None = None, dim: int | None = None, frozen: float = 0.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        if not 0 <= frozen < 1:
            raise ValueError(f"frozen must be a fraction in [0, 1), got {frozen}")
        if prototypes is not None and (prototypes < 2 or dim is None):
            raise ValueError(f"prototypes must be >= 2 and have a dim, got {prototypes} and {dim}")
        self.temperature, self.frozen = float(temperature), float(frozen)
        self.layer: Prototypes | None = None
        if prototypes is not None and dim is not None:
            self.layer = Prototypes(dim, prototypes, generator=torch.Generator().manual_seed(0))  # equal on all ranks
        self.dim = None if self.layer is None else dim

    @property
    def prototypes(self) -> Tensor | None:
        """Vectors of the codes, whose lengths do nothing."""
        return None if self.layer is None else self.layer.weight

    def set_progress(self, fraction: float) -> None:
        """How much of the training is done, in [0, 1]: thaws the prototypes."""
        if self.layer is not None:
            self.layer.frozen = fraction < self.frozen

    def logits(self, z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch codes"]:
        """Before the temperature; in [-1, 1] with prototypes."""
        return z if self.layer is None else self.layer(z)

    def log_probabilities(self, z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch codes"]:
        """Logarithms of p(k | z)."""
        return F.log_softmax(self.logits(z) / self.temperature, dim=-1)

    def probabilities(self, z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch codes"]:
        """The distribution over codes."""
        return self.log_probabilities(z).exp()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"temperature={self.temperature:g}"


class CodeCrossEntropy(Energy):
    """E(a, q) = -Σ_k q_k log p(k | a) of an embedding and a distribution over codes, as a code `Target` gives it; ≥ 0.

    An energy of (image, code) averaged under q, plus the exact free energy over codes: <q, E_k> + log Σ_k exp(-E_k).
    """

    symmetric = False
    nonnegative = True
    formula = "-Σ_k q_k({b}) log p(k|{a})"

    def __init__(self, codes: Codes) -> None:
        super().__init__()
        self.codes, self.dim = codes, codes.dim

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = log p(· | a), g = q; no offsets."""
        return Factor(self.codes.log_probabilities(x) if side == "anchor" else x, None)

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n codes"]) -> Float[Tensor, " n"]:
        """H(b_i, p(· | a_i))."""
        return -(self.codes.log_probabilities(a) * b).sum(1)

    def cross(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "m codes"]) -> Float[Tensor, "n m"]:
        """H(b_j, p(· | a_i))."""
        return -self.codes.log_probabilities(a) @ b.T


class SharedCode(Energy):
    """E(a, b) = -log Σ_k p(k | a) p(k | b) / p(k): minus the pointwise mutual information that one shared code carries.

    p(k) is a running mean over training of both views' p(k | z), a buffer; uniform at first.
    """

    linear = False
    updates = True
    formula = "-log Σ_k p(k|{a}) p(k|{b}) / p(k)"
    marginal: Tensor

    def __init__(self, codes: Codes, *, count: int, momentum: float = 0.99) -> None:
        super().__init__()
        self.codes, self.momentum, self.dim = codes, float(momentum), codes.dim or count
        self.register_buffer("marginal", torch.full((count,), 1 / count))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors p(· | x) / √p(·), on both sides."""
        return Factor(self.codes.probabilities(x) * self.marginal.clamp(min=1e-12).rsqrt().to(x.dtype), None)

    def link(self, raw: Tensor) -> Tensor:
        """-log(-raw)."""
        return -(-raw).clamp(min=torch.finfo(raw.dtype).tiny).log()

    @torch.no_grad()
    def update(self, z: Float[Tensor, "views batch dim"]) -> None:
        """Move p(k) towards the batch's mean."""
        self.marginal.lerp_(self.codes.probabilities(z).mean((0, 1)).to(self.marginal.dtype), 1 - self.momentum)


def sinkhorn(log_scores: Float[Tensor, "n codes"], *, iterations: int = 3) -> Float[Tensor, "n codes"]:
    """Assignments that use every code equally: exp(scores) scaled to columns of n / K and rows of 1, by turns.

    Rows are scaled last, so each is a distribution. In logarithms, so that nothing overflows. SwAV (arXiv 2006.09882,
    eq. 3; Cuturi 2013): log_scores = logits / ε.
    """
    log_q = log_scores
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()
