"""Networks: a timm backbone with its stem adapted, projector and predictor heads, and the teacher."""

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.encoder import Encoder, EncoderConfig, create_encoder
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.networks.joint_embedding import JointEmbedding
from ssl_ebm.networks.user_backbone import Backbone

__all__ = ["MLP", "Backbone", "Embeddings", "Encoder", "EncoderConfig", "HeadSpec", "JointEmbedding", "create_encoder"]
