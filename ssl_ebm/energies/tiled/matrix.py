"""Rows of energies of anchors against many candidates, reduced without keeping the matrix.

Energies are computed when they are reduced: at once where the matrix is small, by tiles with the backward recomputed
where it is not, so that memory grows with the number of samples and not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.energies.rows import Listed, Paired, Rows, Union, Value, apply, lowest
from ssl_ebm.energies.tiled import kernels as reductions
from ssl_ebm.energies.tiled.factors import Factors
from ssl_ebm.energies.tiled.selection import PairMask, Tile

DENSE = 1 << 22  # matrices up to this many entries (16 MiB in float32) are computed once and kept
DENSE_LOGSUMEXP = 1 << 18  # the same for log-sum-exps, which by tiles pass over less memory
TILE = 1 << 19  # entries of one tile above that
ACCELERATOR = 16  # tiles are so many times larger where a kernel's launch costs more than its work

__all__ = ["EnergyMatrix", "Listed", "Paired", "Rows", "Union"]


class EnergyMatrix(Rows):
    """Anchors against candidates, selected by keys.

    Anchor i takes candidate j where their keys differ (`same=False`: its negatives) or agree (`same=True`: its
    positives); without keys it takes all. It never takes candidate `itself[i]`, nor a pair in `without`.

    Args:
        energy: E.
        anchors: a_i.
        candidates: b_j.
        keys: (key of each anchor, key of each candidate): the image they show, or its class.
        same: Which of the two relations is meant.
        itself: Candidate that is the anchor itself; implied where keys differ.
        without: Pairs (anchors, candidates) not taken, in any order, repeated or not; only without keys.
        symmetric: A promise that halves the work: anchors and candidates are the same function of what needs a
            gradient, in the same order, and the energy is symmetric.

    Raises:
        ValueError: If the arguments contradict each other.
    """

    def __init__(
        self,
        energy: Energy,
        anchors: Float[Tensor, "n dim"],
        candidates: Float[Tensor, "m dim"],
        *,
        keys: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
        same: bool = False,
        itself: Int[Tensor, " n"] | None = None,
        without: tuple[Int[Tensor, " p"], Int[Tensor, " p"]] | None = None,
        symmetric: bool = False,
    ) -> None:
        if symmetric and not energy.symmetric:
            raise ValueError(f"symmetric=True needs a symmetric energy, got {energy}")
        self.energy, self.anchors, self.candidates = energy, anchors, candidates
        self.keys, self.same, self.itself, self.symmetric = keys, same, itself, symmetric
        self.selection = PairMask(
            (len(anchors), len(candidates)),
            anchors.device,
            keys=keys,
            same=same,
            itself=itself,
            without=without,
            symmetric=symmetric and anchors.requires_grad == candidates.requires_grad,
        )

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """How many candidates each anchor takes."""
        return self.selection.count.to(self.anchors.dtype)

    def union(self, other: Rows) -> Rows:
        """The samples of both: one pass over all candidates but itself where both split the same ones by their keys."""
        if not (isinstance(other, EnergyMatrix) and self._complements(other)):
            return super().union(other)
        itself = self.itself if self.same else other.itself
        return EnergyMatrix(
            self.energy, self.anchors, self.candidates, itself=itself, symmetric=self.symmetric and other.symmetric
        )

    def _complements(self, other: EnergyMatrix) -> bool:
        if self.keys is None or other.keys is None or self.same == other.same:
            return False
        identical = (self.energy, self.anchors, self.candidates), (other.energy, other.anchors, other.candidates)
        return all(a is b for a, b in zip(*identical, strict=True)) and all(
            a is b or torch.equal(a, b) for a, b in zip(self.keys, other.keys, strict=True)
        )

    @cached_property
    def _factors(self) -> Factors:
        f, g = self.energy.factor(self.anchors, "anchor"), self.energy.factor(self.candidates, "candidate")
        return Factors(f.vectors, g.vectors, f.offset, g.offset)

    @property
    def _dense(self) -> bool:
        return 0 < len(self.anchors) * len(self.candidates) <= DENSE

    @cached_property
    def _matrix(self) -> tuple[Tensor, Tensor | None]:
        """Energies, and which are not taken."""
        taken = self.selection.taken()
        return self.energy.cross(self.anchors, self.candidates), None if taken is None else ~taken

    @cached_property
    def _listed(self) -> Listed | None:
        """The samples one by one, where they are few."""
        if self.selection.pairs is None:
            return None
        raw = self._factors.at(*self.selection.pairs, TILE)
        return Listed(self.energy.link(raw), self.selection.pairs[0], len(self.anchors))

    @cached_property
    def _sorted(self) -> Factors:
        return self._factors.sorted(self.selection.orders)

    @cached_property
    def _tiles(self) -> list[Tile]:
        entries = TILE if self.anchors.device.type == "cpu" else TILE * ACCELERATOR
        side = math.isqrt(entries)
        side -= side % 64 if side > 64 else 0  # whole vector registers: a few per cent
        rows = max(1, min(len(self.anchors), side))
        columns = side if rows == side else entries // rows
        return self.selection.tiles(rows, max(1, min(len(self.candidates), columns)))

    def _restore(self, x: Shaped[Tensor, " n"]) -> Shaped[Tensor, " n"]:
        """From the order of the tiles to that of the anchors."""
        return x if self.selection.orders is None else x.index_select(0, self.selection.orders[0].argsort())

    def _total(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """Σ_j function(E_ij, *values) by tiles, values in the order of the anchors."""
        orders, linear = self.selection.orders, self.energy.linear
        sorted_values = (v.index_select(0, orders[0]) if orders is not None and v.dim() else v for v in values)
        parameters = [] if linear else [p for p in self.energy.parameters() if p.requires_grad]
        link = self.energy.link
        total = reductions.total(function, self._sorted, self._tiles, *sorted_values, link=link, parameters=parameters)
        return self._restore(total)

    @cached_property
    def _lowest(self) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
        """Each anchor's lowest raw energy by tiles, infinite without samples, and its candidate; without gradient."""
        raw, candidate = reductions.nearest(self._sorted, self._tiles)
        if self.selection.orders is not None:
            candidate = self.selection.orders[1][candidate]
        return self._restore(raw), self._restore(candidate)

    def _safe(self) -> bool:
        """Whether exp(-E) needs no shift, by the energy's bound or Cauchy-Schwarz on this data."""
        if self.energy.bound is not None or not self.energy.linear:
            return self.energy.bound is not None and self.energy.bound <= reductions.SAFE
        f, g, u, v = (None if x is None else x.detach() for x in self._factors)
        assert f is not None and g is not None
        bound = f.norm(dim=1).amax() * g.norm(dim=1).amax()
        for offset in (u, v):
            bound = bound if offset is None else bound + offset.abs().amax()
        return bool(bound <= reductions.SAFE)

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_j exp(-E_ij) over the candidates taken."""
        if self._listed is not None:
            return self._listed.logsumexp()
        if self._dense and len(self.anchors) * len(self.candidates) <= DENSE_LOGSUMEXP:
            energies, left = self._matrix
            if left is not None:  # a finite filling: a row without samples has no gradient instead of a NaN
                energies = energies.masked_fill(left, -lowest(energies.dtype))
            return torch.logsumexp(-energies, dim=1)
        safe = len(self._tiles) == 0 or self._safe()
        if self.energy.linear:
            whole = self.selection.whole
            return self._restore(reductions.logsumexp(self._sorted, self._tiles, safe=safe, whole=whole))
        if safe:
            floor, total = self.anchors.new_zeros(()), self._total(lambda energy: torch.exp(-energy))
        else:
            raw = self._lowest[0]
            floor = self.energy.link(raw.masked_fill(raw.isinf(), 0)).detach()
            total = self._total(lambda energy, least: torch.exp((least - energy).clamp(max=1)), floor)
        none = total == 0
        return torch.where(none, lowest(total.dtype), torch.where(none, 1, total).log() - floor)

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, *values) over the candidates taken."""
        if self._listed is not None:
            return self._listed.mean(function, *values)
        if not self._dense:
            return self._total(function, *values) / self.count.clamp(min=1)
        energies, left = self._matrix
        result = apply(function, energies, values)
        return (result if left is None else result.masked_fill(left, 0)).sum(1) / self.count.clamp(min=1)

    def minimum(self) -> Float[Tensor, " n"]:
        """The lowest energy of the candidates taken."""
        if self._listed is not None:
            return self._listed.minimum()
        if self._dense:
            energies, left = self._matrix
            return (energies if left is None else energies.masked_fill(left, -lowest(energies.dtype))).amin(1)
        least, candidate = self._lowest
        energy = self.energy.link(self._factors.at(torch.arange(len(least), device=least.device), candidate, TILE))
        return torch.where(least.isinf(), -lowest(energy.dtype), energy)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij; in O(n + m) where the link is the identity: sums of factors, over all candidates or a key's."""
        if not self.energy.linear:
            return super().mean_energy()
        if self._listed is not None:
            return self._listed.mean_energy()
        f, g, u, v = self._factors
        u, v = f.new_zeros(len(f)) if u is None else u, g.new_zeros(len(g)) if v is None else v
        total = -f @ g.sum(0) + len(g) * u + v.sum()
        if self.keys is not None:
            group, own, sizes = self.selection.groups
            vectors = g.new_zeros(len(sizes), g.shape[1]).index_add_(0, group, g)
            offsets = v.new_zeros(len(sizes)).index_add_(0, group, v)
            agree = torch.where(own >= 0, -(f * vectors[own]).sum(1) + sizes[own] * u + offsets[own], 0)
            total = agree if self.same else total - agree
        if self.selection.holes is not None:
            rows, columns = self.selection.holes
            if self.keys is not None:
                ours = self.keys[0][rows] == self.keys[1][columns]
                rows, columns = rows[ours], columns[ours]
            total = total.index_add(0, rows, self._factors.at(rows, columns, TILE), alpha=-1)
        return torch.where(self.count > 0, total / self.count.clamp(min=1), 0)
