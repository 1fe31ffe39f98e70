"""Protocols on arrays of features and matrices of energies, and the report; no run, no model.

`evaluate_features` takes features of any encoder; the functions beside it are its parts.
"""

from ssl_ebm.evaluation.features import Bank, Split
from ssl_ebm.evaluation.few_shot import few_shot
from ssl_ebm.evaluation.frechet import frechet_distance
from ssl_ebm.evaluation.knn import knn_evaluate
from ssl_ebm.evaluation.linear import linear_probe
from ssl_ebm.evaluation.probe_table import probe_table
from ssl_ebm.evaluation.protocols import PROTOCOLS, evaluate_bank, evaluate_features, make_bank
from ssl_ebm.evaluation.ridge import ridge_probe
from ssl_ebm.evaluation.sgd import sgd_probe

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
    "probe_table",
    "ridge_probe",
    "sgd_probe",
]
