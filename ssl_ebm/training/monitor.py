"""What is measured while a run trains: loss, energies, rank, speed, signs of collapse, kNN on the validation split."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssl_ebm.evaluation.features.bank import extract
from ssl_ebm.evaluation.features.health import rankme
from ssl_ebm.evaluation.probes.knn import knn_grid
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives import Step
from ssl_ebm.objectives.term import Alarm
from ssl_ebm.training.guard import COLLAPSE_PATIENCE, collapse_sign
from ssl_ebm.training.run import Run

MAX_DIMENSIONS = 8192  # of a projection that are measured: all of every MLP's, the first of DINO's 65,536 prototypes
KNN_BANK = 10_000  # images of the bank in training; the evaluation takes all

logger = logging.getLogger(__name__)


class Monitor:
    """Measurements of a run in training.

    An objective of weight 0 trains no joint embedding: nothing keeps its spread, and there is no collapse to warn of.

    Attributes:
        collapse: Whether the embeddings have collapsed, by the last measurements.
        latest: The last value of each measurement; None: it was not finite.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.collapse = Alarm(COLLAPSE_PATIENCE)
        self.latest: dict[str, float | None] = {}
        self._start_time, self._start_step = time.perf_counter(), run.step

    def measure(self, step: Step, embeddings: Embeddings) -> dict[str, Any]:
        """The line of metrics.jsonl for the update just made; empty where none is due."""
        run, line = self.run, {}
        if run.is_due(run.config.training.log_every_steps, run.step):
            line = self._training(step, embeddings)
        if run.is_due(round(run.config.training.knn_every_epochs * run.steps_per_epoch), run.step):
            line |= self.knn()
        if not line:
            return {}
        line = {"step": run.step, "epoch": round(run.step / run.steps_per_epoch, 4)} | line
        return line | ({"rollbacks": run.rollbacks} if run.rollbacks else {})

    def _training(self, step: Step, embeddings: Embeddings) -> dict[str, Any]:
        """Loss, energies, rank, and images a second since the last measurement."""
        assert embeddings.features is not None
        images = (self.run.step - self._start_step) * self.run.config.training.batch_size
        speed = images / (time.perf_counter() - self._start_time)
        self._start_step = self.run.step
        z = embeddings.projection[0, :, :MAX_DIMENSIONS].detach().float()
        values = {"loss": float(step.loss.detach())} | {name: float(term) for name, term in step.terms.items()}
        if "energy_negative" in values:
            values["energy_gap"] = values["energy_negative"] - values["energy_positive"]
        is_finite = bool(z.isfinite().all())
        values["rankme"] = float(rankme(embeddings.features[0])) if is_finite else math.nan
        values["rankme_projection"] = float(rankme(z)) if is_finite else math.nan
        values["images_per_second"] = round(speed, 1)
        self._watch_collapse(z)
        self.latest |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        line: dict[str, Any] = {name: self.latest[name] for name in values}
        if self.collapse.persisted:
            line["collapse"] = self.collapse.persisted
        self._start_time = time.perf_counter()
        return line | {"lr": self.run.optimizer.param_groups[0]["lr"]}

    def _watch_collapse(self, z: Tensor) -> None:
        """Look for a sign of collapse in projections; warn once it persists."""
        self.collapse.watch(collapse_sign(z) if self.run.objective.weight != 0 else None)
        if self.collapse.count == self.collapse.patience:
            logger.warning("update %d: collapse alarm: %s", self.run.step, self.collapse.persisted)

    def knn(self) -> dict[str, float]:
        """Accuracy of kNN (cosine, k = 20, T = .07) on the validation split; its time does not count as training."""
        started = time.perf_counter()
        splits, encoder = self.run.splits, self.run.model.encoder
        encoder.eval()
        bank = splits.train.subset(torch.arange(min(KNN_BANK, len(splits.train))))
        bank_features, features = (
            extract(self._encode, part.images, device=self.run.compute.device) for part in (bank, splits.validation)
        )
        encoder.train()
        grid = knn_grid(
            bank_features,
            bank.labels.numpy(),
            features,
            splits.validation.labels.numpy(),
            classes=splits.num_classes,
            ks=(20,),
            temperatures=(0.07,),
        )
        self.latest["knn_validation"] = accuracy = grid.weighted[0][0]
        self._start_time += time.perf_counter() - started
        return {"knn_validation": accuracy}

    def _encode(self, images: Tensor) -> Tensor:
        with self.run.compute.autocast():
            return self.run.model.encoder(images)

    @property
    def summary(self) -> str:
        """The last measurements in words, for the progress bar."""
        formats = {
            "images_per_second": "{:.0f} img/s",
            "loss": "loss {:.3f}",
            "energy_gap": "energy gap {:.2f}",
            "knn_validation": "kNN {:.3f}",
        }
        shown = [text.format(self.latest[name]) for name, text in formats.items() if self.latest.get(name) is not None]
        return ", ".join(shown) + (", COLLAPSED" if self.collapse.persisted else "")


def progress_bar(run: Run, *, is_shown: bool) -> tqdm:
    """A bar of the run's updates on stderr."""
    seconds = 0.1 if sys.stderr.isatty() else 10.0  # between two drawings: a log file is not a terminal
    options = {"unit": "update", "dynamic_ncols": True, "mininterval": seconds, "disable": not is_shown}
    return tqdm(total=run.total_steps, initial=run.step, **options)
