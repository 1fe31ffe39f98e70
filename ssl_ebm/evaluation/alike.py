"""How alike what runs learnt is, from the files that their evaluations left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.evaluation.features import read_split
from ssl_ebm.evaluation.groups import Group
from ssl_ebm.evaluation.similarity import similarities

IMAGES = 2000  # of the test split, at even distances


def alike(groups: Sequence[Group]) -> dict[str, Any] | None:
    """`similarities` of the groups' first runs, and the `names` of the groups in their order.

    Of the groups whose evaluation kept features and pairs; None where those are fewer than two. Energies of pairs are
    compared where all runs have the same views, and so the same pairs.
    """
    known = [group for group in groups if _files(group)[0].is_file() and _files(group)[1].is_file()]
    if len(known) < 2:
        return None
    features, energies = [], []
    for group in known:
        test = read_split(group.first.path / "features", "test").features
        features.append(test[np.linspace(0, len(test) - 1, min(IMAGES, len(test))).round().astype(int)])
        with np.load(_files(group)[1], allow_pickle=False) as pairs:
            energies.append(pairs["trained"])
    found: dict[str, Any] = {"names": [group.name for group in known], **similarities(features, energies)}
    views = {json.dumps(group.first.results["config"]["views"], sort_keys=True) for group in known}
    return found if len(views) == 1 else {key: value for key, value in found.items() if key != "spearman"}


def _files(group: Group) -> tuple[Path, Path]:
    return group.first.path / "features" / "test.faiss", group.first.path / "pairs.npz"
