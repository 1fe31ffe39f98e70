"""Energies of an image, E(x), from its features or projection: one number an image, low where the data are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.generative.rbm.encoder import RBMEncoder
from ssl_ebm.generative.rbm.machine import RBM


class ScalarHead(nn.Module):
    """E(x) = MLP(features), with SiLU between layers: a smooth energy has a gradient that Langevin dynamics can use.

    Args:
        features: Dimension of the features.
        hidden: Widths of the hidden layers; () is linear.
    """

    reads = "features"

    def __init__(self, features: int, *, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        widths = (features, *hidden)
        if min(widths) < 1:
            raise ValueError(f"head widths must be >= 1, got {widths}")
        layers: list[nn.Module] = []
        for below, above in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(below, above), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """E of each image."""
        return self.layers(features)[:, 0]


class LogitsHead(nn.Module):
    """JEM: E(x) = -log Σ_y exp(f_y(x) / τ), the free energy of a `LabelEnergy` (Grathwohl et al., arXiv 1912.03263).

    It has no parameters: the projector gives the logits, and whatever trains them as a classifier trains E(x, y).

    Args:
        temperature: τ.
    """

    reads = "projection"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.label_energy = LabelEnergy(temperature=temperature)

    def forward(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """E of each image, its label summed out."""
        return self.label_energy.free_energy(logits)


class JointHead(nn.Module):
    """EBCLR: E(x) = -log Σ_j exp(-E(x, x'_j) / τ), the marginal of the joint energy over a batch of views.

    It has no parameters: whatever shapes E(x) shapes the joint embedding. The energies of this library hold their
    temperature already, so τ is 1 but for an energy without one (Kim and Ye 2022, arXiv 2202.04933: E is the squared
    distance of unit vectors, τ = .1).

    Args:
        energy: The joint energy of projections; it belongs to the objective.
        temperature: τ.
    """

    reads = "projection"

    def __init__(self, energy: Energy, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self.joint = (energy,)  # not a submodule: its parameters are the objective's
        self.temperature = float(temperature)

    def forward(self, projection: Float[Tensor, "n d"], bank: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
        """E of each image against the projections of a batch of views."""
        return -(-self.joint[0].cross(projection, bank) / self.temperature).logsumexp(1)


class NormHead(nn.Module):
    """CLEL: E(x) = ½‖f(x)‖², and p(x, z) ∝ exp(-½‖f(x)‖² + β ⟨g(f(x)), z⟩) with g and z on the unit sphere.

    ∫ exp(β ⟨g, z⟩) dz over the sphere is the same for every unit vector g, so the marginal over z is exp(-E(x)) up to a
    constant. Lee et al. 2023, arXiv 2303.03023. There f and the encoder of z are two networks, g has hidden layers,
    and directions g of samples are more negatives of the contrastive loss; here the two share the backbone, g is
    linear, and the contrastive loss is the objective's own.

    Args:
        features: Dimension of f(x).
        latent: Dimension of z.
        concentration: β; .01 in the authors' configuration for CIFAR-10.
    """

    reads = "features"

    def __init__(self, features: int, *, latent: int, concentration: float = 0.01) -> None:
        super().__init__()
        if latent < 2 or not concentration >= 0:
            raise ValueError(f"latent must be >= 2 and concentration >= 0, got {latent} and {concentration}")
        self.concentration = float(concentration)
        self.direction = nn.Linear(features, latent)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """½‖f‖² of each image."""
        return features.square().sum(1) / 2

    def alignment(self, features: Float[Tensor, "n d"], z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """E(x, z) - E(x) = -β ⟨g(f), z/‖z‖⟩."""
        cosine = (F.normalize(self.direction(features), dim=1) * F.normalize(z, dim=1)).sum(1)
        return -self.concentration * cosine


class FreeEnergyHead(nn.Module):
    """E(x) = F(v), an RBM's own energy of an image with its hidden units summed out. It has no parameters.

    Args:
        encoder: With an RBM as its backbone; the head does not own it.

    Raises:
        ValueError: It has another backbone.
    """

    reads = "images"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        if not isinstance(encoder.backbone, RBMEncoder):
            raise ValueError(
                f"the free_energy head is an RBM's, got a {type(encoder.backbone).__name__}: set encoder.name=rbm"
            )
        self.encoder = (encoder,)  # not a submodule: its parameters are the encoder's

    @property
    def rbm(self) -> RBM:
        """The machine that the backbone holds."""
        backbone = self.encoder[0].backbone
        assert isinstance(backbone, RBMEncoder)
        return backbone.rbm

    def visible(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n visible"]:
        """The units v of images in [0, 1]."""
        encoder: Any = self.encoder[0]
        return encoder.backbone.visible((images - encoder.mean) / encoder.std)

    @torch.no_grad()
    def expected(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Probabilities of pixels under the hidden units that images make likely: a binary sample without its grain."""
        return self.rbm.visible_probability(self.rbm.hidden_probability(self.visible(images))).view_as(images)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """F of each image."""
        return self.rbm(self.visible(images))


Head = ScalarHead | LogitsHead | JointHead | NormHead | FreeEnergyHead
