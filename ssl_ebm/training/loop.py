"""The training loop: images → views → networks → objective → optimiser.

Everything random in step s is a function of (seed, s), so a resumed run is the run that was never stopped.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_ebm import distributed
from ssl_ebm.config import Config, load_config, save_config
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import drop_frozen_gradients
from ssl_ebm.objectives import Step
from ssl_ebm.optim import learning_rate
from ssl_ebm.run_directory import write_atomically
from ssl_ebm.training.interrupt import Interrupt
from ssl_ebm.training.monitor import Monitor
from ssl_ebm.training.run import OnMeasure, Run, describe, prepare, roll_back, save
from ssl_ebm.training.user_parts import adopt
from ssl_ebm.user_code import Parts

MAX_SKIPPED = 10  # updates in a row with a non-finite gradient before the run stops


class TrainingStopped(RuntimeError):
    """The run ended itself; its last good checkpoint is intact."""


class Diverged(TrainingStopped):
    """An energy of images diverged; the run may go back to its last checkpoint and take smaller steps."""


def pretrain(
    config: Config | str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    objective: Any = None,
    data: Any = None,
    encoder: Any = None,
    views: Any = None,
    on_measure: OnMeasure | None = None,
    resume: bool = False,
    trust: bool = False,
) -> Path:
    """Pretrain an encoder; returns the run directory.

    Parts of one's own take the place of what the config names; the run records them as external and needs them again
    when it is resumed or evaluated. Each may be given as `package.module:function`, too, here or as a config's `name`.

    Args:
        config: A config, a YAML file, or a mapping.
        overrides: `a.b=c` changes to a file or mapping; of a part given here, its arguments.
        objective: An `Objective`, a `PlainObjective`, or a function that makes one.
        data: An `ImageDataset` of torch's, arrays (images, labels), `Splits`, or a function that makes them.
        encoder: A `Backbone`, or a function of `in_chans` and `image_size` that makes one. A module is copied.
        views: A `MakeViews`, a function of images and a generator.
        on_measure: An `OnMeasure`, told every line of metrics.
        resume: Continue an interrupted run from its last checkpoint.
        trust: Import what a run's own config names, where it is given as `config`.

    Raises:
        FileExistsError: The run directory exists and `resume` is False.
        ValueError: Anything that the config asks for and cannot be had.
        TypeError: A part of one's own is not what its protocol says.
        TrainingStopped: Gradients stayed non-finite, an energy of images diverged once more than
            `generative.rollbacks`, or the embeddings collapsed and `stop_on_collapse` is set.
    """
    if not isinstance(config, Config):
        config = load_config(config, overrides)
    parts = Parts(objective=objective, data=data, encoder=encoder, views=views, trust=trust)
    config, parts = adopt(config, parts, overrides)
    local_rank = distributed.start()
    try:
        run = prepare(config, parts=parts, local_rank=local_rank, resume=resume)
        run.on_measure = on_measure
        distributed.barrier()  # all have seen the run directory as it was
        if distributed.rank() == 0:
            run.directory.path.mkdir(parents=True, exist_ok=True)
            write_atomically(run.directory.config, lambda path: save_config(run.config, path))
            print(describe(run), flush=True)
        _train(run)
    finally:
        distributed.stop()
    return run.directory.path


def _train(run: Run) -> None:
    """All updates that are left; from the last checkpoint once more where an energy of images diverged."""
    while run.step < run.total_steps:
        try:
            _advance(run)
        except Diverged as sign:
            if not roll_back(run):
                raise
            print(f"{sign}; back to update {run.step}, roll-back {run.rollbacks}: learning rate × {run.rate_factor:g}")


def _advance(run: Run) -> None:
    config, main = run.config.training, distributed.rank() == 0
    if main:
        run.directory.keep_metrics_until(run.step)
    network = _wrap(run)
    joint = run.objective.weight != 0
    monitor = Monitor(run.splits, run.model.encoder, run.compute, step=run.step, joint=joint)
    every = 0.1 if sys.stderr.isatty() else 10.0  # seconds: a log file is not a terminal
    bar = tqdm(
        total=run.total_steps, initial=run.step, unit="update", disable=not main, dynamic_ncols=True, mininterval=every
    )
    log_file = open(run.directory.metrics, "a") if main else nullcontext()
    with bar, log_file as log, Interrupt() as interrupt:
        while run.step < run.total_steps:
            step, embeddings = update(run, network)
            run.step += 1
            bar.update()
            line = measure(run, monitor, step, embeddings) if main else {}
            line |= {"rollbacks": run.rollbacks} if line and run.rollbacks else {}
            if line and log is not None:
                bar.set_postfix_str(monitor.summary, refresh=False)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if run.on_measure is not None:
                    run.on_measure(line)
            if run.generative is not None and run.generative.alarm.persisted:
                raise Diverged(diverged(run))
            if (_due(run, config.checkpoint_every_steps) or interrupt.requested) and not run.suspect:
                save(run)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after update {run.step}: continue with --resume")
            if monitor.collapsed and config.stop_on_collapse:
                raise TrainingStopped(f"{monitor.collapsed} at update {run.step}; the last checkpoint is from before")


def diverged(run: Run) -> str:
    """Why a run with a generative part ended itself, and what to change."""
    assert run.generative is not None
    alarm = run.generative.alarm
    return (
        f"the energy of images diverged at update {run.step}: for {alarm.count} updates {alarm.persisted}; lower "
        f"optimizer.lr ({run.config.optimizer.lr:g}), take more sampler steps or a generative.loss.energy_penalty; the "
        f"last checkpoint in {run.directory.path} is from before"
    )


def _due(run: Run, every: int, step: int | None = None) -> bool:
    """Whether something that is done every so many updates is done after this one, or after update `step`."""
    step = run.step if step is None else step
    return every > 0 and (step % every == 0 or step == run.total_steps)


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
    for part in run.parts:
        part.set_progress(run.step / run.total_steps)
    if run.generative is not None:
        run.generative.compare_gradients = _due(run, config.training.log_every_steps, run.step + 1)
    run.optimizer.zero_grad(set_to_none=True)
    for index in batches(run):
        views = run.views(run.images[index], generator=generator)
        with run.compute.autocast():
            embeddings = network(views, index, run.labels[index] if run.objective.by_label else None)
        step = run.objective(embeddings)
        if run.generative is not None:
            step = run.generative(run.model, step, embeddings, views, generator)
        (step.loss / config.training.accumulate).backward()
    distributed.average_gradients(run.objective.parameters())
    for module in (run.model, run.objective):
        drop_frozen_gradients(module)
    rate = learning_rate(
        run.step,
        total=run.total_steps,
        warmup=round(config.optimizer.warmup_epochs * run.steps_per_epoch),
        config=config.optimizer,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate * run.rate_factor
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
        raise (TrainingStopped if run.generative is None else Diverged)(
            f"gradients were not finite for {MAX_SKIPPED} updates in a row at update {run.step}: lower optimizer.lr "
            f"({run.config.optimizer.lr:g}), set optimizer.clip_norm=1, or training.precision=float32; the last "
            f"checkpoint in {run.directory.path} is from before"
        )
    return False
