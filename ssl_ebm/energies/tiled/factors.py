"""The factors of a matrix of energies, -<f_i, g_j> + u_i + v_j before the link, read tile by tile or pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_ebm.energies.tiled.selection import Tile


class Factors(NamedTuple):
    """Both sides of the energy: vectors [n, k] and [m, k], offsets [n] and [m] or None: zero."""

    f: Tensor
    g: Tensor
    u: Tensor | None
    v: Tensor | None

    def sorted(self, orders: tuple[Tensor, Tensor] | None) -> Factors:
        """Anchors and candidates in another order."""
        if orders is None:
            return self
        rows, columns = orders
        u = None if self.u is None else self.u.index_select(0, rows)
        v = None if self.v is None else self.v.index_select(0, columns)
        return Factors(self.f.index_select(0, rows), self.g.index_select(0, columns), u, v)

    def at(self, rows: Tensor, columns: Tensor, chunk: int) -> Tensor:
        """-<f_i, g_j> + u_i + v_j of single pairs, by chunks of so many numbers."""
        raw = -_Products.apply(self.f, self.g, rows, columns, max(1, chunk // self.f.shape[1]))
        for offset, index in ((self.u, rows), (self.v, columns)):
            raw = raw if offset is None else raw + offset.index_select(0, index)
        return raw

    def tiles(self, tiles: Sequence[Tile], scale: float) -> Iterator[tuple[Tile, Tensor]]:
        """Each tile with scale · (-<f, g> + u + v), all in one buffer: the next overwrites it."""
        buffer = self.f.new_empty(max((rows * columns for rows, columns in (tile.shape for tile in tiles)), default=0))
        for tile in tiles:
            rows, columns = tile.shape
            x = buffer[: rows * columns].view(rows, columns)
            if self.v is not None:
                x.copy_(self.v[tile.columns].expand(rows, columns))
            x.addmm_(self.f[tile.rows], self.g[tile.columns].T, beta=0 if self.v is None else scale, alpha=-scale)
            if self.u is not None:
                x.add_(self.u[tile.rows, None], alpha=scale)
            yield tile, x


class Gradients:
    """Gradients of the factors that need one, summed over tiles."""

    def __init__(self, factors: Factors, needed: Sequence[bool]) -> None:
        self.factors = factors
        self.f, self.g, self.u, self.v = (
            torch.zeros_like(x) if x is not None and need else None for x, need in zip(factors, needed, strict=False)
        )

    def add(self, tile: Tile, gradient: Tensor) -> None:
        """Add what the gradient of a tile of -<f, g> + u + v gives."""
        if self.f is not None:
            self.f[tile.rows].addmm_(gradient, self.factors.g[tile.columns], alpha=-1)
        if self.g is not None:
            self.g[tile.columns].addmm_(gradient.T, self.factors.f[tile.rows], alpha=-1)
        if self.u is not None:
            self.u[tile.rows] += gradient.sum(1)
        if self.v is not None:
            self.v[tile.columns] += gradient.sum(0)


class _Products(torch.autograd.Function):
    """<f_i, g_j> of listed pairs, some at a time: the gathered vectors are not kept."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, rows: Tensor, columns: Tensor, chunk: int) -> Tensor:
        ctx.save_for_backward(f, g, rows, columns)
        ctx.chunk = chunk
        pieces = zip(rows.split(chunk), columns.split(chunk), strict=True)
        return torch.cat([(f[i] * g[j]).sum(1) for i, j in pieces])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        f, g, rows, columns = ctx.saved_tensors
        df, dg = (torch.zeros_like(x) if need else None for x, need in zip((f, g), ctx.needs_input_grad, strict=False))
        pieces = (x.split(ctx.chunk) for x in (rows, columns, gradient[:, None]))
        for i, j, d in zip(*pieces, strict=True):
            if df is not None:
                df.index_add_(0, i, d * g[j])
            if dg is not None:
                dg.index_add_(0, j, d * f[i])
        return df, dg, None, None, None
