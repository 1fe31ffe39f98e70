"""What is watched while a run trains: energies, rank, speed, kNN on the validation split, and signs of collapse."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.data.datasets import Splits
from ssl_ebm.devices import Compute
from ssl_ebm.evaluation.features.bank import extract
from ssl_ebm.evaluation.features.health import dimension_std, rankme
from ssl_ebm.evaluation.probes.knn import knn_grid
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.encoder import Encoder
from ssl_ebm.objectives import Step

ALARM_AFTER = 5  # measurements in a row with a sign of collapse
LEAST_SPREAD = 0.1  # of unit embeddings: mean std over dimensions × √dim, 1 where they are spread evenly
LEAST_RANK = 1.5  # RankMe of centred embeddings: fewer than two directions
MOST_DIMENSIONS = 8192  # of a projection that are measured: all of every MLP's, the first of DINO's 65,536 prototypes
KNN_BANK = 10_000  # images of the bank in training; the evaluation takes all


def collapse_sign(z: Float[Tensor, "n dim"]) -> str | None:
    """What speaks for a collapse of a batch's projections; None where nothing does."""
    if not bool(z.isfinite().all()):
        return "embeddings are not finite"
    spread = float(dimension_std(z).mean()) * z.shape[1] ** 0.5
    if spread < LEAST_SPREAD:
        return f"all embeddings point the same way (spread {spread:.3f} of 1)"
    rank = float(rankme(z - z.mean(0)))
    if rank < LEAST_RANK and z.shape[1] > 1:
        return f"all embeddings lie on one line (RankMe {rank:.2f})"
    return None


class Monitor:
    """Measurements of a run in training.

    Without a joint embedding to train (`joint` false) nothing keeps its spread, and there is no collapse to warn of.

    Attributes:
        collapsed: The sign of collapse that has persisted for `ALARM_AFTER` measurements.
        new_alarm: Whether it was raised by the last measurement.
    """

    def __init__(
        self, splits: Splits, encoder: Encoder, compute: Compute, *, step: int = 0, joint: bool = True
    ) -> None:
        self.splits, self.encoder, self.compute, self.joint = splits, encoder, compute, joint
        self.since, self.since_step = time.perf_counter(), step
        self.signs = 0
        self.collapsed: str | None = None
        self.new_alarm = False
        self.last: dict[str, float | None] = {}

    def measure(self, step: Step, embeddings: Embeddings, number: int, batch_size: int) -> dict[str, Any]:
        """Loss, energies, rank, and speed since the last measurement, after update `number`."""
        assert embeddings.features is not None
        speed = (number - self.since_step) * batch_size / (time.perf_counter() - self.since)
        self.since_step = number
        z = embeddings.projection[0, :, :MOST_DIMENSIONS].detach().float()
        values = {"loss": float(step.loss.detach())} | {name: float(term) for name, term in step.terms.items()}
        if "energy_negative" in values:
            values["energy_gap"] = values["energy_negative"] - values["energy_positive"]
        finite = bool(z.isfinite().all())
        values["rankme"] = float(rankme(embeddings.features[0])) if finite else math.nan
        values["rankme_projection"] = float(rankme(z)) if finite else math.nan
        values["images_per_second"] = round(speed, 1)
        self._watch(collapse_sign(z) if self.joint else None)
        self.last |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.since = time.perf_counter()
        return {name: self.last[name] for name in values} | ({"collapse": self.collapsed} if self.collapsed else {})

    def _watch(self, sign: str | None) -> None:
        self.signs = self.signs + 1 if sign else 0
        self.new_alarm = self.signs == ALARM_AFTER
        self.collapsed = sign if self.signs >= ALARM_AFTER else None

    def knn(self) -> dict[str, float]:
        """KNN accuracy (cosine, k = 20, T = .07) of the validation split; its time does not count as training."""
        started = time.perf_counter()
        self.encoder.eval()
        train = self.splits.train.subset(torch.arange(min(KNN_BANK, len(self.splits.train))))
        features = [
            extract(self._encode, part.images, device=self.compute.device) for part in (train, self.splits.validation)
        ]
        self.encoder.train()
        labels = [part.labels.numpy() for part in (train, self.splits.validation)]
        result = knn_grid(
            features[0],
            labels[0],
            features[1],
            labels[1],
            classes=self.splits.num_classes,
            ks=(20,),
            temperatures=(0.07,),
        )
        self.last["knn_validation"] = result.weighted[0][0]
        self.since += time.perf_counter() - started
        return {"knn_validation": result.weighted[0][0]}

    def _encode(self, images: Tensor) -> Tensor:
        with self.compute.autocast():
            return self.encoder(images)

    @property
    def summary(self) -> str:
        """For the progress bar."""
        formats = {
            "images_per_second": "{:.0f} img/s",
            "loss": "loss {:.3f}",
            "energy_gap": "energy gap {:.2f}",
            "knn_validation": "kNN {:.3f}",
        }
        shown = [text.format(self.last[name]) for name, text in formats.items() if self.last.get(name) is not None]
        return ", ".join(shown) + (", COLLAPSED" if self.collapsed else "")
