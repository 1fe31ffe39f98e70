"""Mistakes of an energy: images of different classes that it finds most compatible."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CANDIDATES = 64  # pairs that each image offers: enough that some remain when its best partners are in better pairs


def worst_mistakes(
    rows: Callable[[slice], Float[Tensor, "rows n"]], labels: Int64[Tensor, " n"], *, count: int = 8, chunk: int = 512
) -> tuple[Int64[Tensor, "pairs 2"], Float[Tensor, " pairs"]]:
    """Pairs (i, j) of different classes with the lowest energies E(i, j), lowest first, no image in two of them.

    Greedy: the lowest pair, then the lowest of those that share no image with it, and so on; each image offers its 64
    lowest pairs, and there are fewer than `count` where those do not suffice.

    Args:
        rows: Gives energies [images in the slice, n].
        labels: Classes.
        count: Pairs wanted.
        chunk: Rows held at a time.
    """
    n, offers = len(labels), min(CANDIDATES, len(labels))
    values, partners = [], []
    for start in range(0, n, chunk):
        block = slice(start, min(start + chunk, n))
        energy = rows(block).detach().cpu().masked_fill(labels[block, None] == labels, torch.inf)
        lowest = energy.topk(offers, largest=False)
        values.append(lowest.values)
        partners.append(lowest.indices)
    value, partner = torch.cat(values).flatten(), torch.cat(partners).flatten()
    pairs: list[tuple[int, int]] = []
    energies: list[float] = []
    taken: set[int] = set()
    for position in value.argsort(stable=True).tolist():
        i, j, energy_of_pair = position // offers, int(partner[position]), float(value[position])
        if len(pairs) == count or energy_of_pair == float("inf"):
            break
        if not taken & {i, j}:
            pairs.append((i, j))
            energies.append(energy_of_pair)
            taken |= {i, j}
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), torch.tensor(energies)
