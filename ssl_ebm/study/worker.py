"""One run of a study in a process of its own: trained or continued, then evaluated.

python -m ssl_ebm.study.worker CONFIG [--train-only]
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_ebm.config import Config, load_config
from ssl_ebm.evaluation.evaluate import evaluate
from ssl_ebm.run_directory import RunDirectory, load_tensors
from ssl_ebm.training.loop import pretrain
from ssl_ebm.training.user_parts import named_parts


def is_trained(run: RunDirectory) -> bool:
    """Whether it reached its last update."""
    return run.encoder.is_file() and load_tensors(run.encoder)[1].get("finished") == "True"


def train(config: Config) -> Path:
    """Train a run to its end, from its last checkpoint where it has one."""
    run = RunDirectory(Path(config.run_dir))
    if is_trained(run):
        return run.path
    if run.path.is_dir() and not run.checkpoint.is_file():
        shutil.rmtree(run.path)  # it was stopped before it had anything to keep
    return pretrain(config, resume=run.checkpoint.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, then evaluate."""
    parser = argparse.ArgumentParser("python -m ssl_ebm.study.worker", description=__doc__)
    parser.add_argument("config", help="YAML file of the run")
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ssl_ebm").setLevel(logging.INFO)
    try:
        config = load_config(options.config)
        run = train(config)
        if not options.train_only:
            evaluate(run, device=config.training.device, **vars(named_parts(config)))
    except KeyboardInterrupt as interrupt:
        print(interrupt, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
