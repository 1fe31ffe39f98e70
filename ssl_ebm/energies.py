"""Joint-embedding energies E(a, b): low for compatible pairs. One sign, everywhere, in nats.

Every energy here is an inner product up to offsets, seen through an increasing function,

    E(a, b) = link(-<f(a), g(b)> + u(a) + v(b)),

so that one factorisation serves the pairwise value, the whole matrix, linear-memory tiles and inner-product search. The
link is the identity but for distances, kernels and codes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Side = Literal["anchor", "candidate"]


class Factor(NamedTuple):
    """One side of E_ij = link(-<f_i, g_j> + u_i + v_j)."""

    vectors: Float[Tensor, "n k"]
    offset: Float[Tensor, " n"] | None  # None: zero


class Energy(nn.Module):
    """E(a, b) of two embeddings; low = compatible.

    A subclass gives `factor`, and `link` where it is not the identity; `paired` and `cross` follow from them.

    Attributes:
        symmetric: Whether E(a, b) = E(b, a).
        bound: |E| is at most this for all pairs, where that is known before any data; tiles then need no running maximum.
    """

    symmetric: bool = True
    bound: float | None = None

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors and offset of one side of the factorisation."""
        raise NotImplementedError

    def link(self, raw: Tensor) -> Tensor:
        """The energy of -<f, g> + u + v, elementwise and increasing."""
        return raw

    @property
    def linear(self) -> bool:
        """Whether the link is the identity."""
        return type(self).link is Energy.link

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i)."""
        f, g = self.factor(a, "anchor"), self.factor(b, "candidate")
        return self.link(_add_offsets(-(f.vectors * g.vectors).sum(1), f.offset, g.offset))

    def cross(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
        """E(a_i, b_j); its diagonal equals `paired`."""
        f, g = self.factor(a, "anchor"), self.factor(b, "candidate")
        raw = _add_offsets(-f.vectors @ g.vectors.T, None if f.offset is None else f.offset[:, None], g.offset)
        return self.link(raw)


def _add_offsets(energy: Tensor, *offsets: Tensor | None) -> Tensor:
    for offset in offsets:
        energy = energy if offset is None else energy + offset
    return energy


class Cosine(Energy):
    """E(a, b) = -cos(a, b) / τ, in [-1/τ, 1/τ].

    The embeddings of SimCLR, MoCo, SupCon, SigLIP. With `learnable`, log(1/τ) is a parameter, as in SigLIP.
    """

    def __init__(self, *, temperature: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        log_scale = -torch.tensor(temperature, dtype=torch.float64).log().float()
        self.log_scale = nn.Parameter(log_scale) if learnable else None
        self.fixed_temperature = float(temperature)
        self.bound = None if learnable else 1 / self.fixed_temperature

    @property
    def temperature(self) -> float | Tensor:
        """τ: a number, or a tensor with a gradient where it is learnable."""
        return self.fixed_temperature if self.log_scale is None else torch.exp(-self.log_scale)

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = a / (‖a‖ τ), g = b / ‖b‖; no offsets."""
        unit = F.normalize(x, dim=1)
        return Factor(unit / self.temperature if side == "anchor" else unit, None)

    def extra_repr(self) -> str:
        """What `print` shows."""
        if self.log_scale is None:
            return f"temperature={self.fixed_temperature:g}"
        return f"temperature={self.log_scale.detach().neg().exp():g}, learnable"


class SquaredEuclidean(Energy):
    """E(a, b) = scale · ‖a - b‖², divided by D where `per_dimension`; ≥ 0.

    With `normalize` both sides are unit vectors first and E = scale · (2 - 2 cos(a, b)), in [0, 4 scale]: BYOL's form.
    """

    def __init__(self, *, scale: float = 1.0, normalize: bool = False, per_dimension: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.scale, self.normalize, self.per_dimension = float(scale), normalize, per_dimension
        self.bound = 4 * self.scale if normalize else None

    def _prepare(self, x: Tensor) -> tuple[Tensor, float]:
        scale = self.scale / x.shape[1] if self.per_dimension else self.scale
        return (F.normalize(x, dim=1) if self.normalize else x), scale

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = 2 scale a, g = b; offsets u = scale ‖a‖², v = scale ‖b‖²."""
        x, scale = self._prepare(x)
        return Factor(2 * scale * x if side == "anchor" else x, scale * x.square().sum(1))

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i) from the difference: exact where the two are close."""
        (a, scale), (b, _) = self._prepare(a), self._prepare(b)
        return scale * (a - b).square().sum(1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"scale={self.scale:g}, normalize={self.normalize}, per_dimension={self.per_dimension}"


class Distance(Energy):
    """E(a, b) = ‖a - b‖, of unit vectors where `normalize`; ≥ 0. Equal embeddings have a gradient of 0 instead of NaN.

    LeCun's contrastive loss squares it (Hadsell et al. 2006).
    """

    def __init__(self, *, normalize: bool = False) -> None:
        super().__init__()
        self.square = SquaredEuclidean(normalize=normalize)
        self.bound = 2.0 if normalize else None

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of the squared distance."""
        return self.square.factor(x, side)

    def link(self, raw: Tensor) -> Tensor:
        """√raw."""
        return raw.clamp(min=torch.finfo(raw.dtype).tiny).sqrt()

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i) from the difference: exact where the two are close."""
        return self.link(self.square.paired(a, b))


class InverseMultiquadratic(Energy):
    """E(a, b) = -c / √(c² + ‖a - b‖²) of unit vectors: minus a kernel, in [-1, 0). SSL-HSIC's (arXiv 2106.08320).

    With `learnable`, log c is a parameter.
    """

    bound = 1.0

    def __init__(self, *, scale: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.square = SquaredEuclidean(normalize=True)
        log_scale = torch.tensor(scale, dtype=torch.float64).log().float()
        self.log_scale = nn.Parameter(log_scale, requires_grad=learnable)

    @property
    def scale(self) -> Tensor:
        """c."""
        return self.log_scale.exp()

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of the squared distance."""
        return self.square.factor(x, side)

    def link(self, raw: Tensor) -> Tensor:
        """-c / √(c² + raw)."""
        return -self.scale * (self.scale.square() + raw.clamp(min=0)).rsqrt()

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i) from the difference."""
        return self.link(self.square.paired(a, b))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"scale={self.log_scale.detach().exp():g}" + (", learnable" if self.log_scale.requires_grad else "")


class Dot(Energy):
    """E(a, b) = -<a, b>, with ‖a‖, ‖b‖ clipped to `max_norm` where one is given (spectral contrastive loss: √μ)."""

    def __init__(self, *, max_norm: float | None = None) -> None:
        super().__init__()
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be > 0 or None, got {max_norm}")
        self.max_norm = max_norm
        self.bound = None if max_norm is None else max_norm**2

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = clip(a), g = clip(b); no offsets."""
        if self.max_norm is not None:
            norm = x.norm(dim=1, keepdim=True)
            x = torch.where(norm > self.max_norm, F.normalize(x, dim=1) * self.max_norm, x)
        return Factor(x, None)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"max_norm={self.max_norm}"


class Bilinear(Energy):
    """E(a, b) = -aᵀ W b with a learned W, the identity at first; not symmetric. CPC's energy (arXiv 1807.03748)."""

    symmetric = False

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be >= 1, got {dim}")
        self.weight = nn.Parameter(torch.eye(dim))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = Wᵀ a, g = b; no offsets."""
        return Factor(x @ self.weight.to(x.dtype) if side == "anchor" else x, None)
