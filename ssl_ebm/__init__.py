"""Self-supervised representation learning framed as energy-based models: low energy = compatible.

Public names are imported when they are first asked for: torch and timm take seconds, and `--help` should take none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_ebm.config import Config, load_config
    from ssl_ebm.data.datasets import load_data
    from ssl_ebm.data.splits import Images, Splits
    from ssl_ebm.data.views import create_views
    from ssl_ebm.energies.pairwise import Bilinear, Cosine, Dot, Energy, SquaredEuclidean
    from ssl_ebm.model import EnergyModel, load
    from ssl_ebm.networks.embeddings import Embeddings
    from ssl_ebm.networks.encoder import Encoder, create_encoder
    from ssl_ebm.networks.heads import MLP, HeadSpec
    from ssl_ebm.networks.joint_embedding import JointEmbedding
    from ssl_ebm.objectives import Objective, Step, create_objective, list_objectives
    from ssl_ebm.training.loop import pretrain

_NAMES = {
    "config": ("Config", "load_config"),
    "data": ("Images", "Splits", "create_views", "load_data"),
    "energies": ("Bilinear", "Cosine", "Dot", "Energy", "SquaredEuclidean"),
    "evaluation": (),
    "model": ("EnergyModel", "load"),
    "networks": ("MLP", "Embeddings", "Encoder", "HeadSpec", "JointEmbedding", "create_encoder"),
    "objectives": ("Objective", "Step", "create_objective", "list_objectives"),
    "training.loop": ("pretrain",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "MLP",
    "Bilinear",
    "Config",
    "Cosine",
    "Dot",
    "Embeddings",
    "Encoder",
    "Energy",
    "EnergyModel",
    "HeadSpec",
    "Images",
    "JointEmbedding",
    "Objective",
    "Splits",
    "SquaredEuclidean",
    "Step",
    "create_encoder",
    "create_objective",
    "create_views",
    "list_objectives",
    "load",
    "load_config",
    "load_data",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    """Import what a public name stands for, or a folder of the package."""
    if name in _NAMES:
        return import_module(f"ssl_ebm.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'ssl_ebm' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"ssl_ebm.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Public names, whether or not they were imported yet."""
    return sorted({*globals(), *__all__})
