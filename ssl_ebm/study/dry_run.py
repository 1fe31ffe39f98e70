"""What a study would do, and for how long."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from ssl_ebm.run_directory import RunDirectory
from ssl_ebm.study.plan import PlannedRun, StudyConfig, plan, trials
from ssl_ebm.study.processes import Slot
from ssl_ebm.study.state import EVALUATED, MISSING, STOPPED, TRAINED, places_of, require_same, state_of
from ssl_ebm.training.loop import update
from ssl_ebm.training.run import prepare
from ssl_ebm.training.user_parts import adopt
from ssl_ebm.user_code import Parts

WARM_UP, TIMED = 3, 10  # updates


def describe(config: StudyConfig) -> str:
    """A study's runs with their states, and how long the training that is left would take.

    Raises:
        ValueError: The directory holds runs of another config.
    """
    runs = [*trials(config), *plan(config)]
    require_same(config, runs)
    states = {run.path: state_of(run) for run in runs}
    places = places_of(config, runs)
    lines = [f"study {config.name}: {len(runs)} runs into {config.path}, {len(places)} at once"]
    for key, own in itertools.groupby(sorted(runs, key=lambda run: run.key), key=lambda run: run.key):
        listed = ", ".join(f"{run.name.rpartition('-')[2]} {states[run.path]}" for run in own)
        lines.append(f"  {key:<20} {listed}")
    left = [run for run in runs if states[run.path] in (MISSING, STOPPED)]
    waiting = sum(states[run.path] == TRAINED and run.trial is None for run in runs)
    done = sum(states[run.path] == EVALUATED for run in runs)
    lines.append(f"{done} done, {len(left)} to train and {len(left) + waiting} to evaluate")
    if left:
        lines += _estimate(left, runs, places)
    return "\n".join(lines)


def _estimate(left: Sequence[PlannedRun], runs: Sequence[PlannedRun], places: Sequence[Slot]) -> list[str]:
    """Time of training by what like runs have logged, or else by some updates of the first of them."""
    total, images, speeds = 0.0, 0.0, []
    for kind in dict.fromkeys(map(_kind, left)):
        own = [run for run in left if _kind(run) == kind]
        known = [logged for run in runs if _kind(run) == kind and (logged := _logged(run)) is not None]
        rates = known or [_measured(own[0], len(places[0].cores))]
        an_epoch, speed = (median(values) for values in zip(*rates, strict=True))
        images += an_epoch * sum(run.config.training.epochs for run in own)
        total += an_epoch * sum(run.config.training.epochs for run in own) / speed
        source = "as logged so far" if known else f"by {TIMED} updates of {own[0].name}"
        speeds.append(f"  {speed:,.0f} images a second and process, {source}")
    minutes = total / len(places) / 60
    what = f"training takes about {minutes:.0f} minutes: {images:,.0f} images; evaluation comes on top"
    return [what, *speeds]


def _kind(run: PlannedRun) -> str:
    """Runs of one kind train at about one speed: the networks' and the sampler's work decides it, hardly the loss."""
    config = run.config
    return repr((config.encoder, config.data, config.views, config.generative, config.training.batch_size))


def _logged(run: PlannedRun) -> tuple[float, float] | None:
    """Images an epoch, and images trained a second."""
    lines = [line for line in RunDirectory(run.path).read_metrics() if line.get("images_per_second")]
    if not lines:
        return None
    images = lines[-1]["step"] * run.config.training.batch_size / lines[-1]["epoch"]
    return images, median(line["images_per_second"] for line in lines)


def _measured(planned: PlannedRun, threads: int) -> tuple[float, float]:
    """Images an epoch, and images trained a second on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        with tempfile.TemporaryDirectory() as folder:
            config, parts = adopt(planned.config, Parts())
            run = prepare(dataclasses.replace(config, run_dir=str(Path(folder) / "run")), parts=parts)
        for run.step in range(WARM_UP + TIMED):
            if run.step == WARM_UP:
                started = time.perf_counter()
            update(run, run.model)
        if run.compute.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    finally:
        torch.set_num_threads(before)
    return len(run.images), TIMED * planned.config.training.batch_size / seconds
