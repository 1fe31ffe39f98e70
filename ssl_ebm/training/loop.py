"""The training loop: images → views → networks → objective → optimiser.

Everything random in an update is a function of the run's seed and the update's number, so a resumed run is the run that
was never stopped. When the loop must not go on as it does is decided in `guard`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.config import Config, load_config, save_config
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import drop_frozen_gradients
from ssl_ebm.objectives import Step
from ssl_ebm.optim import clip_gradients, learning_rate
from ssl_ebm.run_directory import write_atomically
from ssl_ebm.training import guard
from ssl_ebm.training.interrupt import Interrupt
from ssl_ebm.training.monitor import Monitor, progress_bar
from ssl_ebm.training.run import OnMeasure, Run, describe, prepare, save
from ssl_ebm.training.user_parts import adopt
from ssl_ebm.user_code import Parts

logger = logging.getLogger(__name__)


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
        TrainingStopped: Gradients stayed non-finite or an energy of images diverged, once more than
            `generative.rollbacks`; or the embeddings collapsed and `stop_on_collapse` is set.
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
            logger.info(describe(run))
        while run.step < run.total_steps:
            try:
                train(run)
            except guard.Diverged as cause:
                guard.roll_back(run, cause)
    finally:
        distributed.stop()
    return run.directory.path


def train(run: Run) -> None:
    """Make the updates that are left; measure and save on the way."""
    network = distributed.average_over_ranks(run.model, run.compute.device)
    monitor, is_first = Monitor(run), distributed.rank() == 0
    if is_first:
        run.directory.keep_metrics_until(run.step)
    with progress_bar(run, is_shown=is_first) as bar, Interrupt() as interrupt:
        while run.step < run.total_steps:
            step, embeddings = update(run, network)
            run.step += 1
            bar.update()
            if is_first and (line := monitor.measure(step, embeddings)):
                run.directory.append_metrics(line)
                bar.set_postfix_str(monitor.summary, refresh=False)
                if run.on_measure is not None:
                    run.on_measure(line)
            guard.require_health(run, monitor.collapse)
            is_due = run.is_due(run.config.training.checkpoint_every_steps, run.step)
            if (is_due or interrupt.requested) and guard.allows_checkpoint(run):
                save(run)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after update {run.step}: continue with --resume")


def update(run: Run, network: nn.Module) -> tuple[Step, Embeddings]:
    """Make one update: views, energies, loss, gradients; returns step and embeddings of the batch's last part."""
    config = run.config
    seed = _seed(config.seed, run.step * distributed.world_size() + distributed.rank())
    torch.manual_seed(seed)  # dropout and drop path
    generator = torch.Generator(run.compute.device).manual_seed(seed)
    for part in run.parts:
        part.set_progress(run.step / run.total_steps)
    for term in run.terms.values():
        term.is_logged = run.is_due(config.training.log_every_steps, run.step + 1)

    run.optimizer.zero_grad(set_to_none=True)
    for index in batches(run):
        views = run.views(run.images[index], generator=generator)
        with run.compute.autocast():
            embeddings = network(views, index, run.labels[index] if run.objective.by_label else None)
        step = run.objective(embeddings)
        for term in run.terms.values():
            step = term(run.model, step, embeddings, views, generator)
        (step.loss / config.training.accumulate).backward()

    distributed.average_gradients(run.objective.parameters())
    for module in (run.model, run.objective):
        drop_frozen_gradients(module)
    gradient_norm = clip_gradients(run.optimizer, config.optimizer.clip_norm)
    warmup = round(config.optimizer.warmup_epochs * run.steps_per_epoch)
    rate = learning_rate(run.step, total=run.total_steps, warmup=warmup, config=config.optimizer)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * guard.rate_factor(run)
    if guard.allows_update(run, gradient_norm):
        run.optimizer.step()
        momentum = run.objective.teacher_momentum
        if momentum is not None:
            run.model.update_teacher(momentum)
    return step, embeddings


def batches(run: Run) -> Iterator[Tensor]:
    """This update's positions of images on this process, one tensor for each part of the accumulation."""
    config, (epoch, place) = run.config, divmod(run.step, run.steps_per_epoch)
    order = _order(len(run.images), _seed(config.seed, -1 - epoch))
    batch = order[place * config.training.batch_size : (place + 1) * config.training.batch_size]
    for part in batch.chunk(config.training.accumulate):
        yield part.chunk(distributed.world_size())[distributed.rank()].to(run.compute.device)


@functools.lru_cache(maxsize=1)
def _order(images: int, seed: int) -> Tensor:
    """A permutation of the images: the order in which an epoch sees them."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))


def _seed(seed: int, step: int) -> int:
    """A seed for one step of one run; distinct for steps from -2³¹ to 2³¹."""
    return (seed * 1_000_003 + (step + 2**31)) % 2**63
