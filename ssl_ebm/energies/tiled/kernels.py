"""Reductions of a matrix of energies tile by tile, in memory linear in the number of samples.

The forward keeps the factors of E_ij = link(-<f_i, g_j> + u_i + v_j) and the reduced rows; the backward computes each
tile again. A mirrored tile counts for its rows and, transposed, for its columns: E_ji is E_ij.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_ebm.energies.tiled.factors import Factors, Gradients
from ssl_ebm.energies.tiled.tiles import Tile

LOG2_E = math.log2(math.e)  # powers of 2 take less than half as long as exp on CPUs
SAFE_ENERGY = 30.0  # nats: sums of exp(±30) over any number of samples neither overflow nor lose float32 precision

Elementwise = Callable[..., Tensor]


def lowest(dtype: torch.dtype) -> float:
    """The value of log Σ exp(-E) over no samples: finite, and far below that of any samples."""
    return -torch.finfo(dtype).max / 4


class _LogSumExp(torch.autograd.Function):
    """log Σ_j exp(-E_ij) of an energy whose link is the identity.

    Energies within ±SAFE_ENERGY are summed as they are (`safe`), others under a running maximum `top`. Where only
    anchors need a gradient (`one_sided`), the forward keeps it: -∂/∂f_i is minus the mean of g_j under p_ij, which is
    attention's output. Below, s is -E in bits and p is 2^s, or 2^(s - top).
    """

    @staticmethod
    def forward(ctx: Any, tiles: Sequence[Tile], safe: bool, one_sided: bool, *factors: Any) -> Tensor:
        x = Factors(*factors)
        total = x.f.new_zeros(len(x.f))
        top = torch.full_like(total, 0.0 if safe else lowest(x.f.dtype))
        mean = torch.zeros_like(x.f) if one_sided else None
        for tile, s in x.tiles(tiles, -LOG2_E):
            if safe:
                p = tile.fill(s.exp2_(), 0.0)
                total[tile.rows] += p.sum(1)
                if tile.mirrored:
                    total[tile.columns] += p.sum(0)
            else:
                tile.fill(s, 4 * lowest(s.dtype))
                p, shrink = _rise(top[tile.rows], total[tile.rows], s, 1)
                if tile.mirrored:
                    _rise(top[tile.columns], total[tile.columns], s, 0)
                if mean is not None:
                    mean[tile.rows] *= shrink[:, None]
            if mean is not None:
                mean[tile.rows].addmm_(p, x.g[tile.columns])
        value = torch.where(total == 0, lowest(top.dtype), total.log() + top / LOG2_E)
        if mean is not None:
            mean /= torch.where(total == 0, 1, total)[:, None]
        ctx.tiles, ctx.safe = tiles, safe
        ctx.save_for_backward(*factors, value, mean)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *factors, value, mean = ctx.saved_tensors
        x, empty, needed = Factors(*factors), value < lowest(value.dtype) / 2, ctx.needs_input_grad[3:]
        weight = -gradient.masked_fill(empty, 0)  # Σ_j ∂/∂E_ij
        if mean is not None:
            return None, None, None, -weight[:, None] * mean, None, weight if needed[2] else None, None
        if ctx.safe:
            weight = weight * (-value.masked_fill(empty, 0)).exp()
        result, top = Gradients(x, needed), value * LOG2_E
        for tile, s in x.tiles(ctx.tiles, -LOG2_E):
            by_row, by_column = weight[tile.rows, None], weight[tile.columns] if tile.mirrored else None
            if ctx.safe:
                p = tile.fill(s.exp2_(), 0.0).mul_(by_row if by_column is None else by_row + by_column)
            else:
                tile.fill(s, -torch.inf)
                p = (s - top[tile.rows, None]).exp2_().mul_(by_row)
                if by_column is not None:
                    p += s.sub_(top[tile.columns]).exp2_().mul_(by_column)
            result.add(tile, p)
        return None, None, None, result.f, result.g, result.u, result.v


def _rise(top: Tensor, total: Tensor, s: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Add Σ 2^s along a dimension to the sums total · 2^top, in place; gives 2^(s - top) and the old totals' factor."""
    highest = torch.maximum(top, s.amax(dim))
    shrink = (top - highest).exp2_()
    p = (s - highest.unsqueeze(dim)).exp2_()
    total.mul_(shrink).add_(p.sum(dim))
    top.copy_(highest)
    return p, shrink


_attention = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


class _Attention(torch.autograd.Function):
    """Compute log Σ_j exp(<f_i, g_j>) and its gradient Σ_j p_ij g_j by PyTorch's fused attention for CPUs.

    A private operator, used where there is one: a queue of 65,536 takes 1.06 times as long by tiles (256 anchors).
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor) -> Tensor:
        assert _attention is not None
        mean, value = _attention(f[None, None], g[None, None], g[None, None], scale=1.0)
        ctx.save_for_backward(mean.view(f.shape))
        return value.view(len(f))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient[:, None] * ctx.saved_tensors[0], None


def _safe(x: Factors, bound: float | None) -> bool:
    """True if exp(-E) needs no shift, by the energy's bound or else by Cauchy-Schwarz on this data."""
    if bound is None:
        f, g, u, v = (None if factor is None else factor.detach() for factor in x)
        assert f is not None and g is not None
        offsets = [offset.abs().amax() for offset in (u, v) if offset is not None]
        bound = float(f.norm(dim=1).amax() * g.norm(dim=1).amax() + sum(offsets))
    return bound <= SAFE_ENERGY


def logsumexp(x: Factors, tiles: Sequence[Tile], *, bound: float | None) -> Tensor:
    """Each row's log Σ_j exp(-E_ij), for an energy whose link is the identity; `lowest` for a row without samples.

    Args:
        x: The factors of E.
        tiles: The tiles of the matrix, which know the entries left out.
        bound: An upper bound of |E| over all pairs; None: not known beforehand.
    """
    wanted = [torch.is_grad_enabled() and factor is not None and factor.requires_grad for factor in x]
    one_sided = wanted[0] and not wanted[1] and not wanted[3] and not any(tile.mirrored for tile in tiles)
    whole = all(tile.keys is None and tile.left_out is None for tile in tiles)
    fused = _attention is not None and x.f.device.type == "cpu" and x.f.dtype == torch.float32 and x.v is None
    if one_sided and whole and tiles and fused:
        value = _Attention.apply(x.f, x.g)
        return value if x.u is None else value - x.u
    return _LogSumExp.apply(tiles, not tiles or _safe(x, bound), one_sided, *x)


class _Sum(torch.autograd.Function):
    """Σ_j function(link(raw_ij), *values_i); autograd differentiates both functions on one tile at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        tiles: Sequence[Tile],
        function: Elementwise,
        link: Elementwise,
        parameters: Sequence[Tensor],
        split: int,
        *tensors: Any,
    ) -> Tensor:
        x, values = Factors(*tensors[:4]), tensors[4:split]
        total = x.f.new_zeros(len(x.f))
        for tile, raw in x.tiles(tiles, 1.0):
            energy = link(raw)
            result = tile.cleared(function(energy, *(_column(value, tile.rows) for value in values)))
            total[tile.rows] += result.sum(1)
            if tile.mirrored:
                if _per_anchor(values):
                    result = function(energy.T, *(_column(value, tile.columns) for value in values)).T
                    result = tile.cleared(result)
                total[tile.columns] += result.sum(0)
        ctx.save_for_backward(*tensors[:split])
        ctx.tiles, ctx.function, ctx.link, ctx.parameters = tiles, function, link, parameters
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, values, needed = Factors(*ctx.saved_tensors[:4]), ctx.saved_tensors[4:], ctx.needs_input_grad[5:]
        result = Gradients(x, needed)
        totals = [
            torch.zeros_like(t) if need else None
            for t, need in zip((*values, *ctx.parameters), needed[4:], strict=True)
        ]
        for tile, raw in x.tiles(ctx.tiles, 1.0):
            derivative = _Sum._differentiate(ctx, tile, raw, values, gradient, totals)
            if derivative is not None:
                result.add(tile, derivative)
        return (*(None,) * 5, result.f, result.g, result.u, result.v, *totals)

    @staticmethod
    def _differentiate(
        ctx: Any, tile: Tile, raw: Tensor, values: Sequence[Tensor], gradient: Tensor, totals: Sequence[Tensor | None]
    ) -> Tensor | None:
        """Derivative by the tile; those by values and parameters are added to `totals`."""
        raw = raw.detach().requires_grad_()
        inputs, summed = [raw], []  # a derivative by an input other than raw belongs to the total at its place

        def evaluate(energy: Tensor, part: slice) -> Tensor:
            arguments = []
            for value, total in zip(values, totals, strict=False):
                leaf = (value[part] if value.dim() else value).detach().requires_grad_(total is not None)
                arguments.append(_column(leaf))
                if total is not None:
                    inputs.append(leaf)
                    summed.append(total[part] if value.dim() else total)
            return ctx.function(energy, *arguments).expand_as(energy)

        weights = [gradient[tile.rows, None]]
        with torch.enable_grad():
            energy = ctx.link(raw)
            results = [evaluate(energy, tile.rows)]
            if tile.mirrored and _per_anchor(values):
                results.append(evaluate(energy.T, tile.columns).T)
                weights.append(gradient[tile.columns])
            elif tile.mirrored:
                weights[0] = weights[0] + gradient[tile.columns]
        if not results[0].requires_grad:  # a step function, such as a comparison
            return None
        for parameter, total in zip(ctx.parameters, totals[len(values) :], strict=True):
            if total is not None:
                inputs.append(parameter)
                summed.append(total)
        weights = [tile.cleared(weight.expand_as(raw)) for weight in weights]
        derivative, *further = torch.autograd.grad(results, inputs, weights, allow_unused=True)
        for total, part in zip(summed, further, strict=True):
            if part is not None:
                total += part
        return derivative


def _per_anchor(values: Sequence[Tensor]) -> bool:
    return any(value.dim() > 0 for value in values)


def _column(value: Tensor, part: slice = slice(None)) -> Tensor:
    return value[part, None] if value.dim() else value


def total(
    function: Elementwise,
    x: Factors,
    tiles: Sequence[Tile],
    *values: Tensor,
    link: Elementwise,
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Σ_j function(link(raw_ij), *values_i) of each row; 0 for a row without samples.

    Args:
        function: Elementwise in its first argument; a tensor that it captures gets no gradient.
        x: The factors of raw = -<f, g> + u + v.
        tiles: The tiles of the matrix, which know the entries left out.
        values: Each has one number per anchor [n], which the function sees as a column, or is a scalar.
        link: The link of the energy.
        parameters: The parameters of the link that need a gradient.
    """
    return _Sum.apply(tiles, function, link, parameters, 4 + len(values), *x, *values, *parameters)
