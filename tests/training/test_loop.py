"""The loop: resume is exact, guards stop what goes wrong, and what is written can be read."""

import dataclasses
import json

import pytest
import torch
from small import SMALL, slow_but_for

import ssl_ebm
from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.objectives import Objective, Step, objective_arguments
from ssl_ebm.objectives.term import Alarm, Term
from ssl_ebm.run_directory import RunDirectory, load_checkpoint, write_atomically
from ssl_ebm.training import loop as train
from ssl_ebm.training import run as run_module
from ssl_ebm.training.guard import COLLAPSE_PATIENCE, MAX_SKIPPED, Diverged, TrainingStopped, collapse_sign
from ssl_ebm.training.loop import batches, pretrain, update
from ssl_ebm.training.run import prepare, restore

SIZE = 12


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Stripes of three directions, in memory."""
    random = torch.Generator().manual_seed(0)

    def images(count):
        labels = torch.arange(count) % 3
        x = torch.randint(0, 60, (count, 1, SIZE, SIZE), generator=random, dtype=torch.uint8)
        for i, label in enumerate(labels.tolist()):
            x[i, 0, ::3] += 120 * (label == 0)
            x[i, 0, :, ::3] += 120 * (label == 1)
        return Images(x, labels, ("rows", "columns", "noise"))

    splits = Splits(images(96), images(24), images(24), "stripes", "memory")
    monkeypatch.setattr(run_module, "load_data", lambda config, data=None: splits)
    return splits


def settings(folder, **changes):
    base = {
        "run_dir": str(folder),
        "views": {"name": "grey"},
        "encoder": {"name": "test_resnet"},
        "objective": {"name": "simclr", "projector": {"hidden": [16], "out": 8}},
        "optimizer": {"warmup_epochs": 0.5},
        "training": {
            "epochs": 2,
            "batch_size": 24,
            "log_every_steps": 1,
            "knn_every_epochs": 0,
            "checkpoint_every_steps": 4,
            "device": "cpu",
            "precision": "float32",
        },
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        base[part] = {**base[part], name: value} if name else value
    return load_config(base)


def state(run_dir):
    return load_checkpoint(RunDirectory(run_dir).checkpoint)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def whole_and_resumed(tmp_path, monkeypatch, **changes):
    """Run directories of a run that was never stopped, and of one that was after its first checkpoint."""
    whole = pretrain(settings(tmp_path / "whole", training__accumulate=2, **changes))

    class Stop(Exception):
        pass

    def until_five(run, network):
        if run.step == 5:
            raise Stop
        return update(run, network)

    config = settings(tmp_path / "parts", training__accumulate=2, **changes)
    monkeypatch.setattr(train, "update", until_five)
    with pytest.raises(Stop):
        pretrain(config)
    assert state(tmp_path / "parts")["step"] == 4
    monkeypatch.setattr(train, "update", update)
    return whole, pretrain(config, resume=True)


def assert_same_run(whole, resumed):
    assert equal(state(whole), state(resumed))
    lines = [RunDirectory(path).read_metrics() for path in (whole, resumed)]
    for line in lines[0] + lines[1]:
        line.pop("images_per_second")
    assert lines[0] == lines[1]


KINDS_OF_STATE = {  # what a checkpoint must hold, and an objective that has it
    "simclr": "nothing but networks",
    "moco_v2": "a queue and a teacher",
    "nce": "a memory, draws and a constant from the first batch",
    "byol": "a predictor and a teacher",
    "swav": "prototypes and a queue of codes",
    "ssl_hsic": "a learned kernel and draws of features",
}


@pytest.mark.parametrize("objective", slow_but_for(ssl_ebm.list_objectives(), *KINDS_OF_STATE))
def test_a_resumed_run_is_the_run_that_was_never_stopped(objective, tmp_path, monkeypatch):
    head = {"hidden": [16], "out": 8}
    small = {"projector": head | ({"prototypes": 24} if objective == "dino" else {}), "predictor": head}
    small |= {name: value for name, value in SMALL.items() if name != "bank_size"} | {"queue_size": 40}
    small |= {"projector": {"out": 3}} if objective == "supervised" else {}
    known = objective_arguments(objective)
    choice = {"name": objective} | {name: value for name, value in small.items() if name in known}
    assert_same_run(*whole_and_resumed(tmp_path, monkeypatch, objective=choice))


def test_a_run_with_multi_crop_and_prototypes(tmp_path, monkeypatch, caplog, capsys):
    """Resumed exactly; described as it is; and what is kept takes images of the one size."""
    projector = {"hidden": [16], "out": 8, "prototypes": 12, "frozen_prototypes": 0.6}
    choice = {"views": {"name": "grey", "local_views": 2}, "objective": {"name": "simclr", "projector": projector}}
    caplog.set_level("INFO", logger="ssl_ebm")
    whole, resumed = whole_and_resumed(tmp_path, monkeypatch, **choice)
    assert_same_run(whole, resumed)
    assert capsys.readouterr().out == ""  # a library logs and does not print
    described = caplog.text
    assert "views      2 of 12 pixels and 2 of 8 pixels, grey" in described and "on 12 dimensions" in described
    line = RunDirectory(whole).read_metrics()[-1]
    assert line["energy_positive"] < line["energy_negative"] and 1 <= line["rankme_projection"] <= 12
    assert ssl_ebm.load(whole).embed(torch.rand(3, 1, SIZE, SIZE)).shape == (3, 12)


def test_prototypes_move_when_they_thaw(tmp_path):
    projector = {"hidden": [16], "out": 8, "prototypes": 12, "frozen_prototypes": 0.4}
    run = prepare(settings(tmp_path / "run", objective={"name": "simclr", "projector": projector}))
    weight = run.model.projector[-1].weight
    before, moved = weight.detach().clone(), []
    for run.step in range(6):
        update(run, run.model)
        moved.append(not torch.equal(weight, before))
    assert run.total_steps == 10 and moved == [False] * 4 + [True] * 2


def test_the_trained_model_gives_the_energies_that_training_saw(tmp_path):
    config = settings(tmp_path / "run")
    run = prepare(config)
    pretrain(config)
    model = ssl_ebm.load(tmp_path / "run")
    restore(run, state(tmp_path / "run"))
    run.model.eval()
    x = torch.rand(6, 1, SIZE, SIZE)
    with torch.no_grad():
        z = run.model(x[None].expand(2, -1, -1, -1, -1)).projection[0]
    assert torch.allclose(model.embed(x), z, atol=1e-5)
    assert torch.allclose(model.energy_matrix(x, x), run.objective.energy.cross(z, z), atol=1e-4)


def test_every_epoch_sees_every_image_once(tmp_path):
    run = prepare(settings(tmp_path / "run"))
    assert run.steps_per_epoch == 5 and run.total_steps == 10
    seen = []
    for run.step in range(5):
        seen += torch.cat(list(batches(run))).tolist()
    assert sorted(seen) == list(range(120))
    run.step = 5
    assert torch.cat(list(batches(run))).tolist() != seen[:24]


def test_labels_of_the_validation_split_are_not_trained_on(tmp_path):
    assert len(prepare(settings(tmp_path / "a")).images) == 120
    supervised = settings(tmp_path / "b", objective={"name": "supcon", "projector": {"out": 8}})
    assert len(prepare(supervised).images) == 96


def test_the_teacher_moves_once_an_update(tmp_path):
    heads = {"projector": {"hidden": [16], "out": 8}, "predictor": {"hidden": [8], "out": 8}}
    config = settings(
        tmp_path / "run", objective={"name": "byol", "teacher_momentum": 0.5, **heads}, training__accumulate=2
    )
    run = prepare(config)
    before = run.model.teacher[1][0].weight.clone()
    update(run, run.model)
    expected = 0.5 * before + 0.5 * run.model.projector[0].weight
    assert torch.allclose(run.model.teacher[1][0].weight, expected, atol=1e-7)


def test_a_non_finite_gradient_is_skipped_and_then_stops_the_run(tmp_path, monkeypatch, caplog):
    config = settings(tmp_path / "run", training__epochs=20)
    good = Objective.forward

    def poisoned(self, embeddings):
        step = good(self, embeddings)
        return dataclasses.replace(step, loss=step.loss * float("nan")) if poisoned.on else step

    poisoned.on = False
    monkeypatch.setattr(Objective, "forward", poisoned)
    run = prepare(config)
    update(run, run.model)
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items() if "running" not in name}
    poisoned.on = True
    update(run, run.model)
    assert run.skipped == 1
    assert [record.getMessage() for record in caplog.records] == [
        "update 0: gradient is not finite, skipped (1 in a row)"
    ]
    assert all(torch.equal(run.model.state_dict()[n], w) for n, w in weights.items() if "num_batches" not in n)
    poisoned.on = False
    update(run, run.model)
    assert run.skipped == 0
    poisoned.on = True
    with pytest.raises(TrainingStopped, match="lower optimizer.lr"):
        pretrain(config)
    lines = RunDirectory(tmp_path / "run").read_metrics()
    assert lines and all(line["loss"] is None for line in lines)  # and metrics.jsonl stays JSON


class Pull(Term):
    """Pulls a parameter of its own to 1; in updates `bad`, counted without resets, its loss is `ill` times as large."""

    subject, remedy = "the pull", "pull less"

    def __init__(self, *, bad=(), ill=1.0, watched=False, rollbacks=0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.bad, self.ill, self.total, self.rollbacks = bad, ill, 0, rollbacks
        self.alarm = Alarm(2) if watched else None

    def forward(self, model, step, embeddings, views, generator):
        is_bad = self.total in self.bad
        self.total += 1
        self.calls += 1
        if self.alarm is not None:
            self.alarm.watch("it pulls too much" if is_bad else None)
        loss = (self.ill if is_bad else 1.0) * (self.scale - 1).square()
        return Step(step.loss + loss, step.terms | {"pull": loss.detach(), "before": step.loss.detach()})


def with_term(monkeypatch, **options):
    """Let runs that are built from now on have a `Pull`."""
    monkeypatch.setattr(run_module, "_build_terms", lambda *arguments: {"pull": Pull(**options)})


def test_a_term_is_added_trained_saved_and_resumed(tmp_path, monkeypatch):
    with_term(monkeypatch)
    whole, resumed = whole_and_resumed(tmp_path, monkeypatch)
    assert_same_run(whole, resumed)
    saved = state(whole)["terms"]["pull"]
    assert saved["scale"] > 0 and saved["calls"] == 20  # 10 updates of 2 parts
    for line in RunDirectory(whole).read_metrics():
        assert line["pull"] > 0 and line["loss"] == pytest.approx(line["before"] + line["pull"])


def test_the_alarm_of_a_term_keeps_the_last_good_checkpoint_and_stops_the_run(tmp_path, monkeypatch):
    with_term(monkeypatch, bad=(7, 8), watched=True)
    with pytest.raises(Diverged, match="the pull diverged at update 9: for 2 updates it pulls too much.*pull less"):
        pretrain(settings(tmp_path / "run"))
    assert state(tmp_path / "run")["step"] == 4  # not 8, which was due


def test_a_run_whose_gradients_stay_non_finite_returns_to_its_checkpoint(tmp_path, monkeypatch, caplog):
    with_term(monkeypatch, bad=range(5, 5 + MAX_SKIPPED), ill=float("nan"), rollbacks=1)
    path = pretrain(settings(tmp_path / "run", training__epochs=4, training__checkpoint_every_steps=5))
    assert "; back to update 5, roll-back 1: learning rate × 0.5" in caplog.text
    final = state(path)
    assert (final["step"], final["skipped"], final["rollbacks"]) == (20, 0, 1)
    lines = RunDirectory(path).read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 21)) and all(line["loss"] is not None for line in lines)
    assert [line.get("rollbacks") for line in lines] == [None] * 5 + [1] * 15


def test_a_collapse_is_named(tmp_path):
    random = torch.Generator().manual_seed(0)
    z = torch.randn(64, 16, generator=random)
    assert collapse_sign(z) is None
    assert "same way" in collapse_sign(torch.ones(64, 16) + 0.01 * z)
    assert "line" in collapse_sign(z[:, :1] * torch.ones(16) + 1e-4 * z)
    assert "finite" in collapse_sign(z * float("nan"))


def test_the_alarm_stops_a_run_that_asks_for_it(tmp_path, caplog):
    config = settings(
        tmp_path / "run",
        objective={"name": "vicreg", "variance_weight": 0.0, "covariance_weight": 0.0, "projector": {"out": 8}},
        optimizer={"name": "sgd", "lr": 0.01, "warmup_epochs": 0},
        training__epochs=40,
        training__stop_on_collapse=True,
    )
    with pytest.raises(TrainingStopped, match="same way|line"):
        pretrain(config)
    collapsed = [line for line in RunDirectory(tmp_path / "run").read_metrics() if "collapse" in line]
    (line,) = collapsed
    assert line["step"] >= COLLAPSE_PATIENCE > 1 and state(tmp_path / "run")["step"] < line["step"]
    assert f"update {line['step']}: collapse alarm: {line['collapse']}" in caplog.text


def test_knn_runs_during_training_and_does_not_change_it(tmp_path):
    with_knn = pretrain(settings(tmp_path / "a", training__knn_every_epochs=0.5))
    without = pretrain(settings(tmp_path / "b"))
    assert equal(state(with_knn)["model"], state(without)["model"])
    accuracies = [line["knn_validation"] for line in RunDirectory(with_knn).read_metrics() if "knn_validation" in line]
    assert len(accuracies) == 5 and all(0 <= a <= 1 for a in accuracies)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__batch_size": 500}, "larger than the data set's 120"),
        ({"training__batch_size": 2, "training__accumulate": 2}, "parts of at least 2"),
        ({"training__device": "tpu9"}, "use auto or cpu"),
        ({"objective": {"name": "simclrr"}}, "did you mean 'simclr'"),
        ({"objective": {"name": "nce", "bank_size": 5}}, "120 training images"),
        (
            {"objective": {"name": "supervised"}},
            "10 classes apart and stripes has 3: set objective.projector.out=3",
        ),
        ({"encoder__name": "resnet19"}, "did you mean 'resnet18'"),
        ({"views": {"name": "gray"}}, "grey"),
        ({"views": {"name": "grey", "local_views": 2, "local_size": 13}}, "local_size must be in .1, 12.*got 13"),
        ({"encoder__name": "deit_tiny_patch16_224", "views": {"name": "grey", "local_views": 2}}, "not views of 8 "),
        ({"encoder__name": "deit_tiny_patch16_224", "views": {"name": "grey", "size": 6}}, "not views of 6 "),
    ],
)
def test_a_users_mistake_is_named_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        pretrain(settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(tmp_path):
    config = settings(tmp_path / "run", training__epochs=1)
    with pytest.raises(FileNotFoundError, match="without --resume"):
        pretrain(config, resume=True)
    pretrain(config)
    with pytest.raises(FileExistsError, match="--resume"):
        pretrain(config)
    with pytest.raises(ValueError, match="seed: 0 → 1"):
        pretrain(dataclasses.replace(config, seed=1), resume=True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_metrics_say_what_the_energies_do(tmp_path, small_data):
    lines = RunDirectory(pretrain(settings(tmp_path / "run"))).read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 11))
    for line in lines:
        assert line["energy_gap"] == pytest.approx(line["energy_negative"] - line["energy_positive"])
        assert 1 <= line["rankme_projection"] <= 8 and line["images_per_second"] > 0
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2
