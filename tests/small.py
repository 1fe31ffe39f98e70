"""Every objective at a small size, and random batches for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives import CHANGES, Objective, create_objective, objective_arguments
from ssl_ebm.objectives.parts.compatibility import Adjacency

DIM = 4
FEATURES = 5
BANK = 20
SMALL = {
    "bank_size": BANK,
    "draws": 7,
    "queue_size": 9,
    "slices": 3,
    "features": 5,
    "prototypes": 5,
    "frozen_prototypes": 0.0,
}
HEAD = {"hidden": (8,), "prototypes": 0, "frozen_prototypes": 0.0}


def slow_but_for(values: Iterable[Any], *kept: Any) -> list[Any]:
    """Parameters of a test of which all but the kept ones are slow."""
    return [pytest.param(value, marks=() if value in kept else pytest.mark.slow, id=str(value)) for value in values]


def small_objective(name: str, *, dim: int = DIM, **constants: Any) -> Objective:
    """An objective for embeddings of `dim`, with little to remember; of the constants, those that it takes."""
    heads = {"projector": HEAD | {"out": dim}, "predictor": HEAD | {"out": dim}}
    arguments = {**SMALL, **heads, **constants}
    taken = {*objective_arguments(name), *CHANGES}
    return create_objective(name, **{k: v for k, v in arguments.items() if k in taken})


def random_batch(
    seed: int = 0,
    *,
    views: int = 2,
    images: int = 6,
    dim: int = DIM,
    dtype: torch.dtype = torch.float64,
    global_views: int | None = None,
) -> Embeddings:
    """Independent normal embeddings in every part, three classes, distinct images of the bank."""
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(views, images, width, generator=generator, dtype=torch.float64).to(dtype)

    parts = {name: normal(dim) for name in ("projection", "prediction", "target")}
    parts["target"] = parts["target"][:global_views]
    names = {
        "label": torch.randint(3, (images,), generator=generator),
        "index": torch.randperm(BANK, generator=generator)[:images],
    }
    return Embeddings(**parts, **names, features=normal(FEATURES), global_views=global_views)


def batch_for(objective: Objective, seed: int = 0, *, images: int = 6, **shape: Any) -> Embeddings:
    """A random batch of at least so many images as the objective needs, of its dimension."""
    least = max(images, objective.least_batch())
    return random_batch(seed, images=least, dim=objective.heads.projector.dim, **shape)


def constant(batch: Embeddings, value: float = 1.0) -> Embeddings:
    """A collapse: all embeddings are one vector."""
    return transform(batch, lambda part: torch.full_like(part, value) if part.is_floating_point() else part)


def constant_batch(value: float = 1.0, *, images: int = 6, dim: int = DIM) -> Embeddings:
    """A collapsed batch of a given size."""
    return constant(random_batch(images=images, dim=dim), value)


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


def gradients(loss: Tensor, leaves: Iterable[Tensor], **kwargs: bool) -> list[Tensor]:
    """Gradients of a loss, zero where it does not depend on a leaf."""
    return list(torch.autograd.grad(loss, list(leaves), allow_unused=True, materialize_grads=True, **kwargs))


def random_adjacency(size: int, seed: int = 0) -> tuple[Adjacency, list[set[int]]]:
    """Directed, with repeated edges, samples without any; and the neighbours of each by hand."""
    generator = torch.Generator().manual_seed(seed)
    neighbours = [
        torch.randint(size, (int(torch.randint(5, (), generator=generator)),), generator=generator).tolist()
        for _ in range(size)
    ]
    indptr = torch.tensor([0, *(len(each) for each in neighbours)]).cumsum(0)
    indices = torch.tensor([j for each in neighbours for j in each], dtype=torch.long)
    return Adjacency(indptr, indices), [{i, *each} for i, each in enumerate(neighbours)]
