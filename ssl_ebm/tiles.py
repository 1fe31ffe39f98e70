"""Rows of energies: each anchor against its own samples, reduced without keeping the matrix.

A contrast asks two things of a row: log Σ_j exp(-E_ij), and the mean of a function of E_ij. `Paired` holds a few
energies an anchor; `Crossed` computes energies against many candidates when they are reduced: at once where the matrix
is small, by tiles of anchors with the backward recomputed where it is not, so that memory grows with the number of
samples and not with its square.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ssl_ebm.energies import Energy

DENSE = 1 << 22  # matrices up to this many entries (16 MiB in float32) are computed once and kept
TILE = 1 << 20  # entries of one tile above that


class Rows:
    """Energies of n anchors, each against its own samples."""

    @property
    def count(self) -> Float[Tensor, " n"]:
        """How many samples each anchor has."""
        raise NotImplementedError

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_j exp(-E_ij); about -1e38 for an anchor without samples."""
        raise NotImplementedError

    def mean(self, function: Callable[..., Tensor], *anchor_values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, values_i...), elementwise in E; 0 for an anchor without samples."""
        raise NotImplementedError

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij."""
        raise NotImplementedError


class Paired(Rows):
    """The same small number of samples for every anchor, their energies given."""

    def __init__(self, energies: Float[Tensor, "n p"]) -> None:
        self.energies = energies

    @property
    def count(self) -> Float[Tensor, " n"]:
        """The same p for every anchor."""
        return self.energies.new_full(self.energies.shape[:1], self.energies.shape[1])

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_p exp(-E_ip)."""
        return -self.energies[:, 0] if self.energies.shape[1] == 1 else torch.logsumexp(-self.energies, dim=1)

    def mean(self, function: Callable[..., Tensor], *anchor_values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """mean_p function(E_ip, values_i...)."""
        return function(self.energies, *(value[:, None] for value in anchor_values)).mean(1)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_p E_ip."""
        return self.energies.mean(1)


class Crossed(Rows):
    """Anchors against candidates, selected by keys.

    Anchor i takes candidate j where their keys differ (`same=False`: its negatives) or agree (`same=True`: its
    positives); never candidate `itself[i]`. Without keys it takes all.

    Args:
        energy: E.
        anchors: a_i.
        candidates: b_j.
        keys: (key of each anchor, key of each candidate): the image they show, or its class.
        same: Which of the two relations is meant.
        itself: Candidate that is the anchor itself; only with `same`.
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
    ) -> None:
        self.energy, self.anchors, self.candidates = energy, anchors, candidates
        self.keys, self.same, self.itself = keys, same, itself

    @property
    def _dense(self) -> bool:
        return len(self.anchors) * len(self.candidates) <= DENSE

    def _taken(self, rows: slice) -> Bool[Tensor, "r m"] | None:
        if self.keys is None:
            return None
        agree = self.keys[0][rows, None] == self.keys[1]
        if not self.same:
            return ~agree
        return agree if self.itself is None else agree.scatter_(1, self.itself[rows, None], False)

    @cached_property
    def _matrix(self) -> tuple[Tensor, Tensor | None]:
        return self.energy.cross(self.anchors, self.candidates), self._taken(slice(None))

    def _reduce(self, reduce: Callable[[Tensor, Tensor | None, slice], Tensor]) -> Float[Tensor, " n"]:
        """Apply `reduce(energies, taken, rows)` to all rows, by tiles where the matrix is large."""
        if self._dense:
            return reduce(*self._matrix, slice(None))

        def tile(anchors: Tensor, rows: slice) -> Tensor:
            return reduce(self.energy.cross(anchors, self.candidates), self._taken(rows), rows)

        step = max(1, TILE // len(self.candidates))
        starts = range(0, len(self.anchors), step)
        slices = [slice(i, min(i + step, len(self.anchors))) for i in starts]
        return torch.cat([checkpoint(tile, self.anchors[rows], rows, use_reentrant=False) for rows in slices])

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """How many candidates each anchor takes."""
        n, m = len(self.anchors), len(self.candidates)
        if self.keys is None:
            return self.anchors.new_full((n,), m)
        _, anchor_group, sizes = self._groups
        agree = torch.where(anchor_group >= 0, sizes[anchor_group], 0).to(self.anchors.dtype)
        return agree - int(self.itself is not None) if self.same else m - agree

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Row by row log Σ_j exp(-E_ij) over the candidates taken."""

        def reduce(energies: Tensor, taken: Tensor | None, rows: slice) -> Tensor:
            if taken is not None:  # a finite filling: a row without samples has no gradient instead of a NaN
                energies = energies.masked_fill(~taken, torch.finfo(energies.dtype).max / 4)
            return torch.logsumexp(-energies, dim=1)

        return self._reduce(reduce)

    def mean(self, function: Callable[..., Tensor], *anchor_values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, values_i...) over the candidates taken."""

        def reduce(energies: Tensor, taken: Tensor | None, rows: slice) -> Tensor:
            values = function(energies, *(value[rows, None] for value in anchor_values))
            return values.sum(1) if taken is None else values.masked_fill(~taken, 0).sum(1)

        return self._reduce(reduce) / self.count.clamp(min=1)

    @cached_property
    def _groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Group of each candidate, group of each anchor's key (-1: no candidate has it), size of each group."""
        assert self.keys is not None
        keys, group, sizes = torch.unique(self.keys[1], return_inverse=True, return_counts=True)
        position = torch.searchsorted(keys, self.keys[0]).clamp(max=len(keys) - 1)
        return group, torch.where(keys[position] == self.keys[0], position, -1), sizes

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij in O(n + m): sums of the energy's factors, over all candidates and over each key's."""
        f = self.energy.factor(self.anchors, "anchor")
        g = self.energy.factor(self.candidates, "candidate")
        zero = self.anchors.new_zeros(())
        u = zero.expand(len(self.anchors)) if f.offset is None else f.offset
        v = zero.expand(len(self.candidates)) if g.offset is None else g.offset
        total = -f.vectors @ g.vectors.sum(0) + len(self.candidates) * u + v.sum()
        if self.keys is None:
            return total / len(self.candidates)
        group, anchor_group, sizes = self._groups
        vectors = g.vectors.new_zeros(len(sizes), g.vectors.shape[1]).index_add_(0, group, g.vectors)
        offsets = v.new_zeros(len(sizes)).index_add_(0, group, v)
        agree = -(f.vectors * vectors[anchor_group]).sum(1) + sizes[anchor_group] * u + offsets[anchor_group]
        agree = torch.where(anchor_group >= 0, agree, 0)
        if self.same and self.itself is not None:
            agree = agree - self.energy.paired(self.anchors, self.candidates[self.itself])
        return (agree if self.same else total - agree) / self.count.clamp(min=1)
