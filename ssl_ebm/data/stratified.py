"""Stratified samples: every class in its share."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def stratified_sample(
    labels: Int64[Tensor, " n"], total: int, random: np.random.RandomState, *, least: int = 0, spare: int = 0
) -> Int64[Tensor, " m"]:
    """Draws a stratified sample without replacement: ascending positions in `labels`.

    Class c, of n_c images, gives total · n_c / n, rounded by the largest remainder, within the bounds
    min(least, n_c - spare) and n_c - spare; only these make the sample larger or smaller than `total`. With one state
    of `random`, a class that gives more to one sample than to another gives all of the other's images and further ones.
    """
    counts = np.bincount(labels.numpy())
    share = counts * total / counts.sum()
    most = np.maximum(counts - spare, 0)
    lowest = np.minimum(least, most)
    quota = np.clip(share.astype(int), lowest, most)
    total = min(max(total, lowest.sum()), most.sum())
    while quota.sum() < total:
        quota[np.argmax(np.where(quota < most, share - quota, -np.inf))] += 1
    while quota.sum() > total:
        quota[np.argmax(np.where(quota > lowest, quota - share, -np.inf))] -= 1

    order = random.permutation(len(labels))
    order = order[np.argsort(labels.numpy()[order], kind="stable")]
    rank_in_class = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return torch.from_numpy(np.sort(order[rank_in_class < np.repeat(quota, counts)]))
