"""Images of other data sets, told from test images by the energy and by distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssl_ebm.report.page.sections.energies import roc_chart
from ssl_ebm.report.page.sections.layout import legend, table
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet

CURVES = "free_energy"  # whose ROC curves are drawn


def outliers(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> str:
    """Tables of all scores, ROC curves of the free energy."""
    tables = "".join(f"<h3>{sheets[k].title}</h3>{table(sheets[k])}" for k in ("ood_auroc", "ood_fpr95") if k in sheets)
    if not tables:
        return ""
    names = dict.fromkeys(name for group in groups for name in lookup(group.first.results, "ood") or {})
    curves = "".join(roc_chart(groups, ("ood", name, CURVES, "roc"), name) for name in names)
    shown = (
        "<h3>ROC of the free energy</h3><p>Outliers found by test images taken for outliers.</p>"
        f'{legend(groups)}<div class="panels wide">{curves}</div>'
        if curves
        else ""
    )
    return (
        "<p>The free energy of an image is low where the training images hold something compatible with it; beside it "
        "the distance to neighbours among training features, and Mahalanobis's distance to all. No outlier was seen in "
        f"training or in any choice.</p>{tables}{shown}"
    )
