"""Protocols on arrays of features and matrices of energies; no run, no model.

`evaluate_features` takes features of any encoder; the functions beside it are its parts.
"""

from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.features.frechet import frechet_distance
from ssl_ebm.evaluation.probes.few_shot import few_shot
from ssl_ebm.evaluation.probes.knn import knn_evaluate
from ssl_ebm.evaluation.probes.linear import linear_probe
from ssl_ebm.evaluation.probes.protocols import PROTOCOLS, evaluate_bank, evaluate_features, make_bank
from ssl_ebm.evaluation.probes.ridge import ridge_probe
from ssl_ebm.evaluation.probes.sgd import sgd_probe

__all__ = [
    "PROTOCOLS",
    "Bank",
    "Split",
    "evaluate_bank",
    "evaluate_features",
    "few_shot",
    "frechet_distance",
    "knn_evaluate",
    "linear_probe",
    "make_bank",
    "ridge_probe",
    "sgd_probe",
]
