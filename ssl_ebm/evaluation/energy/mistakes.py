"""What an energy takes for one thing and labels do not."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CANDIDATES = 64  # of each image: enough that pairs remain where images were taken by better pairs


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
    n = len(labels)
    values, others = [], []
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        energy = rows(part).detach().cpu().masked_fill(labels[part, None] == labels, torch.inf)
        lowest = energy.topk(min(CANDIDATES, n), largest=False)
        values.append(lowest.values)
        others.append(lowest.indices)
    value, other = torch.cat(values), torch.cat(others)
    order = value.flatten().argsort(stable=True)
    pairs: list[tuple[int, int]] = []
    energies: list[float] = []
    taken: set[int] = set()
    for position in order.tolist():
        i, j, own = position // value.shape[1], int(other.flatten()[position]), float(value.flatten()[position])
        if len(pairs) == count or own == float("inf"):
            break
        if not taken & {i, j}:
            pairs.append((i, j))
            energies.append(own)
            taken |= {i, j}
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), torch.tensor(energies)
