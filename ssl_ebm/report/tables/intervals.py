"""Numbers of a run with their 95% intervals, and which runs so many images can tell apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssl_ebm.report.tables.measures import Measure, shown_in

Z = 1.959964  # two-sided 95%


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, or what needs no training.

    Attributes:
        name: Unique in its table.
        baseline: Whether nothing was trained.
        marks: Symbols of the footnotes that hold for it.
        values: By `Measure.key`; None where there is no such number.
        trials: Images of the "test" split and of the "energy" pairs.
        pairs: Which pairs: energies of other ones are not ranked against these.
    """

    name: str
    baseline: bool = False
    marks: tuple[str, ...] = ()
    values: Mapping[str, float | str | None] = field(default_factory=dict)
    trials: Mapping[str, int] = field(default_factory=dict)
    pairs: str = ""

    def show(self, measure: Measure) -> str:
        """A cell's text."""
        return measure.text(self.values.get(measure.key))

    def half_width(self, measure: Measure) -> float | None:
        """Half of the 95% interval of a proportion, in the same unit; None where there is none.

        For an AUROC, a mean of n anchors' values in [0, 1], it is an upper bound: no such values have a larger variance
        than 0s and 1s.
        """
        variance = self.variance(measure)
        return None if variance is None else Z * math.sqrt(variance)

    def variance(self, measure: Measure) -> float | None:
        """The same interval's σ²."""
        value = self.values.get(measure.key)
        if not measure.trials or not isinstance(value, (int, float)):
            return None
        return proportion_variance(value, self.trials[measure.trials])


def proportion_variance(value: float, count: int) -> float:
    """σ² of a proportion of so many: p (1 - p) / (n + z²) at p = (x + z²/2) / (n + z²), which is not zero at 0 or 1.

    Source: Agresti & Coull 1998, The American Statistician 52.
    """
    n = count + Z**2
    p = (value * count + Z**2 / 2) / n
    return p * (1 - p) / n


def leaders(rows: Sequence[Row], measure: Measure) -> set[str]:
    """Names of the best run and of those that the images cannot tell from it.

    A gap to the best is real above z √(σ₁² + σ₂²), as if the runs had been tested on different images: the paired test
    is sharper. Empty where there is no interval, fewer than two runs, no run stands out, or their pairs differ.
    """
    sign = -1 if measure.better == "low" else 1
    known = [
        (row.name, sign * float(row.values[measure.key] or 0.0), variance)
        for row in rows
        if not row.baseline and (variance := row.variance(measure)) is not None
    ]
    if len(known) < 2 or (measure.trials == "energy" and len({row.pairs for row in rows if not row.baseline}) > 1):
        return set()
    _, best, spread = max(known, key=lambda item: item[1])
    tied = {name for name, value, variance in known if best - value <= Z * math.sqrt(variance + spread)}
    return set() if len(tied) == len(known) else tied


def shown_columns(rows: Sequence[Row]) -> list[Measure]:
    """What the table of results shows, less the objective where every run is named by it."""
    repeated = all(row.baseline or row.name == row.values.get("objective") for row in rows)
    return [measure for measure in shown_in("results") if not (repeated and measure.key == "objective")]
