"""Every objective at a small size, and random batches for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.embeddings import Embeddings
from ssl_ebm.objectives import Objective, create_objective, objective_arguments

DIM = 4
BANK = 20
SMALL = {"bank_size": BANK, "draws": 7, "queue_size": 9, "slices": 3}


def small_objective(name: str, *, dim: int = DIM, **constants: Any) -> Objective:
    """An objective for embeddings of `dim`, with little to remember; of the constants, those that it takes."""
    heads = {"projector": {"hidden": (8,), "out": dim}, "predictor": {"hidden": (8,), "out": dim}}
    arguments = {**SMALL, **heads, **constants}
    return create_objective(name, **{k: v for k, v in arguments.items() if k in objective_arguments(name)})


def random_batch(
    seed: int = 0, *, views: int = 2, images: int = 6, dim: int = DIM, dtype: torch.dtype = torch.float64
) -> Embeddings:
    """Independent normal embeddings in every part, three classes, distinct images of the bank."""
    generator = torch.Generator().manual_seed(seed)
    parts = {
        name: torch.randn(views, images, dim, generator=generator, dtype=torch.float64).to(dtype)
        for name in ("projection", "prediction", "target")
    }
    return Embeddings(
        **parts,
        label=torch.randint(3, (images,), generator=generator),
        index=torch.randperm(BANK, generator=generator)[:images],
    )


def constant_batch(value: float = 1.0, *, images: int = 6, dim: int = DIM) -> Embeddings:
    """A collapse: all embeddings are one vector."""
    vector = torch.full((2, images, dim), value, dtype=torch.float64)
    return replace(random_batch(images=images, dim=dim), projection=vector, prediction=vector, target=vector)


def with_gradients(batch: Embeddings) -> Embeddings:
    """The batch with leaves that take a gradient."""
    return transform(batch, lambda part: part.detach().clone().requires_grad_() if part.is_floating_point() else part)


def transform(batch: Embeddings, function: Any) -> Embeddings:
    """Apply a function to every tensor of a batch."""
    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: function(part) for name, part in parts.items() if isinstance(part, Tensor)})


def select(batch: Embeddings, images: Tensor | slice) -> Embeddings:
    """Some images of a batch, or all in another order."""
    return transform(batch, lambda part: part[:, images] if part.is_floating_point() else part[images])


def gradients(loss: Tensor, leaves: Iterable[Tensor]) -> list[Tensor]:
    """Gradients of a loss, zero where it does not depend on a leaf."""
    return list(torch.autograd.grad(loss, list(leaves), allow_unused=True, materialize_grads=True))
