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

    A subclass gives `factor`, and `link` where it is not the identity; `paired` and `cross` follow from them. One that
    is no inner product gives `paired` and `cross` instead: it trains by chunks of the matrix, and cannot be searched.

    Attributes:
        factorises: True if it has a `factor`; tiles and search need one.
        linear: True if it is an inner product up to offsets: it factorises, and its `link` is the identity.
        symmetric: True if E(a, b) = E(b, a).
        bound: |E| is at most this for all pairs, where that is known beforehand: tiles need no running maximum then.
        nonnegative: True if E ≥ 0, as losses that square it need.
        scale_free: True if the energy does not depend on the norms of its arguments (cosine); queues of unit vectors
            need this.
        updates: True if it follows the embeddings by `update`.
        formula: For tables; {a} and {b} stand for the two embeddings.
        dim: Dimension of the embeddings that it is made for; None: any.
    """

    factorises: bool = True
    linear: bool = True
    symmetric: bool = True
    bound: float | None = None
    nonnegative: bool = False
    scale_free: bool = False
    updates: bool = False
    formula: str = "E({a}, {b})"
    dim: int | None = None

    def __init_subclass__(cls) -> None:
        """Tell the author of an energy at once what else must be set.

        Raises:
            TypeError: An attribute contradicts the methods that are given.
        """
        cls.linear = cls.linear and cls.factorises
        if "link" in vars(cls) and cls.linear:
            raise TypeError(f"energy {cls.__name__} has a link: set linear = False in the class")
        if cls.factorises and cls.factor is Energy.factor:
            raise TypeError(f"energy {cls.__name__} has no factor: give one, or paired, cross and factorises = False")

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors and offset of one side of the factorisation."""
        raise TypeError(f"{type(self).__name__} is no inner product: it can be neither searched nor given offsets")

    def link(self, raw: Tensor) -> Tensor:
        """The energy of -<f, g> + u + v, elementwise and increasing."""
        return raw

    def update(self, z: Float[Tensor, "views batch dim"]) -> None:
        """Take note of all ranks' projections of a batch after it was scored, in training."""

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i)."""
        (f, u), (g, v) = self.factor(a, "anchor"), self.factor(b, "candidate")
        raw = -(f * g).sum(1)
        raw = raw if u is None else raw + u
        raw = raw if v is None else raw + v
        return raw if self.linear else self.link(raw)

    def cross(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
        """E(a_i, b_j); its diagonal equals `paired`."""
        (f, u), (g, v) = self.factor(a, "anchor"), self.factor(b, "candidate")
        raw = -f @ g.T
        raw = raw if u is None else raw + u[:, None]
        raw = raw if v is None else raw + v
        return raw if self.linear else self.link(raw)


class Cosine(Energy):
    """E(a, b) = -cos(a, b) / τ, in [-1/τ, 1/τ].

    The embeddings of SimCLR, MoCo, SupCon, SigLIP. With `learnable`, log(1/τ) is a parameter, as in SigLIP.
    """

    scale_free = True

    def __init__(self, *, temperature: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        log_scale = -torch.tensor(temperature, dtype=torch.float64).log().float()
        self.log_scale = nn.Parameter(log_scale) if learnable else None
        self.fixed_temperature = float(temperature)
        self.bound = None if learnable else 1 / self.fixed_temperature
        self.formula = "-cos({a}, {b})" + ("" if temperature == 1 and not learnable else "/τ")

    @property
    def temperature(self) -> float | Tensor:
        """τ: a number, or a tensor with a gradient where it is learnable."""
        return self.fixed_temperature if self.log_scale is None else torch.exp(-self.log_scale)

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = a / (‖a‖ τ), g = b / ‖b‖; no offsets."""
        unit = F.normalize(x, dim=1)
        if side == "candidate":
            return Factor(unit, None)
        return Factor(unit / (self.fixed_temperature if self.log_scale is None else torch.exp(-self.log_scale)), None)

    def extra_repr(self) -> str:
        """What `print` shows."""
        if self.log_scale is None:
            return f"temperature={self.fixed_temperature:g}"
        return f"temperature={self.log_scale.detach().neg().exp():g}, learnable"


class SquaredEuclidean(Energy):
    """E(a, b) = scale · ‖a - b‖², divided by D where `per_dimension`; ≥ 0.

    With `normalize` both sides are unit vectors first and E = scale · (2 - 2 cos(a, b)), in [0, 4 scale]: BYOL's form.
    """

    nonnegative = True

    def __init__(self, *, scale: float = 1.0, normalize: bool = False, per_dimension: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.scale, self.normalize, self.per_dimension = float(scale), normalize, per_dimension
        self.bound, self.scale_free = 4 * self.scale if normalize else None, normalize
        plain = "2 - 2 cos({a}, {b})" if normalize else "‖{a} - {b}‖²" + ("/D" if per_dimension else "")
        scaled = f"{scale:g} ({plain})" if normalize else f"{scale:g} {plain}"
        self.formula = plain if scale == 1 else "1 - cos({a}, {b})" if normalize and scale == 0.5 else scaled

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

    linear = False
    nonnegative = True

    def __init__(self, *, normalize: bool = False) -> None:
        super().__init__()
        self.square = SquaredEuclidean(normalize=normalize)
        self.bound, self.scale_free = 2.0 if normalize else None, normalize
        self.formula = "‖{a} - {b}‖" + (", unit vectors" if normalize else "")

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

    linear = False
    scale_free = True
    bound = 1.0
    formula = "-c / √(c² + ‖{a} - {b}‖²)"

    def __init__(self, *, scale: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.square = SquaredEuclidean(normalize=True)
        log_scale = torch.tensor(scale, dtype=torch.float64).log().float()
        self.log_scale = nn.Parameter(log_scale, requires_grad=learnable)

    @property
    def scale(self) -> Tensor:
        """The kernel's width c."""
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
        self.formula = "-<{a}, {b}>" + ("" if max_norm is None else ", norms clipped")

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
    formula = "-{a}ᵀ W {b}"

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be >= 1, got {dim}")
        self.dim = dim
        self.weight = nn.Parameter(torch.eye(dim))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors f = Wᵀ a, g = b; no offsets."""
        return Factor(x @ self.weight.to(x.dtype) if side == "anchor" else x, None)


class DirectPrediction(Energy):
    """E(a, b) = 2 - 2 cos(W a, b), with W not learned but set from the spectrum of the embeddings' correlation.

        C ← m C + (1 - m) mean z zᵀ,   C = U diag(s) Uᵀ,   W = U diag(max(√(s / s_max) + ε, 1e-4)) Uᵀ

    C is not centred and starts at the identity; W follows it after every scored batch. DirectPred (arXiv 2102.06810):
    weight of the old m = .3, ε = .01, every step, as in the authors' README (facebookresearch/luckmatters).
    """

    updates = True
    symmetric = False
    nonnegative = True
    scale_free = True
    bound = 4.0
    formula = "2 - 2 cos(W {a}, {b})"
    correlation: Tensor
    weight: Tensor

    def __init__(self, *, dim: int, epsilon: float = 0.01, old_weight: float = 0.3) -> None:
        super().__init__()
        if not epsilon >= 0:
            raise ValueError(f"epsilon must be >= 0, got {epsilon}")
        if not 0 <= old_weight < 1:
            raise ValueError(f"old_weight must be in [0, 1), got {old_weight}")
        self.dim, self.epsilon, self.old_weight = dim, float(epsilon), float(old_weight)
        self.square = SquaredEuclidean(normalize=True)
        self.register_buffer("correlation", torch.eye(dim))
        self.register_buffer("weight", torch.eye(dim))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of the squared distance between unit vectors, of W a on one side."""
        weight = self.weight.to(x.dtype, copy=True)  # the update after scoring must not touch what the backward needs
        return self.square.factor(x @ weight if side == "anchor" else x, side)

    @torch.no_grad()
    def update(self, z: Float[Tensor, "views batch dim"]) -> None:
        """Move C towards the batch's, and set W."""
        flat = z.flatten(0, 1).to(self.correlation.dtype)
        self.correlation.lerp_(flat.T @ flat / len(flat), 1 - self.old_weight)
        values, axes = torch.linalg.eigh(self.correlation)
        values = values.clamp(min=0)
        gains = (values / values[-1].clamp(min=torch.finfo(values.dtype).tiny)).sqrt() + self.epsilon
        self.weight.copy_((axes * gains.clamp(min=1e-4)) @ axes.T)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"dim={len(self.weight)}, epsilon={self.epsilon:g}, old_weight={self.old_weight:g}"
