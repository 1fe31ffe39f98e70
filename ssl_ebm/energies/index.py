"""Search for the embeddings of lowest energy."""

from __future__ import annotations

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_ebm.energies.pairwise import Energy


class EnergyIndex:
    """The embeddings of lowest energy, found by an inner-product search over the energy's factorisation.

        E_ij = link(u_i - <(f_i, 1), (g_j, -v_j)>)

    Attributes:
        faiss: The faiss index of (g_j, -v_j).
    """

    def __init__(self, energy: Energy, embeddings: Float[Tensor, "m dim"]) -> None:
        self.energy = energy
        vectors, offset = energy.factor(embeddings, "candidate")
        offsets = vectors.new_zeros(len(vectors)) if offset is None else -offset
        self.faiss = faiss.IndexFlatIP(vectors.shape[1] + 1)
        self.faiss.add(_with_column(vectors, offsets))

    def search(self, embeddings: Float[Tensor, "n dim"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Energies and positions of the k embeddings of lowest energy for each anchor, lowest first.

        Raises:
            ValueError: k is not in [1, size of the index].
        """
        if not 1 <= k <= self.faiss.ntotal:
            raise ValueError(f"k must be in [1, {self.faiss.ntotal}], the size of the index, got {k}")
        vectors, offset = self.energy.factor(embeddings, "anchor")
        scores, positions = self.faiss.search(_with_column(vectors, vectors.new_ones(len(vectors))), k)
        raw = -torch.from_numpy(scores)
        raw = raw if offset is None else raw + offset.detach().cpu()[:, None]
        return self.energy.link(raw.to(embeddings.device)).detach().cpu(), torch.from_numpy(positions)


def _with_column(vectors: Tensor, column: Tensor) -> np.ndarray:
    return torch.cat([vectors, column[:, None]], dim=1).detach().cpu().numpy()
