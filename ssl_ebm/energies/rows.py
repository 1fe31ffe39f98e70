"""Rows of energies: each anchor against its own samples.

A contrast asks of a row log Σ_j exp(-E_ij), the mean of a function of E_ij, or the lowest E_ij.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

Value = Float[Tensor, " n"] | Float[Tensor, ""]


def lowest(dtype: torch.dtype) -> float:
    """What log Σ exp(-E) is over no samples: finite, and far below any other."""
    return -torch.finfo(dtype).max / 4


def apply(
    function: Callable[..., Tensor], energies: Float[Tensor, "n p"], values: tuple[Value, ...]
) -> Float[Tensor, "n p"]:
    """The function of all energies and of each anchor's values, or of values common to all."""
    return function(energies, *(value[:, None] if value.dim() else value for value in values)).expand_as(energies)


class Rows:
    """Energies of n anchors, each against its own samples."""

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

    def union(self, other: Rows) -> Rows:
        """The samples of both; a sample in both counts twice."""
        return Union(self, other)


class Union(Rows):
    """The samples of two rows for every anchor."""

    def __init__(self, one: Rows, other: Rows) -> None:
        self.one, self.other = one, other

    @property
    def count(self) -> Float[Tensor, " n"]:
        """Of both together."""
        return self.one.count + self.other.count

    def logsumexp(self) -> Float[Tensor, " n"]:
        """log(Σ exp(-E) + Σ' exp(-E'))."""
        return torch.logaddexp(self.one.logsumexp(), self.other.logsumexp())

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """Mean of both means, weighted by their counts."""
        share = self.one.count / self.count.clamp(min=1)
        other = self.other.count / self.count.clamp(min=1)
        return share * self.one.mean(function, *values) + other * self.other.mean(function, *values)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """Mean of both means, weighted by their counts."""
        share = self.one.count / self.count.clamp(min=1)
        other = self.other.count / self.count.clamp(min=1)
        return share * self.one.mean_energy() + other * self.other.mean_energy()

    def minimum(self) -> Float[Tensor, " n"]:
        """The lower of both."""
        return torch.minimum(self.one.minimum(), self.other.minimum())


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

    def mean(self, function: Callable[..., Tensor], *values: Value) -> Float[Tensor, " n"]:
        """mean_p function(E_ip, *values)."""
        return apply(function, self.energies, values).mean(1)

    def mean_energy(self) -> Float[Tensor, " n"]:
        """mean_p E_ip."""
        return self.energies.mean(1)

    def minimum(self) -> Float[Tensor, " n"]:
        """min_p E_ip."""
        return self.energies.amin(1)


class Listed(Rows):
    """Any number of samples an anchor, given as a list of energies and the anchor of each."""

    def __init__(self, energies: Float[Tensor, " p"], anchor: Int[Tensor, " p"], n: int) -> None:
        self.energies, self.anchor, self.n = energies, anchor, n

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
        given = (value[self.anchor] if value.dim() else value for value in values)
        return self._sum(function(self.energies, *given).expand_as(self.energies)) / self.count.clamp(min=1)

    def minimum(self) -> Float[Tensor, " n"]:
        """The lowest of an anchor's energies."""
        none = self.energies.new_full((self.n,), -lowest(self.energies.dtype))
        return none.scatter_reduce(0, self.anchor, self.energies, "amin")
