"""A run in training: built from a config after checks, saved to its directory, restored, described."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.config import Config, differences, load_config
from ssl_ebm.data.datasets import load_data
from ssl_ebm.data.splits import Splits
from ssl_ebm.data.user_views import UserViews, build_views
from ssl_ebm.data.views import MultiCrop, Views
from ssl_ebm.devices import Compute, choose_compute
from ssl_ebm.generative.term import Generative
from ssl_ebm.networks.encoder import build_encoder
from ssl_ebm.networks.joint_embedding import JointEmbedding
from ssl_ebm.objectives import Objective, build_objective, objective_arguments
from ssl_ebm.objectives.catalogue import traits
from ssl_ebm.objectives.from_module import FromModule
from ssl_ebm.objectives.term import Term
from ssl_ebm.optim import create_optimizer
from ssl_ebm.run_directory import RunDirectory, load_checkpoint, save_checkpoint, save_tensors
from ssl_ebm.user_code import Parts


@runtime_checkable
class OnMeasure(Protocol):
    """A function that is told every line of metrics.jsonl, after it was written.

    A line holds `step`, updates made; `epoch`, passes over the images; and what was measured: `loss`, energies in nats
    (`energy_positive`, `energy_negative`) and the objective's other terms, `rankme`, `images_per_second`, `lr`,
    `knn_validation` in [0, 1]; None where a number is not finite. An exception ends the training.
    """

    def __call__(self, line: dict[str, Any]) -> object:
        """What it returns is not used."""
        ...


@dataclass
class Run:
    """What is trained, what it is trained on, and how far it is.

    Attributes:
        images: All that it pretrains on, uint8 [N, C, H, W], on the device.
        labels: Of the images.
        terms: Losses that are added to the objective's, by name.
        step: Updates made so far, skipped ones included.
        skipped: Updates in a row that were skipped, up to the last one.
        rollbacks: How often it returned to its last checkpoint because it diverged.
    """

    config: Config
    directory: RunDirectory
    splits: Splits
    compute: Compute
    views: Views | MultiCrop | UserViews
    model: JointEmbedding
    objective: Objective | FromModule
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    terms: dict[str, Term] = field(default_factory=dict)
    step: int = 0
    skipped: int = 0
    rollbacks: int = 0
    on_measure: OnMeasure | None = None

    @property
    def parts(self) -> list[JointEmbedding | Objective | FromModule | Term]:
        """What has parameters and follows the training's progress."""
        return [self.model, self.objective, *self.terms.values()]

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch; the last incomplete batch is left out."""
        return len(self.images) // self.config.training.batch_size

    @property
    def total_steps(self) -> int:
        """Updates of the whole run, at least one."""
        return max(1, round(self.config.training.epochs * self.steps_per_epoch))

    def is_due(self, every: int, step: int) -> bool:
        """Whether what is done every so many updates, and after the last one, is done after update `step`; 0: never."""
        return every > 0 and (step % every == 0 or step == self.total_steps)


def prepare(config: Config, *, parts: Parts | None = None, local_rank: int = 0, resume: bool = False) -> Run:
    """Check a config, load its data, build its networks and optimiser; resumed, with the last checkpoint's state.

    Args:
        config: Of the run; `adopt` has recorded the user's own parts in it.
        parts: Those parts; None: there are none.
        local_rank: Of this process on its machine.
        resume: Continue from the last checkpoint.

    Raises:
        FileExistsError: The run directory exists and `resume` is False.
        FileNotFoundError: There is no checkpoint to resume from.
        MissingPart: The config names code of the user's that is not among the parts.
        ValueError: Anything that the config asks for and cannot be had.
    """
    directory = RunDirectory(Path(config.run_dir))
    parts = (parts or Parts()).resolved(config)
    if parts.objective is None:
        objective_arguments(config.objective["name"])  # a wrong name fails before the data is read
    if directory.path.exists() and any(directory.path.iterdir()) and not resume:
        raise FileExistsError(
            f"run directory {directory.path} exists: continue it with --resume, or choose another with run_dir=PATH"
        )
    checkpoint = load_checkpoint(directory.checkpoint) if resume else None
    splits = load_data(config.data, parts.data)
    config = _for_data(config, splits)
    if resume:
        changed = [d for d in differences(load_config(directory.config), config) if not d.startswith("training.device")]
        if changed:
            raise ValueError(
                f"the config is not that of {directory.path}: {'; '.join(changed)}; resume with the same one"
            )
    run = _build(config, directory, splits, choose_compute(config.training, local_rank), parts)
    if checkpoint is not None:
        restore(run, checkpoint)
    return run


def _for_data(config: Config, splits: Splits) -> Config:
    """The config with the fingerprint of the user's images; without kNN where images have no labels."""
    if config.data.external:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, fingerprint=splits.fingerprint()))
    if splits.num_classes < 2:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, knn_every_epochs=0.0))
    return config


def _pretraining_images(splits: Splits, by_label: bool) -> tuple[Tensor, Tensor]:
    """Training and validation images; without the validation images where the objective reads labels."""
    parts = [splits.train] if by_label else [splits.train, splits.validation]
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


def _build(config: Config, directory: RunDirectory, splits: Splits, compute: Compute, user_parts: Parts) -> Run:
    size = splits.image_size
    torch.manual_seed(config.seed)  # an objective may have weights of its own
    objective = build_objective(config.objective, user_parts.objective)
    views = build_views(config.views, splits.train.images[:2], user_parts.views)
    images, labels = _pretraining_images(splits, objective.by_label)
    objective.fit_to(len(images))
    batch, parts = config.training.batch_size, config.training.accumulate * distributed.world_size()
    if batch > len(images):
        raise ValueError(f"training.batch_size={batch} is larger than the data set's {len(images)} training images")
    if batch % parts or batch // parts < 2:
        raise ValueError(f"training.batch_size={batch} must split into {parts} parts of at least 2 images")
    if batch // config.training.accumulate < objective.least_batch():
        raise ValueError(
            f"objective {config.objective['name']} needs at least {objective.least_batch()} images together, got "
            f"training.batch_size={batch} in {config.training.accumulate} part(s): take more, or a smaller projector"
        )
    classes = objective.target.classes if isinstance(objective, Objective) else None
    if classes not in (None, splits.num_classes):
        raise ValueError(
            f"objective {config.objective['name']} tells {classes} classes apart and {splits.name} "
            f"has {splits.num_classes}: set objective.projector.out={splits.num_classes}"
        )
    statistics = torch.std_mean(images[:10000].double() / 255, dim=(0, 2, 3))
    torch.manual_seed(config.seed)
    encoder = build_encoder(
        config.encoder,
        user_parts.encoder,
        in_chans=splits.in_chans,
        image_size=size,
        mean=statistics[1].tolist(),
        std=statistics[0].tolist(),
    )
    for pixels in views.sizes:
        encoder.require_size(pixels)
    model = compute.place(JointEmbedding(encoder, objective.heads, uses=objective.uses))
    if distributed.world_size() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if compute.device.type == "cuda" else model
    objective = objective.to(compute.device)
    terms = _build_terms(config, compute, views, model, objective)
    return Run(
        config,
        directory,
        splits,
        compute,
        views,
        model,
        objective,
        create_optimizer([model, objective, *terms.values()], config.optimizer),
        images.to(compute.device),
        labels.to(compute.device),
        terms,
    )


def _build_terms(
    config: Config,
    compute: Compute,
    views: Views | MultiCrop | UserViews,
    model: JointEmbedding,
    objective: Objective | FromModule,
) -> dict[str, Term]:
    """The losses that the config adds to the objective's."""
    if config.generative is None:
        return {}
    if isinstance(views, UserViews) and views.size != model.encoder.image_size:
        raise ValueError(
            f"with a section generative, views of your own must have the images' {model.encoder.image_size} pixels, "
            f"got {views.size}"
        )
    if distributed.world_size() > 1:
        raise ValueError(
            "a section generative trains on one process: each has chains of its own, and a checkpoint holds one's"
        )
    generative = Generative(
        config.generative,
        model,
        energy=objective.scorer,
        dim=objective.heads.projector.dim,
        shape=(model.encoder.in_chans, views.size, views.size),
        seed=config.seed,
        batch=config.training.batch_size // config.training.accumulate,
        autocast=compute.autocast,
    )
    return {"generative": generative.to(compute.device)}


def restore(run: Run, checkpoint: Mapping[str, Any]) -> None:
    """Put a checkpoint's state into a run."""
    run.model.load_state_dict(checkpoint["model"])
    run.objective.load_state_dict(checkpoint["objective"])
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    for name, term in run.terms.items():
        term.load_state_dict(checkpoint["terms"][name])
    run.step, run.skipped, run.rollbacks = (checkpoint[name] for name in ("step", "skipped", "rollbacks"))


def save(run: Run) -> None:
    """Write the checkpoint, and the weights that a user keeps; by the first process only."""
    if distributed.rank() > 0:
        return
    state: dict[str, Any] = {name: getattr(run, name) for name in ("step", "skipped", "rollbacks")}
    state |= {name: getattr(run, name).state_dict() for name in ("model", "objective", "optimizer")}
    state["terms"] = {name: term.state_dict() for name, term in run.terms.items()}
    save_checkpoint(run.directory.checkpoint, state)
    images = json.dumps({"in_chans": run.splits.in_chans, "image_size": run.splits.image_size})
    metadata = {
        "images": images,
        "objective": json.dumps(traits(run.objective)),
        "step": str(run.step),
        "finished": str(run.step >= run.total_steps),
    }
    save_tensors(run.directory.encoder, energy_model_tensors(run.model, run.objective, run.terms.values()), metadata)


def describe(run: Run) -> str:
    """The run in words: a line each for data, encoder, views, objective, compute, training and the added terms."""
    encoder, config, heads = run.model.encoder, run.config, run.objective.heads
    shape = f"{encoder.in_chans}×{encoder.image_size}×{encoder.image_size}"
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    adapted = ", stem adapted" if encoder.recipe.get("stem_changes") else ""
    lines = {
        "data": f"{run.splits.name}: {len(run.images):,} images of {shape} to pretrain on, "
        f"{'labels used' if run.objective.by_label else 'without labels'} ({run.splits.source})",
        "encoder": f"{config.encoder.name}: {millions:.2f} M parameters, {encoder.num_features} features, "
        f"output stride {encoder.output_stride or 'unknown'}{adapted}",
        "views": f"{run.views}, {config.views['name']}",
        "objective": f"{config.objective['name']}: E = {run.objective.energy} on {heads.projector.dim} dimensions",
        "compute": f"{run.compute}, {torch.get_num_threads()} threads, {distributed.world_size()} process(es)",
        "training": f"{run.total_steps:,} updates of {config.training.batch_size} images "
        f"({config.training.epochs:g} epochs), {config.optimizer.name}, into {run.directory.path}",
    }
    lines |= {name: str(term) for name, term in run.terms.items()}
    return "\n".join(f"{name:<10} {line}" for name, line in lines.items())


def energy_model_tensors(
    model: JointEmbedding, objective: Objective | FromModule, terms: Iterable[Term] = ()
) -> dict[str, Tensor]:
    """The tensors of an `EnergyModel`, by name, out of the modules that a run trains."""
    parts: dict[str, nn.Module] = {
        "encoder": model.encoder,
        "projector": model.projector,
        "scorer": objective.scorer,
    }
    for term in terms:
        parts |= term.energy_parts()
    if objective.canonical_form is not None:
        parts["canonical_form"] = objective.canonical_form
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
