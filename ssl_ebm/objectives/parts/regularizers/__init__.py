"""Regularizers: statistics of the embeddings' distribution, which limit the volume of low energy without negatives.

Each takes all views of all ranks' batch, [views, batch, dim], and is computed on whichever Gram matrix is smaller.
"""

from ssl_ebm.objectives.parts.regularizers.entropy import KoLeo, MeanEntropy, Uniformity
from ssl_ebm.objectives.parts.regularizers.gaussianity import SlicedGaussianity, WhitenedDistance
from ssl_ebm.objectives.parts.regularizers.kernels import HSIC
from ssl_ebm.objectives.parts.regularizers.moments import Covariance, CrossCorrelation, SecondMoment, Variance
from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer
from ssl_ebm.objectives.parts.regularizers.volume import CodingRate, LogDetCovariance, NuclearNorm, RateReduction

__all__ = [
    "HSIC",
    "CodingRate",
    "Covariance",
    "CrossCorrelation",
    "KoLeo",
    "LogDetCovariance",
    "MeanEntropy",
    "NuclearNorm",
    "RateReduction",
    "Regularizer",
    "SecondMoment",
    "SlicedGaussianity",
    "Uniformity",
    "Variance",
    "WhitenedDistance",
]
