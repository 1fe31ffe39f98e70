"""The training loop: images → views → networks → objective → optimiser.

Everything random in step s is a function of (seed, s), so a resumed run is the run that was never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_ebm import distributed
from ssl_ebm.checkpoint import RunDirectory, load_checkpoint, save_checkpoint, save_tensors, write_atomically
from ssl_ebm.config import Config, differences, load_config, save_config
from ssl_ebm.data import Splits, load_data
from ssl_ebm.devices import Compute, choose_compute
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.encoder import JointEmbedding
from ssl_ebm.interrupt import Interrupt
from ssl_ebm.model import build_encoder, keep
from ssl_ebm.monitor import Monitor
from ssl_ebm.objectives import Objective, Step, create_objective, objective_arguments
from ssl_ebm.optim import create_optimizer, learning_rate
from ssl_ebm.views import Views, create_views

MAX_SKIPPED = 10  # updates in a row with a non-finite gradient before the run stops


class TrainingStopped(RuntimeError):
    """The run ended itself; its last good checkpoint is intact."""


@dataclass
class Run:
    """All that a training consists of."""

    config: Config
    directory: RunDirectory
    splits: Splits
    compute: Compute
    views: Views
    model: JointEmbedding
    objective: Objective
    optimizer: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    step: int = 0
    skipped: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch; the last incomplete batch is left out."""
        return len(self.images) // self.config.training.batch_size

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return max(1, round(self.config.training.epochs * self.steps_per_epoch))

    @property
    def networks(self) -> list[nn.Module]:
        """What the optimiser trains."""
        return [self.model, self.objective]


def pretrain(
    config: Config | str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, resume: bool = False
) -> Path:
    """Pretrain an encoder; returns the run directory.

    Args:
        config: A config, a YAML file, or a mapping.
        overrides: `a.b=c` changes to a file or mapping.
        resume: Continue an interrupted run from its last checkpoint.

    Raises:
        FileExistsError: The run directory exists and `resume` is False.
        ValueError: Anything that the config asks for and cannot be had.
        TrainingStopped: Gradients stayed non-finite, or the embeddings collapsed and `stop_on_collapse` is set.
    """
    if not isinstance(config, Config):
        config = load_config(config, overrides)
    local_rank = distributed.start()
    try:
        run = prepare(config, local_rank=local_rank, resume=resume)
        distributed.barrier()  # all have seen the run directory as it was
        _train(run)
    finally:
        distributed.stop()
    return run.directory.path


def prepare(config: Config, *, local_rank: int = 0, resume: bool = False) -> Run:
    """Check everything, load the data, build networks and optimiser; before the first step."""
    directory = RunDirectory(Path(config.run_dir))
    objective_arguments(config.objective["name"])  # a wrong name fails before the data is read
    if directory.path.exists() and any(directory.path.iterdir()) and not resume:
        raise FileExistsError(
            f"run directory {directory.path} exists: continue it with --resume, or choose another with run_dir=PATH"
        )
    checkpoint = load_checkpoint(directory.checkpoint) if resume else None
    splits = load_data(config.data)
    config = _with_bank(config, splits)
    if resume:
        changed = [d for d in differences(load_config(directory.config), config) if not d.startswith("training.device")]
        if changed:
            raise ValueError(
                f"the config is not that of {directory.path}: {'; '.join(changed)}; resume with the same one"
            )
    run = _build(config, directory, splits, choose_compute(config.training, local_rank))
    if checkpoint is not None:
        restore(run, checkpoint)
    return run


def _pretraining_images(splits: Splits, by_label: bool) -> tuple[Tensor, Tensor]:
    """Training and validation images; without the validation images where the objective reads labels."""
    parts = [splits.train] if by_label else [splits.train, splits.validation]
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


def _with_bank(config: Config, splits: Splits) -> Config:
    """Fill in the number of training images where an objective remembers each of them."""
    count = len(splits.train) + len(splits.validation)
    if "bank_size" not in objective_arguments(config.objective["name"]):
        return config
    size = config.objective.get("bank_size", count)
    if size < count:
        raise ValueError(f"objective.bank_size={size} is less than the {count} training images: leave it out")
    return dataclasses.replace(config, objective={**config.objective, "bank_size": size})


def _build(config: Config, directory: RunDirectory, splits: Splits, compute: Compute) -> Run:
    size = splits.image_size
    objective = create_objective(**config.objective)
    views = create_views(**({"size": size} | config.views))
    images, labels = _pretraining_images(splits, objective.by_label)
    batch, parts = config.training.batch_size, config.training.accumulate * distributed.world_size()
    if batch > len(images):
        raise ValueError(f"training.batch_size={batch} is larger than the data set's {len(images)} training images")
    if batch % parts or batch // parts < 2:
        raise ValueError(f"training.batch_size={batch} must split into {parts} parts of at least 2 images")
    statistics = torch.std_mean(images[:10000].double() / 255, dim=(0, 2, 3))
    torch.manual_seed(config.seed)
    encoder = build_encoder(
        config.encoder,
        in_chans=splits.in_chans,
        image_size=size,
        mean=statistics[1].tolist(),
        std=statistics[0].tolist(),
    )
    if views.size != size and "patch_size" in encoder.recipe:
        raise ValueError(f"views.size={views.size} needs a convolutional encoder: {config.encoder.name} takes {size} only")
    model = JointEmbedding(encoder, objective.heads, uses=objective.uses).to(compute.device)
    if compute.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if distributed.world_size() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if compute.device.type == "cuda" else model
    objective = objective.to(compute.device)
    optimizer = create_optimizer([model, objective], config.optimizer)
    device_images = images.to(compute.device)
    return Run(
        config, directory, splits, compute, views, model, objective, optimizer, device_images, labels.to(compute.device)
    )


def restore(run: Run, checkpoint: Mapping[str, Any]) -> None:
    """Put a checkpoint's state into a run."""
    run.model.load_state_dict(checkpoint["model"])
    run.objective.load_state_dict(checkpoint["objective"])
    run.optimizer.load_state_dict(checkpoint["optimizer"])
    run.step, run.skipped = checkpoint["step"], checkpoint["skipped"]


def save(run: Run) -> None:
    """Write the checkpoint, and the weights that a user keeps."""
    if distributed.rank() > 0:
        return
    state = {"step": run.step, "skipped": run.skipped}
    state |= {name: getattr(run, name).state_dict() for name in ("model", "objective", "optimizer")}
    save_checkpoint(run.directory.checkpoint, state)
    images = json.dumps({"in_chans": run.splits.in_chans, "image_size": run.splits.image_size})
    metadata = {"images": images, "step": str(run.step), "finished": str(run.step >= run.total_steps)}
    save_tensors(run.directory.encoder, keep(run.model, run.objective), metadata)


def _describe(run: Run) -> str:
    encoder, config, heads = run.model.encoder, run.config, run.objective.heads
    shape = f"{encoder.in_chans}×{encoder.image_size}×{encoder.image_size}"
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    adapted = ", stem adapted" if encoder.recipe.get("stem_changes") else ""
    lines = {
        "data": f"{run.splits.name}: {len(run.images):,} images of {shape} to pretrain on, "
        f"{'labels used' if run.objective.by_label else 'without labels'} ({run.splits.source})",
        "encoder": f"{config.encoder.name}: {millions:.2f} M parameters, {encoder.num_features} features, "
        f"output stride {encoder.output_stride}{adapted}",
        "views": f"{len(run.views.augmentations)} of {run.views.size} pixels, {config.views['name']}",
        "objective": f"{config.objective['name']}: E = {run.objective.energy} on {heads.projector.out} dimensions",
        "compute": f"{run.compute}, {torch.get_num_threads()} threads, {distributed.world_size()} process(es)",
        "training": f"{run.total_steps:,} updates of {config.training.batch_size} images "
        f"({config.training.epochs:g} epochs), {config.optimizer.name}, into {run.directory.path}",
    }
    return "\n".join(f"{name:<10} {line}" for name, line in lines.items())


def _train(run: Run) -> None:
    config, main = run.config.training, distributed.rank() == 0
    if main:
        run.directory.path.mkdir(parents=True, exist_ok=True)
        write_atomically(run.directory.config, lambda path: save_config(run.config, path))
        run.directory.keep_metrics_until(run.step)
        print(_describe(run), flush=True)
    network = _wrap(run)
    monitor = Monitor(run.splits, run.model.encoder, run.compute, step=run.step)
    bar = tqdm(total=run.total_steps, initial=run.step, unit="update", disable=not main, dynamic_ncols=True)
    log_file = open(run.directory.metrics, "a") if main else nullcontext()
    with bar, log_file as log, Interrupt() as interrupt:
        while run.step < run.total_steps:
            step, embeddings = update(run, network)
            run.step += 1
            bar.update()
            line = measure(run, monitor, step, embeddings) if main else {}
            if line and log is not None:
                bar.set_postfix_str(monitor.summary, refresh=False)
                log.write(json.dumps(line) + "\n")
                log.flush()
            if _due(run, config.checkpoint_every_steps) or interrupt.requested:
                save(run)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after update {run.step}: continue with --resume")
            if monitor.collapsed and config.stop_on_collapse:
                raise TrainingStopped(f"{monitor.collapsed} at update {run.step}; the last checkpoint is from before")


def _due(run: Run, every: int) -> bool:
    return every > 0 and (run.step % every == 0 or run.step == run.total_steps)


def measure(run: Run, monitor: Monitor, step: Step, embeddings: Embeddings) -> dict[str, Any]:
    """This update's line of metrics.jsonl; empty where none is due."""
    config, line = run.config.training, {}
    if _due(run, config.log_every_steps):
        line = monitor.measure(step, embeddings, run.step, config.batch_size)
        line |= {"lr": run.optimizer.param_groups[0]["lr"]}
        if monitor.new_alarm:
            tqdm.write(f"update {run.step}: collapse alarm: {monitor.collapsed}")
    if _due(run, round(config.knn_every_epochs * run.steps_per_epoch)):
        line |= monitor.knn()
    return {"step": run.step, "epoch": round(run.step / run.steps_per_epoch, 4)} | line if line else {}


def _wrap(run: Run) -> nn.Module:
    if distributed.world_size() == 1:
        return run.model
    ids = [run.compute.device.index] if run.compute.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(run.model, device_ids=ids, broadcast_buffers=False)


def batches(run: Run) -> Iterator[Tensor]:
    """This update's positions of images on this process, one tensor for each part of the accumulation."""
    config, (epoch, place) = run.config, divmod(run.step, run.steps_per_epoch)
    order = _order(len(run.images), _seed(config.seed, -1 - epoch))
    batch = order[place * config.training.batch_size : (place + 1) * config.training.batch_size]
    for part in batch.chunk(config.training.accumulate):
        yield part.chunk(distributed.world_size())[distributed.rank()].to(run.compute.device)


@functools.lru_cache(maxsize=1)
def _order(images: int, seed: int) -> Tensor:
    """One epoch's order of the images."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))


def _seed(seed: int, step: int) -> int:
    """A seed for one step of one run; distinct for steps from -2³¹ to 2³¹."""
    return (seed * 1_000_003 + (step + 2**31)) % 2**63


def update(run: Run, network: nn.Module) -> tuple[Step, Embeddings]:
    """One update: views, energies, loss, gradients; returns the last part's step and embeddings."""
    config = run.config
    seed = _seed(config.seed, run.step * distributed.world_size() + distributed.rank())
    torch.manual_seed(seed)  # dropout and drop path
    generator = torch.Generator(run.compute.device).manual_seed(seed)
    run.objective.set_progress(run.step / run.total_steps)
    run.optimizer.zero_grad(set_to_none=True)
    for index in batches(run):
        views = run.views(run.images[index], generator=generator)
        with run.compute.autocast():
            embeddings = network(views, index, run.labels[index] if run.objective.by_label else None)
        step = run.objective(embeddings)
        (step.loss / config.training.accumulate).backward()
    distributed.average_gradients(run.objective.parameters())
    rate = learning_rate(
        run.step,
        total=run.total_steps,
        warmup=round(config.optimizer.warmup_epochs * run.steps_per_epoch),
        config=config.optimizer,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    if _finite_gradients(run):
        run.optimizer.step()
        momentum = run.objective.teacher_momentum
        if momentum is not None:
            run.model.update_teacher(momentum)
    return step, embeddings


def _finite_gradients(run: Run) -> bool:
    """Clip, and say whether the update can be made; counts those that cannot and stops after `MAX_SKIPPED` in a row."""
    gradients = [p.grad for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if bool(norm.isfinite()):
        run.skipped = 0
        if run.config.optimizer.clip_norm is not None:
            torch._foreach_mul_(gradients, (run.config.optimizer.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        return True
    run.skipped += 1
    tqdm.write(f"update {run.step}: gradient is not finite, skipped ({run.skipped} in a row)")
    if run.skipped >= MAX_SKIPPED:
        raise TrainingStopped(
            f"gradients were not finite for {MAX_SKIPPED} updates in a row at update {run.step}: lower optimizer.lr "
            f"({run.config.optimizer.lr:g}), set optimizer.clip_norm=1, or training.precision=float32; the last "
            f"checkpoint in {run.directory.path} is from before"
        )
    return False
