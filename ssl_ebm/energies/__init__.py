"""Energies E(a, b) of two embeddings: low for compatible pairs, in nats."""

from ssl_ebm.energies.canonical import (
    CanonicalForm,
    Gaussian,
    LogRatio,
    Offset,
    Partition,
    Ratio,
    Shifted,
    WithUnitMarginals,
    mutual_information,
)
from ssl_ebm.energies.codes import CodeCrossEntropy, Codes, SharedCode, sinkhorn
from ssl_ebm.energies.gaussian_views import CanonicalCorrelation
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.energies.pairwise import (
    Bilinear,
    Cosine,
    DirectPrediction,
    Distance,
    Dot,
    Energy,
    Factor,
    InverseMultiquadratic,
    SquaredEuclidean,
)
from ssl_ebm.energies.whitening import Whitened

__all__ = [
    "Bilinear",
    "CanonicalCorrelation",
    "CodeCrossEntropy",
    "Codes",
    "Cosine",
    "DirectPrediction",
    "Distance",
    "Dot",
    "Energy",
    "EnergyIndex",
    "Factor",
    "CanonicalForm",
    "Gaussian",
    "InverseMultiquadratic",
    "LabelEnergy",
    "LogRatio",
    "Offset",
    "Partition",
    "Ratio",
    "WithUnitMarginals",
    "SharedCode",
    "Shifted",
    "SquaredEuclidean",
    "Whitened",
    "mutual_information",
    "sinkhorn",
]
