"""Stratified samples: every class in proportion to its images."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def stratified_sample(
    labels: Int64[Tensor, " n"], total: int, random: np.random.RandomState, *, least: int = 0, spare: int = 0
) -> Int64[Tensor, " m"]:
    """A stratified sample without replacement: ascending positions in `labels`.

    Class c, of n_c images, gives total · n_c / n, rounded by the largest remainder, within the bounds
    min(least, n_c - spare) and n_c - spare; only these make the sample larger or smaller than `total`. With one state
    of `random`, a class that gives more to one sample than to another gives all of the other's images and further ones.

    Args:
        labels: Classes of the images.
        total: Images wanted.
        random: Draws them.
        least: Images of each class that are taken at least, where it has as many.
        spare: Images of each class that are left.
    """
    counts = np.bincount(labels.numpy())
    share = counts * total / counts.sum()
    upper = np.maximum(counts - spare, 0)
    lower = np.minimum(least, upper)
    quota = np.clip(share.astype(int), lower, upper)
    total = min(max(total, lower.sum()), upper.sum())
    while quota.sum() < total:
        quota[np.argmax(np.where(quota < upper, share - quota, -np.inf))] += 1
    while quota.sum() > total:
        quota[np.argmax(np.where(quota > lower, quota - share, -np.inf))] -= 1

    order = random.permutation(len(labels))
    order = order[np.argsort(labels.numpy()[order], kind="stable")]
    rank_in_class = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return torch.from_numpy(np.sort(order[rank_in_class < np.repeat(quota, counts)]))
