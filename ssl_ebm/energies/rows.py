"""Rows of energies: a row is the energies of one anchor with its samples, which are its positives or its negatives.

A contrast asks of a row log Σ_j exp(-E_ij), the mean of a function of E_ij, or the lowest E_ij. `EnergyMatrix` defines
all three: it computes the energies of some anchors with all candidates, masks those that are left out, and reduces
them; a large matrix by chunks of anchors that are computed again in the backward. `tiled` gives the first two faster.
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

MAX_DENSE_ENTRIES = 1 << 22  # a matrix of no more entries (16 MiB in float32) is computed once and kept
MAX_DENSE_LOGSUMEXP_ENTRIES = 1 << 18  # the same for log-sum-exps, because tiles pass over less memory
CHUNK_ENTRIES = 1 << 19  # of a chunk of anchors, and of a tile, where the matrix is larger
ACCELERATOR_CHUNK_FACTOR = 16  # chunks are so many times larger where a kernel's launch costs more than its work

Value = Float[Tensor, " n"] | Float[Tensor, ""]


class SameKey(NamedTuple):
    """The pairs (anchor, candidate) whose keys are equal, such as those of one class."""

    anchors: Int[Tensor, " n"]
    candidates: Int[Tensor, " m"]


class Pairs(NamedTuple):
    """The pairs (anchor, candidate) at the listed positions; in any order, each once."""

    anchors: Int[Tensor, " p"]
    candidates: Int[Tensor, " p"]


class Rows:
    """Energies of n anchors, each with its own samples."""

    @property
    def count(self) -> Float[Tensor, " n"]:
        """Number of samples of each anchor."""
        raise NotImplementedError

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Each row's log Σ_j exp(-E_ij); about -1e38 for an anchor without samples."""
        raise NotImplementedError

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, *values) of each row; 0 for an anchor without samples.

        Args:
            function: Elementwise in E. It captures no tensor that needs a gradient: such a tensor is one of the values.
            values: Each has one number per anchor, which the function sees as a column, or is a scalar.
        """
        raise NotImplementedError

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij of each row; 0 for an anchor without samples."""
        return self.mean(lambda energy: energy)

    def minimum(self) -> Float[Tensor, " n"]:
        """min_j E_ij of each row; about 1e38 for an anchor without samples."""
        raise NotImplementedError

    def logsumexp_with(self, other: Rows) -> Float[Tensor, " n"]:
        """log(Σ exp(-E) + Σ' exp(-E')) of each anchor, over its samples in these rows and in the other ones."""
        return torch.logaddexp(self.logsumexp(), other.logsumexp())


@dataclass(eq=False)
class Paired(Rows):
    """Energies with the same small number p of samples for every anchor."""

    energies: Float[Tensor, "n p"]

    @property
    def count(self) -> Float[Tensor, " n"]:
        """The same p for every anchor."""
        return self.energies.new_full(self.energies.shape[:1], self.energies.shape[1])

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Each row's log Σ_p exp(-E_ip)."""
        return -self.energies[:, 0] if self.energies.shape[1] == 1 else torch.logsumexp(-self.energies, dim=1)

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_p function(E_ip, *values) of each row."""
        return _apply(function, self.energies, values).mean(1)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_p E_ip of each row."""
        return self.energies.mean(1)

    def minimum(self) -> Float[Tensor, " n"]:
        """min_p E_ip of each row."""
        return self.energies.amin(1)


@dataclass(eq=False)
class Listed(Rows):
    """Energies with any number of samples for each anchor, in a list: `energies[k]` belongs to anchor `anchor[k]`."""

    energies: Float[Tensor, " p"]
    anchor: Int[Tensor, " p"]
    n: int

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """Number of samples of each anchor: how often it is listed."""
        return torch.bincount(self.anchor, minlength=self.n).to(self.energies.dtype)

    def _sum(self, values: Float[Tensor, " p"]) -> Float[Tensor, " n"]:
        return values.new_zeros(self.n).index_add_(0, self.anchor, values)

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Each row's log Σ exp(-E) over the listed energies of its anchor."""
        minimum = self.minimum().detach()
        total = self._sum(torch.exp(minimum[self.anchor] - self.energies))
        empty = total == 0
        return torch.where(empty, lowest(total.dtype), torch.where(empty, 1, total).log() - minimum)

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """Mean of function(E, *values) over the listed energies of each anchor."""
        listed_values = (value[self.anchor] if value.dim() else value for value in values)
        results = function(self.energies, *listed_values).expand_as(self.energies)
        return self._sum(results) / self.count.clamp(min=1)

    def minimum(self) -> Float[Tensor, " n"]:
        """The lowest of the listed energies of each anchor."""
        of_empty_rows = self.energies.new_full((self.n,), -lowest(self.energies.dtype))
        return of_empty_rows.scatter_reduce(0, self.anchor, self.energies, "amin")


@dataclass(eq=False)
class EnergyMatrix(Rows):
    """Energies of anchors with all candidates except those left out; they are computed when they are reduced.

    Args:
        energy: E.
        anchors: a_i.
        candidates: b_j.
        excluded: The pairs that are left out.
        only: Keys; only pairs of equal keys are taken, and `excluded` is a `Pairs` or None.
        symmetric: A promise that halves the work of tiles: anchors and candidates are the same vectors in the same
            order, and both the energy and the choice of pairs are symmetric.
    """

    energy: Energy
    anchors: Float[Tensor, "n dim"]
    candidates: Float[Tensor, "m dim"]
    excluded: SameKey | Pairs | None = field(default=None, kw_only=True)
    only: SameKey | None = field(default=None, kw_only=True)
    symmetric: bool = field(default=False, kw_only=True)
    _dense: tuple[Tensor, Tensor | None] | None = field(default=None, init=False)

    def logsumexp(self) -> Float[Tensor, " n"]:
        """Each row's log Σ_j exp(-E_ij) over the candidates taken."""
        if self.energy.linear and len(self.anchors) * len(self.candidates) > MAX_DENSE_LOGSUMEXP_ENTRIES:
            return kernels.logsumexp(self._factors, self._tiles, bound=self.energy.bound)
        highest = torch.finfo(self.anchors.dtype).max / 4  # finite: a row without samples has a gradient of 0, not NaN
        return self._reduce(
            lambda energies, left_out, _: torch.logsumexp(
                -(energies if left_out is None else energies.masked_fill(left_out, highest)), dim=1
            )
        )

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_j function(E_ij, *values) of each row, over the candidates taken."""
        if self.energy.factorises and len(self.anchors) * len(self.candidates) > MAX_DENSE_ENTRIES:
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
        """min_j E_ij of each row, over the candidates taken."""
        highest = -lowest(self.anchors.dtype)
        return self._reduce(
            lambda energies, left_out, _: torch.amin(
                energies if left_out is None else energies.masked_fill(left_out, highest), dim=1
            )
        )

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_j E_ij of each row; in O(n + m) for a linear energy, from sums of its factors."""
        if not self.energy.linear:
            return super().mean_energy()
        f, g, u, v = self._factors
        u, v = f.new_zeros(len(f)) if u is None else u, g.new_zeros(len(g)) if v is None else v
        total = -f @ g.sum(0) + len(g) * u + v.sum()
        if self._key is not None:
            group, anchor_group, sizes = _groups(self._key)
            g_sums = g.new_zeros(len(sizes), g.shape[1]).index_add_(0, group, g)
            v_sums = v.new_zeros(len(sizes)).index_add_(0, group, v)
            key_total = -(f * g_sums[anchor_group]).sum(1) + sizes[anchor_group] * u + v_sums[anchor_group]
            key_total = torch.where(anchor_group >= 0, key_total, 0)
            total = key_total if self.only is not None else total - key_total
        i, j = self._left_out_pairs
        total = total.index_add(0, i, -(f[i] * g[j]).sum(1) + u[i] + v[j], alpha=-1)
        return torch.where(self.count > 0, total / self.count.clamp(min=1), 0)

    def logsumexp_with(self, other: Rows) -> Float[Tensor, " n"]:
        """log(Σ exp(-E) + Σ' exp(-E')); in one pass where the other rows take just what these leave out by key."""
        if not (isinstance(other, EnergyMatrix) and self.only is not None and other.excluded is self.only):
            return super().logsumexp_with(other)
        both = EnergyMatrix(
            self.energy, self.anchors, self.candidates, excluded=self.excluded, symmetric=self.symmetric
        )
        return both.logsumexp()

    @cached_property
    def count(self) -> Float[Tensor, " n"]:
        """Number of candidates that each anchor takes."""
        n, m = len(self.anchors), len(self.candidates)
        count = torch.full((n,), m, device=self.anchors.device)
        if self._key is not None:
            _, anchor_group, sizes = _groups(self._key)
            key_count = torch.where(anchor_group >= 0, sizes[anchor_group], 0)
            count = key_count if self.only is not None else count - key_count
        return (count - torch.bincount(self._left_out_pairs.anchors, minlength=n)).to(self.anchors.dtype)

    @property
    def _key(self) -> SameKey | None:
        """The keys that decide which candidates are taken; None: no keys do."""
        return self.excluded if isinstance(self.excluded, SameKey) else self.only

    @cached_property
    def _left_out_pairs(self) -> Pairs:
        """The pairs that are left out one by one, among those that the keys would take."""
        if not isinstance(self.excluded, Pairs):
            no_positions = torch.zeros(0, dtype=torch.int64, device=self.anchors.device)
            return Pairs(no_positions, no_positions)
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
            self._chunk_entries,
            keys=self._key,
            takes_equal_keys=self.only is not None,
            left_out=self._left_out_pairs,
            symmetric=self.symmetric and self.anchors.requires_grad == self.candidates.requires_grad,
        )

    @property
    def _chunk_entries(self) -> int:
        return CHUNK_ENTRIES * (1 if self.anchors.device.type == "cpu" else ACCELERATOR_CHUNK_FACTOR)

    def _reduce(self, reduction: Callable[[Tensor, Tensor | None, slice], Tensor]) -> Float[Tensor, " n"]:
        """Reduce the rows of all anchors, at once or by chunks that are computed again in the backward.

        Args:
            reduction: A function of the energies of some anchors with all candidates, of which of these are left out
                (None: none), and of the anchors' slice; it gives a number for each anchor.
        """
        n, m = len(self.anchors), len(self.candidates)
        if n * m <= MAX_DENSE_ENTRIES:
            self._dense = self._dense or self._block(slice(0, n))
            return reduction(*self._dense, slice(0, n))

        def reduced(rows: slice) -> Tensor:
            return reduction(*self._block(rows), rows)

        size = max(1, self._chunk_entries // m)
        chunks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        return torch.cat([checkpoint(reduced, rows, use_reentrant=False, preserve_rng_state=False) for rows in chunks])

    def _block(self, rows: slice) -> tuple[Float[Tensor, "rows m"], Bool[Tensor, "rows m"] | None]:
        """Energies of some anchors with all candidates, and which of these are left out (None: none)."""
        energies, left_out = self.energy.cross(self.anchors[rows], self.candidates), None
        if self.only is not None:
            left_out = self.only.anchors[rows, None] != self.only.candidates
        if isinstance(self.excluded, SameKey):
            left_out = self.excluded.anchors[rows, None] == self.excluded.candidates
        elif self.excluded is not None:
            left_out = torch.zeros_like(energies, dtype=torch.bool) if left_out is None else left_out
            i, j = self.excluded
            in_block = (i >= rows.start) & (i < rows.stop)
            left_out[i[in_block] - rows.start, j[in_block]] = True
        return energies, left_out


class Listing(NamedTuple):
    """A list of positives: `vectors[k]` is one of the anchor at position `anchors[k]`."""

    anchors: Int[Tensor, " p"]
    vectors: Float[Tensor, "p dim"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What is compared: anchors with their positives, and with candidates of which all but the excluded are negatives.

    Attributes:
        anchors: a_i.
        positives: Matrices, each with one positive of every anchor; or a list of positives; or keys, where an anchor's
            positives are the candidates of its key.
        candidates: b_j; None: there are no negatives.
        excluded: The pairs (anchor, candidate) in which the candidate is no negative.
        itself: The pairs of an anchor with itself, which positives by key would include.
        symmetric: True if anchors and candidates are the same vectors in the same order, and `excluded` is symmetric.
    """

    anchors: Float[Tensor, "n dim"]
    positives: Sequence[Float[Tensor, "n target_dim"]] | Listing | SameKey
    candidates: Float[Tensor, "m target_dim"] | None = None
    excluded: SameKey | Pairs | None = None
    itself: Pairs | None = None
    symmetric: bool = False

    def rows(self, energy: Energy) -> tuple[Rows, Rows | None]:
        """Rows of the positives, and of the negatives where there are candidates."""
        a, b, symmetric = self.anchors, self.candidates, self.symmetric and energy.symmetric
        negative = None if b is None else EnergyMatrix(energy, a, b, excluded=self.excluded, symmetric=symmetric)
        positives = self.positives
        if isinstance(positives, SameKey):
            assert b is not None
            return EnergyMatrix(energy, a, b, only=positives, excluded=self.itself, symmetric=symmetric), negative
        if isinstance(positives, Listing):
            energies = energy.paired(a[positives.anchors], positives.vectors)
            return Listed(energies, positives.anchors, len(a)), negative
        return Paired(torch.stack([energy.paired(a, positive) for positive in positives], dim=1)), negative


def _apply(
    function: Callable[..., Tensor], energies: Float[Tensor, "n p"], values: tuple[Value, ...]
) -> Float[Tensor, "n p"]:
    """Apply a function to energies and values; a value per anchor becomes a column."""
    return function(energies, *(value[:, None] if value.dim() else value for value in values)).expand_as(energies)


def _groups(key: SameKey) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"], Int[Tensor, " groups"]]:
    """Group the candidates by key: group of each candidate, group of each anchor (-1: none), size of each group."""
    keys, group, sizes = torch.unique(key.candidates, return_inverse=True, return_counts=True)
    position = torch.searchsorted(keys, key.anchors).clamp(max=len(keys) - 1)
    return group, torch.where(keys[position] == key.anchors, position, -1), sizes
