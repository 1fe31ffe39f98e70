"""Rows of energies: each anchor against its own samples, and what a contrast asks of them.

A contrast asks of a row log Σ_j exp(-E_ij), the mean of a function of E_ij, or the lowest E_ij. `EnergyMatrix` is the
definition of all three: the energies of some anchors with all candidates, those left out masked, and reduced; where the
matrix is large, by chunks of anchors that are computed again in the backward. `tiled` gives two of them faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.energies.tiled import kernels
from ssl_ebm.energies.tiled.factors import Factors
from ssl_ebm.energies.tiled.kernels import lowest
from ssl_ebm.energies.tiled.tiles import Tile, lay_tiles

DENSE = 1 << 22  # matrices up to this many entries (16 MiB in float32) are computed once and kept
DENSE_LOGSUMEXP = 1 << 18  # the same for log-sum-exps, which by tiles pass over less memory
CHUNK = 1 << 19  # entries of a chunk of anchors, and of a tile, above that
ACCELERATOR = 16  # chunks are so many times larger where a kernel's launch costs more than its work

Value = Float[Tensor, " n"] | Float[Tensor, ""]


class SameKey(NamedTuple):
    """Anchors and candidates that agree in a key, such as a class."""

    anchors: Int[Tensor, " n"]
    candidates: Int[Tensor, " m"]


class Pairs(NamedTuple):
    """Single pairs (anchor, candidate) by their positions; in any order, each once."""

    anchors: Int[Tensor, " p"]
    candidates: Int[Tensor, " p"]


class Rows:
    """Energies of n anchors, each against its own samples.

    Attributes:
        complete: Whether every anchor is known to have samples.
    """

    complete: bool = False

    @property
    def count(self) -> Float[Tensor, " n"]:
        """How many samples each anchor has."""
        raise NotImplementedError

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_j exp(-E_ij); about -1e38 for an anchor without samples."""
        raise NotImplementedError

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, *values), elementwise in E; 0 for an anchor without samples.

        Args:
            function: Captures no tensor that needs a gradient: such a tensor is one of the values.
            values: One per anchor, seen by the function as a column, or a scalar.
        """
        raise NotImplementedError

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij; 0 for an anchor without samples."""
        return self.mean(lambda energy: energy)

    def minimum(self) -> Float[Tensor, " n"]:
        """min_j E_ij, of the sample that offends most; about 1e38 for an anchor without samples."""
        raise NotImplementedError

    def logsumexp_with(self, other: Rows) -> Float[Tensor, " n"]:
        """log(Σ exp(-E) + Σ' exp(-E')) over the samples of both."""
        return torch.logaddexp(self.logsumexp(), other.logsumexp())


@dataclass(eq=False)
class Paired(Rows):
    """The same small number of samples for every anchor, their energies given."""

    complete = True

    energies: Float[Tensor, "n p"]

    @property
    def count(self) -> Float[Tensor, " n"]:
        """The same p for every anchor."""
        return self.energies.new_full(self.energies.shape[:1], self.energies.shape[1])

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_p exp(-E_ip)."""
        return -self.energies[:, 0] if self.energies.shape[1] == 1 else torch.logsumexp(-self.energies, dim=1)

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_p function(E_ip, *values)."""
        return _apply(function, self.energies, values).mean(1)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_p E_ip."""
        return self.energies.mean(1)

    def minimum(self) -> Float[Tensor, " n"]:
        """min_p E_ip."""
        return self.energies.amin(1)


@dataclass(eq=False)
class Listed(Rows):
    """Any number of samples an anchor, given as a list of energies and the anchor of each."""

    energies: Float[Tensor, " p"]
    anchor: Int[Tensor, " p"]
    n: int

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """How often each anchor is listed."""
        return torch.bincount(self.anchor, minlength=self.n).to(self.energies.dtype)

    def _sum(self, values: Float[Tensor, " p"]) -> Float[Tensor, " n"]:
        return values.new_zeros(self.n).index_add_(0, self.anchor, values)

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ exp(-E) over an anchor's entries."""
        floor = self.minimum().detach()
        total = self._sum(torch.exp(floor[self.anchor] - self.energies))
        none = total == 0
        return torch.where(none, lowest(total.dtype), torch.where(none, 1, total).log() - floor)

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """Mean of function(E, *values) over an anchor's entries."""
        listed_values = (value[self.anchor] if value.dim() else value for value in values)
        results = function(self.energies, *listed_values).expand_as(self.energies)
        return self._sum(results) / self.count.clamp(min=1)

    def minimum(self) -> Float[Tensor, " n"]:
        """The lowest of an anchor's energies."""
        none = self.energies.new_full((self.n,), -lowest(self.energies.dtype))
        return none.scatter_reduce(0, self.anchor, self.energies, "amin")


@dataclass(eq=False)
class EnergyMatrix(Rows):
    """Anchors against all candidates but those that are left out; energies are computed when they are reduced.

    Args:
        energy: E.
        anchors: a_i.
        candidates: b_j.
        excluded: Candidates that an anchor never takes.
        only: Candidates that it takes at most, those of its key; what is excluded besides are pairs.
        symmetric: A promise that halves the work of tiles: anchors and candidates are the same vectors in the same
            order, what is left out is symmetric, and so is the energy.
    """

    energy: Energy
    anchors: Float[Tensor, "n dim"]
    candidates: Float[Tensor, "m dim"]
    excluded: SameKey | Pairs | None = field(default=None, kw_only=True)
    only: SameKey | None = field(default=None, kw_only=True)
    symmetric: bool = field(default=False, kw_only=True)
    _dense: tuple[Tensor, Tensor | None] | None = field(default=None, init=False)

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_j exp(-E_ij) over the candidates taken."""
        if self.energy.linear and len(self.anchors) * len(self.candidates) > DENSE_LOGSUMEXP:
            return kernels.logsumexp(self._factors, self._tiles, bound=self.energy.bound)
        none = torch.finfo(self.anchors.dtype).max / 4  # finite: a row without samples has no gradient instead of a NaN
        return self._reduce(
            lambda energies, left_out, _: torch.logsumexp(
                -(energies if left_out is None else energies.masked_fill(left_out, none)), dim=1
            )
        )

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, *values) over the candidates taken."""
        if self.energy.factorises and len(self.anchors) * len(self.candidates) > DENSE:
            link, linear = self.energy.link, self.energy.linear
            parameters = [] if linear else [p for p in self.energy.parameters() if p.requires_grad]
            factors, tiles = self._factors, self._tiles
            total = kernels.total(function, factors, tiles, *values, link=link, parameters=parameters)
            return total / self.count.clamp(min=1)

        def reduction(energies: Tensor, left_out: Tensor | None, rows: slice) -> Tensor:
            results = _apply(function, energies, tuple(value[rows] if value.dim() else value for value in values))
            return (results if left_out is None else results.masked_fill(left_out, 0)).sum(1)

        return self._reduce(reduction) / self.count.clamp(min=1)

    def minimum(self) -> Float[Tensor, " n"]:
        """The lowest energy of the candidates taken."""
        none = -lowest(self.anchors.dtype)
        return self._reduce(
            lambda energies, left_out, _: (energies if left_out is None else energies.masked_fill(left_out, none)).amin(
                1
            )
        )

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij; in O(n + m) where the link is the identity: sums of factors, over all candidates or a key's."""
        if not self.energy.linear:
            return super().mean_energy()
        f, g, u, v = self._factors
        u, v = f.new_zeros(len(f)) if u is None else u, g.new_zeros(len(g)) if v is None else v
        total = -f @ g.sum(0) + len(g) * u + v.sum()
        if self._key is not None:
            group, anchor_group, sizes = _groups(self._key)
            vectors = g.new_zeros(len(sizes), g.shape[1]).index_add_(0, group, g)
            offsets = v.new_zeros(len(sizes)).index_add_(0, group, v)
            of_key = -(f * vectors[anchor_group]).sum(1) + sizes[anchor_group] * u + offsets[anchor_group]
            of_key = torch.where(anchor_group >= 0, of_key, 0)
            total = of_key if self.only is not None else total - of_key
        i, j = self._single
        total = total.index_add(0, i, -(f[i] * g[j]).sum(1) + u[i] + v[j], alpha=-1)
        return torch.where(self.count > 0, total / self.count.clamp(min=1), 0)

    def logsumexp_with(self, other: Rows) -> Float[Tensor, " n"]:
        """As in `Rows`; in one pass where this takes the candidates of a key, and the other all the rest."""
        if not (isinstance(other, EnergyMatrix) and self.only is not None and other.excluded is self.only):
            return super().logsumexp_with(other)
        both = EnergyMatrix(
            self.energy, self.anchors, self.candidates, excluded=self.excluded, symmetric=self.symmetric
        )
        return both.logsumexp()

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """How many candidates each anchor takes."""
        n, m = len(self.anchors), len(self.candidates)
        count = torch.full((n,), m, device=self.anchors.device)
        if self._key is not None:
            _, anchor_group, sizes = _groups(self._key)
            of_key = torch.where(anchor_group >= 0, sizes[anchor_group], 0)
            count = of_key if self.only is not None else count - of_key
        return (count - torch.bincount(self._single.anchors, minlength=n)).to(self.anchors.dtype)

    @property
    def _key(self) -> SameKey | None:
        """What decides in blocks."""
        return self.excluded if isinstance(self.excluded, SameKey) else self.only

    @cached_property
    def _single(self) -> Pairs:
        """Pairs that are left out one by one, of those that the key would let pass."""
        if not isinstance(self.excluded, Pairs):
            none = torch.zeros(0, dtype=torch.int64, device=self.anchors.device)
            return Pairs(none, none)
        i, j = self.excluded
        taken = slice(None) if self.only is None else self.only.anchors[i] == self.only.candidates[j]
        return Pairs(i[taken], j[taken])

    @cached_property
    def _factors(self) -> Factors:
        f, g = self.energy.factor(self.anchors, "anchor"), self.energy.factor(self.candidates, "candidate")
        return Factors(f.vectors, g.vectors, f.offset, g.offset)

    @cached_property
    def _tiles(self) -> list[Tile]:
        return lay_tiles(
            (len(self.anchors), len(self.candidates)),
            self._chunk,
            keys=self._key,
            same=self.only is not None,
            holes=self._single,
            symmetric=self.symmetric and self.anchors.requires_grad == self.candidates.requires_grad,
        )

    @property
    def _chunk(self) -> int:
        return CHUNK if self.anchors.device.type == "cpu" else CHUNK * ACCELERATOR

    def _reduce(self, reduction: Callable[[Tensor, Tensor | None, slice], Tensor]) -> Float[Tensor, " n"]:
        """What the definition gives of all anchors, at once or by chunks that are computed again in the backward.

        Args:
            reduction: Energies of some anchors with all candidates, which of these are left out (None: none), and the
                anchors' slice -> a number for each anchor.
        """
        n, m = len(self.anchors), len(self.candidates)
        if n * m <= DENSE:
            self._dense = self._dense or self._block(slice(0, n))
            return reduction(*self._dense, slice(0, n))

        def reduced(rows: slice) -> Tensor:
            return reduction(*self._block(rows), rows)

        size = max(1, self._chunk // m)
        chunks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        return torch.cat([checkpoint(reduced, rows, use_reentrant=False, preserve_rng_state=False) for rows in chunks])

    def _block(self, rows: slice) -> tuple[Float[Tensor, "rows m"], Bool[Tensor, "rows m"] | None]:
        """Energies of some anchors with all candidates, and which of these they leave out; None: they take all."""
        energies, left_out = self.energy.cross(self.anchors[rows], self.candidates), None
        if self.only is not None:
            left_out = self.only.anchors[rows, None] != self.only.candidates
        if isinstance(self.excluded, SameKey):
            left_out = self.excluded.anchors[rows, None] == self.excluded.candidates
        elif self.excluded is not None:
            left_out = torch.zeros_like(energies, dtype=torch.bool) if left_out is None else left_out
            i, j = self.excluded
            here = (i >= rows.start) & (i < rows.stop)
            left_out[i[here] - rows.start, j[here]] = True
        return energies, left_out


class Listing(NamedTuple):
    """Vectors, and the anchor that each is a sample of, by its position."""

    anchors: Int[Tensor, " p"]
    vectors: Float[Tensor, "p dim"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What is compared: anchors with their positives, and with candidates of which all but the excluded are negatives.

    Attributes:
        anchors: a_i.
        positives: As many for every anchor, a matrix each; a listing; or a key: the candidates that share the anchor's.
        candidates: None: nothing is a negative.
        excluded: Candidates that are no negatives of an anchor.
        itself: Of positives by key, the pairs of an anchor with itself.
        symmetric: Anchors and candidates are the same vectors in the same order, and what is excluded is symmetric.
    """

    anchors: Float[Tensor, "n dim"]
    positives: Sequence[Float[Tensor, "n target_dim"]] | Listing | SameKey
    candidates: Float[Tensor, "m target_dim"] | None = None
    excluded: SameKey | Pairs | None = None
    itself: Pairs | None = None
    symmetric: bool = False

    def rows(self, energy: Energy) -> tuple[Rows, Rows | None]:
        """Energies of the positives, and of the negatives where there are any."""
        a, b, symmetric = self.anchors, self.candidates, self.symmetric and energy.symmetric
        negative = None if b is None else EnergyMatrix(energy, a, b, excluded=self.excluded, symmetric=symmetric)
        positives = self.positives
        if isinstance(positives, SameKey):
            assert b is not None
            return EnergyMatrix(energy, a, b, only=positives, excluded=self.itself, symmetric=symmetric), negative
        if isinstance(positives, Listing):
            energies = energy.paired(a[positives.anchors], positives.vectors)
            return Listed(energies, positives.anchors, len(a)), negative
        return Paired(torch.stack([energy.paired(a, b) for b in positives], dim=1)), negative


def _apply(
    function: Callable[..., Tensor], energies: Float[Tensor, "n p"], values: tuple[Value, ...]
) -> Float[Tensor, "n p"]:
    """The function of all energies and of each anchor's values, or of values common to all."""
    return function(energies, *(value[:, None] if value.dim() else value for value in values)).expand_as(energies)


def _groups(key: SameKey) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"], Int[Tensor, " groups"]]:
    """Group of each candidate, group of each anchor's key (-1: no candidate has it), size of each group."""
    keys, group, sizes = torch.unique(key.candidates, return_inverse=True, return_counts=True)
    position = torch.searchsorted(keys, key.anchors).clamp(max=len(keys) - 1)
    return group, torch.where(keys[position] == key.anchors, position, -1), sizes
