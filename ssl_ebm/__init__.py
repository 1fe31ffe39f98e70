"""Self-supervised representation learning framed as energy-based models: low energy = compatible."""

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

__all__ = [
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
    "MLP",
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
