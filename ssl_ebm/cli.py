"""ssl-ebm: pretrain, evaluate, compare, study, sample, export, objectives."""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

DESCRIPTION = """\
Self-supervised representation learning framed as energy-based models.

  ssl-ebm pretrain configs/quickstart/simclr.yaml        train an encoder without labels
  ssl-ebm evaluate runs/quickstart/simclr                kNN, linear probe, energies
  ssl-ebm compare runs/quickstart/*                      one table, one report.html
  ssl-ebm study configs/studies/quick.yaml               several objectives and seeds, with statistics
  ssl-ebm sample runs/generative/ebm                     images drawn from a run's energy
  ssl-ebm export runs/quickstart/simclr encoder.safetensors
  ssl-ebm objectives                                     what there is to train with
"""

PRETRAIN = """\
Pretrain an encoder as a YAML file says. Any key can be changed on the command line, and any part replaced whole:

  ssl-ebm pretrain configs/fashion_mnist/simclr.yaml
  ssl-ebm pretrain configs/fashion_mnist/simclr.yaml run_dir=runs/warm objective.temperature=0.5 seed=1
  ssl-ebm pretrain configs/fashion_mnist/simclr.yaml data.name=folder data.root=photos data.image_size=64 \\
      views.name=simclr run_dir=runs/photos
  ssl-ebm pretrain configs/fashion_mnist/simclr.yaml 'encoder={name: resnet34}' run_dir=runs/resnet34

The run directory gets config.yaml (resolved), metrics.jsonl (loss, energies, rank, speed, kNN), checkpoints/, and
encoder.safetensors. An interrupted run goes on with --resume, as if it had never stopped. With several GPUs:

  torchrun --nproc-per-node 4 -m ssl_ebm.cli pretrain CONFIG

Code of your own takes the place of a part, by its name here or in the YAML file (docs/extending.md):

  ssl-ebm pretrain configs/quickstart/simclr.yaml run_dir=runs/mine objective.margin=2 --objective my_objectives:margin
"""

EVALUATE = """\
Evaluate runs: weighted kNN (k × T grid), linear and ridge probes, few shots, verification by energy, rank and
uniformity, beside the untrained encoder and the raw pixels. Everything is chosen on the validation split; test is read
once. Features are extracted once and kept in RUN/features; results go to RUN/evaluation.json.

  ssl-ebm evaluate runs/quickstart/simclr --sgd          the literature's SGD probe too

Encoders that were trained elsewhere get the same probes, without energies:

  ssl-ebm evaluate --timm resnet18 --data cifar10 data.limit=5000 data.image_size=64 --out runs/resnet18
  ssl-ebm evaluate --features features.npz               train, train_labels, test, test_labels[, validation...]
  ssl-ebm evaluate --features features.npy --labels labels.npy

A run never imports code that its config names, since runs travel: name that code again, or trust the run.

  ssl-ebm evaluate runs/mine --objective my_objectives:margin
  ssl-ebm evaluate runs/mine --trust
"""

COMPARE = """\
Compare runs as energies: a table, and one self-contained report.html with energy histograms, training curves and
nearest neighbours by energy. Runs that were not evaluated yet are evaluated first, with the code of your own that they
need; give an option several times where they need different ones.

  ssl-ebm compare runs/quickstart/* runs/mine --objective my_objectives:margin
"""

STUDY = """\
Train several objectives with several seeds and one budget, evaluate them, and say which differences are real:

  ssl-ebm study configs/studies/quick.yaml --dry-run     what would run, and for how long
  ssl-ebm study configs/studies/quick.yaml
  ssl-ebm study configs/studies/fashion_mnist.yaml seeds=[0,1,2,3,4]
  ssl-ebm study configs/studies/quick.yaml --objective my_objectives:margin      one more, of your own

Small networks train fastest one on a core, so that many runs go side by side. A study that was stopped (Ctrl-C) goes on
with the same command. The directory gets study.json, report.md, report.html, and a run directory for each run.
"""

SAMPLE = """\
Draw images from a run's energy by its own sampler, into RUN/samples: chains from noise, chains from images, and chains
from noise that an image lowers the energy of, E(x, ·). The first two need a section generative in the config:

  ssl-ebm pretrain configs/generative/ebm.yaml
  ssl-ebm sample runs/generative/ebm
  ssl-ebm sample runs/generative/ebm --count 500 --judge runs/quickstart/simclr       and its Fréchet distance
  ssl-ebm sample runs/quickstart/simclr --convert-batch-norm     adversarial: never trained on what it then finds
"""

EXPORT = """\
Write a run's backbone for timm, and beside it a .json that says how to build the network:

  ssl-ebm export runs/quickstart/simclr encoder.safetensors
  >>> timm.create_model("resnet18", in_chans=1, num_classes=0, checkpoint_path="encoder.safetensors")
"""

OBJECTIVES = """\
List the objectives as the theory orders them: what each lowers on compatible pairs, what keeps that from being low
everywhere, what it remembers, and what its energy means once trained. Every part can be replaced in a config:

  ssl-ebm pretrain configs/fashion_mnist/vicreg.yaml objective.contrast=sigmoid objective.negatives=batch
  ssl-ebm objectives simclr                              one objective's formula, arguments and source
  ssl-ebm objectives custom                              an objective made of parts
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. A user's mistake is one line on stderr and exit code 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logger, terminal = logging.getLogger("ssl_ebm"), _Terminal()
    logger.setLevel(logging.INFO)
    logger.addHandler(terminal)
    try:
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt as interrupt:
        print(f"ssl-ebm {options.command}: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.traceback:
            raise
        print(f"ssl-ebm {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        logger.removeHandler(terminal)


class _Terminal(logging.Handler):
    """Writes messages above the progress bars: warnings to stderr, others to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        tqdm.write(self.format(record), file=stream)
        stream.flush()


def _add_parts(command: argparse.ArgumentParser, *kinds: str, action: str = "store", trust: bool = True) -> None:
    """Options that name code of the user's."""
    group = command.add_argument_group(
        "code of your own", "named package.module:function; the current directory is searched after all others"
    )
    for kind in kinds:
        group.add_argument(f"--{kind}", metavar="NAME", action=action, help=_PARTS[kind])
    if trust:
        group.add_argument("--trust", action="store_true", help="import whatever the run's own config names")


_PARTS = {
    "objective": "what makes the objective",
    "data": "what makes the images: a torch Dataset, arrays or Splits",
    "encoder": "what makes the backbone, of in_chans and image_size",
    "views": "what makes views, of images and a generator",
}


def _parts(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `_add_parts`, as keyword arguments."""
    return {name: getattr(options, name) for name in (*_PARTS, "trust") if hasattr(options, name)}


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("ssl-ebm", description=DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, line: str, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=line, description=description, formatter_class=raw)
        command.add_argument("--traceback", action="store_true", help="show where an error comes from")
        return command

    pretrain = add("pretrain", "train an encoder without labels", PRETRAIN)
    pretrain.add_argument("config", metavar="CONFIG", help="YAML file of the run")
    pretrain.add_argument("overrides", metavar="key=value", nargs="*", help="changes, e.g. optimizer.lr=3e-4")
    pretrain.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    _add_parts(pretrain, *_PARTS)

    evaluate = add("evaluate", "kNN, linear probe, energies of runs; probes of other encoders", EVALUATE)
    evaluate.add_argument(
        "runs", metavar="RUN", nargs="*", help="run directory; with --timm: changes, e.g. data.limit=500"
    )
    evaluate.add_argument("--sgd", action="store_true", help="the literature's linear probe too; takes minutes")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    evaluate.add_argument("--force", action="store_true", help="evaluate again although results are there")
    other = evaluate.add_argument_group("encoders trained elsewhere")
    other.add_argument("--timm", metavar="NAME", help="a timm model")
    other.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=True, help="load timm's weights")
    other.add_argument("--checkpoint", metavar="FILE", help="load these weights instead of timm's")
    other.add_argument("--features", metavar="FILE", help=".npz or .npy of features")
    other.add_argument("--labels", metavar="FILE", help=".npy of labels, for an .npy of features")
    other.add_argument(
        "--out", metavar="DIR", help="where results go (default: runs/timm/NAME-DATA, runs/features/FILE)"
    )
    _add_parts(evaluate, *_PARTS, action="append")
    evaluate.epilog = "With --timm, --data is a data set's name, too (default: fashion_mnist)."

    compare = add("compare", "one table and one report of several runs", COMPARE)
    compare.add_argument("runs", metavar="RUN", nargs="+", help="run directory")
    compare.add_argument(
        "--report", metavar="FILE", help="where the report goes (default: report.html beside the runs)"
    )
    _add_parts(compare, *_PARTS, action="append")

    study = add("study", "several objectives and seeds, with statistics", STUDY)
    study.add_argument("config", metavar="CONFIG", help="YAML file of the study")
    study.add_argument("overrides", metavar="key=value", nargs="*", help="changes, e.g. seeds=[0,1] budget.epochs=1")
    study.add_argument("--dry-run", action="store_true", help="list what would run, with an estimate of its time")
    study.add_argument("--objective", metavar="NAME", action="append", default=[], help="one more objective")
    _add_parts(study, "data", "encoder", "views", trust=False)

    sample = add("sample", "images drawn from a run's energy", SAMPLE)
    sample.add_argument("run", metavar="RUN", help="run directory")
    sample.add_argument("--count", type=int, default=16, help="chains from noise (default: %(default)s)")
    sample.add_argument("--steps", type=int, help="of each chain (default: as in the training)")
    sample.add_argument("--seed", type=int, default=0, help="of the chains (default: %(default)s)")
    sample.add_argument("--convert-batch-norm", action="store_true", help="make BatchNorm the fixed map of eval mode")
    sample.add_argument("--judge", metavar="RUN", help="Fréchet distance of the images from noise in its features")
    sample.add_argument("--device", default="cpu", help="cpu, cuda (default: %(default)s)")
    sample.add_argument("--force", action="store_true", help="overwrite the picture of this checkpoint")
    _add_parts(sample, "objective", "data", "encoder")

    export = add("export", "weights that timm loads", EXPORT)
    export.add_argument("run", metavar="RUN", help="run directory")
    export.add_argument("path", metavar="FILE", help="weights to write, ending in .safetensors")
    _add_parts(export, "encoder")

    objectives = add("objectives", "list the objectives", OBJECTIVES)
    objectives.add_argument("name", nargs="?", help="show one objective's formula, arguments and source")
    objectives.add_argument("--markdown", action="store_true", help="the table as docs/catalogue.md has it")
    return parser


def _pretrain(options: argparse.Namespace) -> int:
    from ssl_ebm.training.loop import pretrain

    path = pretrain(options.config, options.overrides, resume=options.resume, **_parts(options))
    print(f"trained: {path}\nnext:    ssl-ebm evaluate {path}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    if options.timm or options.features:
        return _evaluate_external(options)
    from ssl_ebm.evaluation.evaluate import evaluate
    from ssl_ebm.report.compare import compare

    if not options.runs:
        raise ValueError("nothing to evaluate: name a run directory, --timm NAME or --features FILE")
    for run in options.runs:
        evaluate(run, device=options.device, force=options.force, sgd=options.sgd, **_parts(options))
        print(f"evaluated: {Path(run) / 'evaluation.json'}")
    print(compare(options.runs, **_parts(options)).table())
    return 0


def _evaluate_external(options: argparse.Namespace) -> int:
    from ssl_ebm.config import load_config
    from ssl_ebm.evaluation.external import evaluate_file, evaluate_timm
    from ssl_ebm.evaluation.probes.protocols import DEFAULT
    from ssl_ebm.report.tables.probes import probe_table
    from ssl_ebm.user_code import import_part, is_import_name

    common = {"protocols": [*DEFAULT, *(["sgd"] if options.sgd else [])], "force": options.force}
    if options.features:
        if options.timm or options.runs:
            raise ValueError("--features stands alone: leave out --timm and runs")
        out = options.out or f"runs/features/{Path(options.features).stem}"
        record = evaluate_file(options.features, labels=options.labels, out=out, **common)
    else:
        wrong = [change for change in options.runs if not change.startswith("data.")]
        if wrong:
            raise ValueError(f"with --timm only data.x=y can be changed, got {wrong[0]!r}")
        images = (options.data or ["fashion_mnist"])[-1]
        data = load_config({"data": {"name": images}}, options.runs).data
        brought = import_part(images) if is_import_name(images) else None
        out = options.out or f"runs/timm/{options.timm}-{data.name.rpartition(':')[2]}"
        weights = {"pretrained": options.pretrained, "checkpoint": options.checkpoint}
        record = evaluate_timm(options.timm, data, out=out, images=brought, device=options.device, **weights, **common)
    print(f"evaluated: {Path(out) / 'evaluation.json'}")
    print(probe_table(record["rows"]["encoder"], record["protocol"]["sizes"]["test"]))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from ssl_ebm.report.compare import compare

    comparison = compare(options.runs, **_parts(options))
    print(comparison.table())
    print(f"report: {comparison.write(options.report)}")
    return 0


def _study(options: argparse.Namespace) -> int:
    from ssl_ebm.study.dry_run import describe
    from ssl_ebm.study.plan import load_study
    from ssl_ebm.study.run import study

    names = {kind: name for kind, name in _parts(options).items() if kind != "objective" and name is not None}
    config = load_study(options.config, options.overrides, objectives=options.objective, parts=names)
    if options.dry_run:
        print(describe(config))
        return 0
    results = study(config)
    for result in results:
        print(f"\n{result.text()}\n\nreport: {result.directory / 'report.html'}, {result.directory / 'report.md'}")
    return 1 if any(result.failed for result in results) else 0


def _sample(options: argparse.Namespace) -> int:
    from ssl_ebm.report.samples import sample

    picture = sample(
        options.run,
        count=options.count,
        steps=options.steps,
        seed=options.seed,
        convert_batch_norm=options.convert_batch_norm,
        force=options.force,
        judge=options.judge,
        device=options.device,
        **_parts(options),
    )
    print("\n".join(picture.lines))
    print(f"wrote {picture.path}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from ssl_ebm.model import load

    path = load(options.run, **_parts(options)).export(options.path)
    print(f"wrote {path} and {path.with_suffix('.json')}")
    return 0


def _objectives(options: argparse.Namespace) -> int:
    from ssl_ebm.objectives import PARTS, objective_arguments, objective_builder
    from ssl_ebm.objectives.catalogue import as_markdown, as_text, catalogue
    from ssl_ebm.user_code import entry_points

    if options.name is not None:
        arguments = objective_arguments(options.name)
        print(f"{options.name}({', '.join(str(p) for p in arguments.values())})\n")
        print(inspect.getdoc(objective_builder(options.name)))
        print("\nParts that replace its own, in any objective:\n")
        for kind, options_of_kind in PARTS.items():
            print(
                textwrap.fill(
                    f"{kind}: {', '.join(options_of_kind)}", 100, initial_indent="  ", subsequent_indent="    "
                )
            )
        return 0
    if options.markdown:
        print(as_markdown(catalogue()), end="")
        return 0
    print(as_text(catalogue()))
    for name, point in entry_points("objective").items():
        print(f"{name}, of the package {point.dist.name if point.dist else point.value}")
    print(
        "\nssl-ebm objectives NAME shows an objective's arguments and source; docs/catalogue.md explains the columns."
    )
    return 0


_COMMANDS = {
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "compare": _compare,
    "study": _study,
    "sample": _sample,
    "export": _export,
    "objectives": _objectives,
}

if __name__ == "__main__":
    sys.exit(main())
