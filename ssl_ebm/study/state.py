"""What a study's directory holds: which runs are done, and that they are this study's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from omegaconf import OmegaConf

from ssl_ebm.config import differences, load_config, save_config
from ssl_ebm.evaluation.stored import current_results, fingerprint
from ssl_ebm.run_directory import RunDirectory, write_atomically
from ssl_ebm.study.plan import PlannedRun, StudyConfig
from ssl_ebm.study.processes import Slot, slots
from ssl_ebm.study.worker import is_trained

EVALUATED, TRAINED, STOPPED, MISSING = "evaluated", "trained", "stopped", "missing"


def state_of(run: PlannedRun) -> str:
    """How far it has come."""
    directory = RunDirectory(run.path)
    if is_trained(directory):
        return EVALUATED if is_evaluated(directory) else TRAINED
    return STOPPED if directory.checkpoint.is_file() else MISSING


def is_evaluated(run: RunDirectory) -> bool:
    """Whether its results are of its weights and of today's protocol."""
    return current_results(run.evaluation, fingerprint(run.encoder)) is not None


def places_of(study: StudyConfig, runs: Sequence[PlannedRun]) -> list[Slot]:
    """Where its processes run."""
    return slots(study.jobs, runs[0].config.training.device)


def config_file(study: StudyConfig, run: PlannedRun) -> Path:
    """The config that a run's process reads."""
    return study.path / "jobs" / run.path.relative_to(study.path).with_suffix(".yaml")


def log_file(study: StudyConfig, run: PlannedRun) -> Path:
    """What a run's process said."""
    return config_file(study, run).with_suffix(".log")


def require_same(study: StudyConfig, runs: Sequence[PlannedRun]) -> None:
    """Check that what the directory holds of these runs has their configs; other runs in it are left alone.

    Raises:
        ValueError: A run's config is another one.
    """
    for run in runs:
        file = config_file(study, run)
        if not (file.is_file() and run.path.is_dir()):
            continue
        changed = [line for line in differences(load_config(file), run.config) if not line.startswith("run_dir:")]
        if changed:
            raise ValueError(
                f"{study.path} holds {run.name} of another config: {'; '.join(changed)}; choose another "
                f"directory=PATH, or remove {run.path}"
            )


def write_configs(study: StudyConfig, runs: Sequence[PlannedRun]) -> None:
    """Write the study's resolved config and those of its runs."""
    write_atomically(study.path / "study.yaml", lambda path: OmegaConf.save(OmegaConf.structured(study), path))
    for run in runs:
        write_atomically(config_file(study, run), partial(save_config, run.config))


@contextmanager
def locked(directory: Path) -> Iterator[tuple[int, ...]]:
    """Hold a study's directory; yields the open files that its processes hold too.

    A process that outlives a killed study keeps the lock, so that no second one trains the same run.

    Raises:
        RuntimeError: Another study holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield ()
        return
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{directory} is being worked on by another study: wait for it, or stop it") from None
        yield (file.fileno(),)
