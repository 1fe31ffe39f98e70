"""What keeps a run from ruining itself: skipped updates, alarms, the way back to the last checkpoint, collapse."""

from __future__ import annotations

import logging

from jaxtyping import Float
from torch import Tensor

from ssl_ebm.evaluation.features.health import dimension_std, rankme
from ssl_ebm.objectives.term import Alarm
from ssl_ebm.run_directory import load_checkpoint
from ssl_ebm.training.run import Run, restore, save

MAX_SKIPPED = 10  # updates in a row with a non-finite gradient before the run stops
COLLAPSE_SPREAD = 0.1  # alarm below this; 1: spread evenly over the sphere, 0: all embeddings point the same way
COLLAPSE_RANK = 1.5  # alarm below this RankMe of centred embeddings: fewer than two directions
COLLAPSE_PATIENCE = 5  # measurements in a row with a sign of collapse before it is an alarm

logger = logging.getLogger(__name__)


class TrainingStopped(RuntimeError):
    """The run ended itself; its last good checkpoint is intact."""


class Diverged(TrainingStopped):
    """The gradients or a term of the loss diverged; from its last checkpoint the run may take smaller steps."""


def allows_update(run: Run, gradient_norm: Float[Tensor, ""]) -> bool:
    """Whether the gradient is finite; `run.skipped` counts the updates in a row that are not made because it is not.

    Raises:
        Diverged: `MAX_SKIPPED` in a row.
    """
    if bool(gradient_norm.isfinite()):
        run.skipped = 0
        return True
    run.skipped += 1
    logger.warning("update %d: gradient is not finite, skipped (%d in a row)", run.step, run.skipped)
    if run.skipped >= MAX_SKIPPED:
        raise Diverged(
            f"gradients were not finite for {MAX_SKIPPED} updates in a row at update {run.step}: lower optimizer.lr "
            f"({run.config.optimizer.lr:g}), set optimizer.clip_norm=1, or training.precision=float32; the last "
            f"checkpoint in {run.directory.path} is from before"
        )
    return False


def require_health(run: Run, collapse: Alarm) -> None:
    """Let the run go on after an update, or not.

    Raises:
        Diverged: The alarm of a term of the loss persists.
        TrainingStopped: The embeddings collapsed and `training.stop_on_collapse` is set.
    """
    for term in run.terms.values():
        if term.alarm is not None and term.alarm.persisted:
            raise Diverged(
                f"{term.subject} diverged at update {run.step}: for {term.alarm.count} updates {term.alarm.persisted}; "
                f"lower optimizer.lr ({run.config.optimizer.lr:g}), {term.remedy}; the last checkpoint in "
                f"{run.directory.path} is from before"
            )
    if collapse.persisted and run.config.training.stop_on_collapse:
        raise TrainingStopped(f"{collapse.persisted} at update {run.step}; the last checkpoint is from before")


def allows_checkpoint(run: Run) -> bool:
    """Whether the last good checkpoint may be replaced.

    Not after an update that was skipped or in which an alarm saw a sign, unless it was the run's last.
    """
    has_sign = any(term.alarm is not None and term.alarm.sign for term in run.terms.values())
    return not (has_sign or run.skipped) or run.step == run.total_steps


def roll_back(run: Run, cause: Diverged) -> None:
    """Return to the last checkpoint, from which on the learning rate is half of what it was.

    The checkpoint is written again with the number of roll-backs, so that a run that is then interrupted resumes as it
    would have gone on.

    Raises:
        Diverged: The cause, where there is no checkpoint or the run has returned `rollbacks` times already.
    """
    allowed = max((term.rollbacks for term in run.terms.values()), default=0)
    if run.rollbacks >= allowed or not run.directory.checkpoint.is_file():
        raise cause
    rollbacks = run.rollbacks + 1
    restore(run, load_checkpoint(run.directory.checkpoint))
    run.skipped, run.rollbacks = 0, rollbacks
    for term in run.terms.values():
        if term.alarm is not None:
            term.alarm.reset()
    save(run)
    logger.warning(
        "%s; back to update %d, roll-back %d: learning rate × %g", cause, run.step, rollbacks, rate_factor(run)
    )


def rate_factor(run: Run) -> float:
    """Factor of the learning rate: halved at every roll-back, so that a run does not diverge as it did."""
    return 0.5**run.rollbacks


def collapse_sign(z: Float[Tensor, "n dim"]) -> str | None:
    """What speaks for a collapse of a batch's projections; None where nothing does.

    The spread is the mean over dimensions of the unit embeddings' standard deviation, times √dim.
    """
    if not bool(z.isfinite().all()):
        return "embeddings are not finite"
    spread = float(dimension_std(z).mean()) * z.shape[1] ** 0.5
    if spread < COLLAPSE_SPREAD:
        return f"all embeddings point the same way (spread {spread:.3f} of 1)"
    rank = float(rankme(z - z.mean(0)))
    if rank < COLLAPSE_RANK and z.shape[1] > 1:
        return f"all embeddings lie on one line (RankMe {rank:.2f})"
    return None
