"""Images of other data sets, told from test images by the energy and by distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_ebm.report.page.sections.energies import roc_charts
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet

CURVES = "free_energy"  # the score whose ROC curves are drawn


def outliers(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> dict[str, Any] | None:
    """Tables of all scores, and ROC curves of the free energy, one chart a data set."""
    tables = [sheets[key] for key in ("ood_auroc", "ood_fpr95") if key in sheets]
    names = dict.fromkeys(name for group in groups for name in lookup(group.first.results, "ood") or {})
    roc = roc_charts(groups, {name: ("ood", name, CURVES, "roc") for name in names})
    return {"sheets": tables, "roc": roc} if tables else None
