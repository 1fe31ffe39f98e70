"""Embeddings made Gaussian: their projections in random directions, or white by construction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ssl_ebm.energies import rows
from ssl_ebm.energies.whitening import METHODS, whiten
from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer, Views
from ssl_ebm.objectives.parts.shared_random import Draws


class SlicedGaussianity(Regularizer):
    """SIGReg: distance of random one-dimensional projections to N(0, 1), by their characteristic functions.

        mean_views mean_a  N ∫_{-3}^{3} |φ̂_a(u) - exp(-u²/2)|² exp(-u²/2) du

    φ̂_a is the empirical characteristic function of <z, a> for `slices` random unit directions a, drawn anew at each
    training step (from a counter, so that all ranks and resumed runs draw the same); trapezoids on `knots` in [0, 3],
    doubled. N(0, I) embeddings give about 1.05 for any N. By groups of slices where there is much to compute. LeJEPA
    (arXiv 2511.08544), as in its minimal script.
    """

    gaussian = True

    def __init__(self, *, slices: int = 256, knots: int = 17, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if slices < 1 or knots < 2:
            raise ValueError(f"slices must be >= 1 and knots >= 2, got {slices} and {knots}")
        self.slices, self.knots = slices, knots
        self.draws = Draws()

    def directions(self, z: Tensor) -> Float[Tensor, "dim slices"]:
        """This step's unit directions."""
        directions = torch.randn(z.shape[-1], self.slices, generator=self.draws.generator(), dtype=z.dtype)
        return F.normalize(directions, dim=0).to(z.device)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """Epps-Pulley statistic; about 1.05 at the optimum."""
        self.check(z)
        projected = z @ self.directions(z)
        group = rows.DENSE // (z.shape[0] * z.shape[1] * self.knots)
        if group >= self.slices:
            return z.shape[1] * self._distances(projected).mean()
        groups = projected.split(max(1, group), dim=2)
        distances = [checkpoint(self._distances, each, use_reentrant=False) for each in groups]
        return z.shape[1] * torch.cat(distances, dim=1).mean()

    def _distances(self, projected: Float[Tensor, "views batch slices"]) -> Float[Tensor, "views slices"]:
        u = torch.linspace(0, 3, self.knots, dtype=projected.dtype, device=projected.device)
        window = torch.exp(-u.square() / 2)
        trapezoid = torch.full_like(u, 2 * 3 / (self.knots - 1))
        trapezoid[[0, -1]] /= 2
        phase = projected.unsqueeze(-1) * u
        distance = (phase.cos().mean(1) - window).square() + phase.sin().mean(1).square()
        return distance @ (trapezoid * window)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"slices={self.slices}, knots={self.knots}, weight={self.weight:g}"


class WhitenedDistance(Regularizer):
    """Distance of whitened embeddings, 2 - 2 cos(Wz, W'z'), mean over images and pairs of views; in [0, 4].

    Each view is whitened by itself, in windows of the batch that one random permutation, shared by the views, is cut
    into (drawn from a counter, so that all ranks and resumed runs draw the same). White embeddings cannot all be one
    vector: a collapse costs 2. W-MSE (arXiv 2007.06346), where windows must divide the batch; here there are
    ⌊N / window⌋ of sizes that differ by at most one, or one window of all where the batch is smaller.

    Args:
        window: Images whitened together; None: 2 D, the authors' least.
        method: "cholesky" (the authors') or "zca", whose value does not depend on the coordinates of the embedding.
        iterations: Permutations averaged over.
        eps: ε of the ridge ε (tr C / D + 1e-4) on the covariance; the authors have none.
        weight: Its factor in the objective's sum.
    """

    gaussian = True

    def __init__(
        self,
        *,
        window: int | None = None,
        method: str = "cholesky",
        iterations: int = 1,
        eps: float = 1e-8,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {method!r}")
        if iterations < 1:
            raise ValueError(f"iterations must be >= 1, got {iterations}")
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self.window, self.method, self.iterations, self.eps = window, method, iterations, float(eps)
        self.draws = Draws()

    def least_batch(self, dim: int) -> int:
        """D + 2: of D + 1 images the white coordinates are the corners of a regular simplex, whatever they were."""
        return dim + 2

    def permutations(self, images: int) -> Int[Tensor, "iterations images"]:
        """This step's orders of the batch."""
        generator = self.draws.generator()
        return torch.stack([torch.randperm(images, generator=generator) for _ in range(self.iterations)])

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """0 where one view is the other shifted and scaled, by dimension for Cholesky; 2 when collapsed."""
        self.check(z)
        images, dim = z.shape[1:]
        window = 2 * dim if self.window is None else self.window
        if window < dim + 2:
            raise ValueError(f"window must be >= {dim + 2} at {dim} dimensions, got {window}: use {2 * dim}, or None")
        orders = self.permutations(images).to(z.device)
        exact = z.double()
        losses = [self._distance(exact[:, order], max(1, images // window)) for order in orders]
        return torch.stack(losses).mean().to(z.dtype)

    def _distance(self, z: Views, windows: int) -> Float[Tensor, ""]:
        """Mean over images and pairs of views; the first windows have one image more."""
        size, longer = divmod(z.shape[1], windows)
        parts = z.split([longer * (size + 1), (windows - longer) * size], dim=1)
        white = []
        for part, length in zip(parts, (size + 1, size), strict=True):
            if part.shape[1]:
                windowed = whiten(part.unflatten(1, (-1, length)), method=self.method, eps=self.eps)
                white.append(windowed.flatten(1, 2))
        # white vectors have length √D; what is shorter than 1e-6 is the rounding of a constant batch
        unit = F.normalize(torch.cat(white, dim=1), dim=-1, eps=1e-6)
        views = len(unit)
        cosines = (unit.sum(0).square().sum(1) - unit.square().sum((0, 2))) / (views * (views - 1))
        return 2 - 2 * cosines.mean()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"window={self.window}, method={self.method!r}, iterations={self.iterations}, weight={self.weight:g}"
