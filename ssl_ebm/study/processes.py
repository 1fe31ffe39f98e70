"""Processes side by side, each pinned to what it computes on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ssl_ebm.training.interrupt import Interrupt

POLL_SECONDS = 0.1
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A command line of this Python, and the file that what it says goes to."""

    name: str
    arguments: Sequence[str]
    log: Path


@dataclass(frozen=True)
class Slot:
    """Where one process at a time runs: these cores, with as many threads, and this GPU."""

    cores: frozenset[int]
    gpu: str | None = None

    def environment(self) -> dict[str, str]:
        """Variables for the process."""
        threads = dict.fromkeys(THREADS, str(max(1, len(self.cores))))
        return dict(os.environ) | threads | ({} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu})


def slots(jobs: int | str, device: str) -> list[Slot]:
    """Places for so many processes; auto: one on each GPU, or on the one device that is named, else one on each core.

    Two small networks trained on one core each are faster than two in turn on both: little of a step is long enough
    to be worth two threads.
    """
    cores = sorted(_cores())
    gpus: list[str] = []
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    named = device not in ("auto", "cpu", "cuda")
    count = (1 if named else len(gpus) or len(cores)) if jobs == "auto" else int(jobs)
    share = max(1, len(cores) // count)
    return [
        Slot(
            frozenset(cores[(place * share + i) % len(cores)] for i in range(share)),
            gpus[place % len(gpus)] if gpus else None,
        )
        for place in range(count)
    ]


def _cores() -> set[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


@dataclass
class Running:
    """Processes that have been started, by the place of their slot; they hold the open files `kept` too."""

    kept: Sequence[int] = ()
    processes: dict[int, tuple[Job, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def start(self, place: int, slot: Slot, job: Job) -> None:
        """Start a process in a session of its own: a Ctrl-C reaches it once, from `stop`, and it saves and ends."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log, _affinity(slot.cores):
            process = subprocess.Popen(
                [sys.executable, *job.arguments],
                env=slot.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.kept,
            )
        self.processes[place] = (job, process)

    def ended(self) -> Iterator[tuple[Job, int]]:
        """Take out those that have ended, with their exit codes."""
        for place, (job, process) in list(self.processes.items()):
            if (code := process.poll()) is not None:
                del self.processes[place]
                yield job, code

    def stop(self) -> None:
        """Let each save and end, and wait for it."""
        for _, process in self.processes.values():
            process.send_signal(signal.SIGINT)
        for _, process in self.processes.values():
            process.wait()


def run_jobs(
    jobs: Sequence[Job],
    places: Sequence[Slot],
    progress: Callable[[Sequence[str], int], None] = lambda running, done: None,
    kept: Sequence[int] = (),
) -> dict[str, str]:
    """Run all, as many at once as there are places; returns why those failed that did.

    Args:
        jobs: In the order in which they start.
        places: Where they run.
        progress: Is told the names of those that run, and how many have ended, whenever that changes.
        kept: Open files that every process holds as long as it lives, such as a lock.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came; every process has saved what it had and ended.
    """
    waiting, running, failed, done = list(jobs), Running(kept), dict[str, str](), 0
    with Interrupt() as interrupt:
        try:
            while (waiting or running.processes) and not interrupt.requested:
                for place, slot in enumerate(places):
                    if waiting and place not in running.processes:
                        running.start(place, slot, waiting.pop(0))
                        progress([job.name for job, _ in running.processes.values()], done)
                time.sleep(POLL_SECONDS)
                for job, code in running.ended():
                    done += 1
                    if code != 0:
                        failed[job.name] = _reason(job, code)
                        logger.warning("%s failed: %s", job.name, failed[job.name])
                    progress([job.name for job, _ in running.processes.values()], done)
        finally:
            running.stop()
    if interrupt.requested:
        lost = f" and {len(failed)} failed" if failed else ""
        raise KeyboardInterrupt(
            f"stopped with {done - len(failed)} of {len(jobs)} runs done{lost}: the same command goes on"
        )
    return failed


def _reason(job: Job, code: int) -> str:
    """The last line that a process wrote, which for an error is the error."""
    text = job.log.read_text(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else "it wrote nothing"
    return f"{said} (exit code {code}, see {job.log})"


@contextmanager
def _affinity(cores: frozenset[int]) -> Iterator[None]:
    """This thread on these cores: a process that is started meanwhile inherits them before its libraries load."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
