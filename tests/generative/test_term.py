"""A run with a section `generative`: what it adds to the loss, exact resume, alarms, and what is loaded afterwards."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from small import slow_but_for
from torch.nn import functional as F

import ssl_ebm
from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.generative import term as term_module
from ssl_ebm.generative.divergence import divergence_sign, measure, to_floats
from ssl_ebm.generative.term import Generative, gradient_cosine
from ssl_ebm.objectives.objective import Step
from ssl_ebm.objectives.term import Alarm
from ssl_ebm.run_directory import RunDirectory, load_checkpoint, save_checkpoint
from ssl_ebm.training import loop as train
from ssl_ebm.training import monitor
from ssl_ebm.training import run as run_module
from ssl_ebm.training.guard import TrainingStopped, allows_checkpoint, rate_factor
from ssl_ebm.training.loop import pretrain, update
from ssl_ebm.training.run import prepare, restore, save

SIZE = 12
SGLD = {"name": "sgld", "step_size": 1.0, "noise": 0.01, "steps": 2}
PLAIN = {"head": {"name": "scalar", "hidden": [8]}, "sampler": SGLD, "chains": {"size": 40}}
PROJECTOR = {"hidden": [16], "out": 8, "hidden_norm": False, "output_norm": "none"}
NONE = {"name": "none", "projector": PROJECTOR}
SIMCLR = {"name": "simclr", "projector": PROJECTOR}
KINDS = {
    "ebm": {"objective": NONE, "generative": PLAIN},
    "jem": {
        "objective": {"name": "supervised", "projector": {**PROJECTOR, "out": 3}},
        "generative": {**PLAIN, "head": {"name": "logits"}},
    },
    "ebclr": {"objective": SIMCLR, "generative": {**PLAIN, "head": {"name": "joint"}, "weight": 0.1}},
    "clel": {
        "objective": SIMCLR,
        "generative": {**PLAIN, "head": {"name": "norm"}, "loss": {"name": "latent_guided"}},
    },
    "rbm": {
        "objective": NONE,
        "encoder": {"name": "rbm", "kwargs": {"img_size": SIZE, "hidden": 5}},
        "generative": {
            "head": {"name": "free_energy"},
            "sampler": {"name": "gibbs"},
            "chains": {"size": 24, "restart": 0.0},
        },
    },
}


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    random = torch.Generator().manual_seed(0)

    def images(count):
        labels = torch.arange(count) % 3
        x = torch.randint(0, 60, (count, 1, SIZE, SIZE), generator=random, dtype=torch.uint8)
        x[labels == 0, 0, ::3] += 120
        x[labels == 1, 0, :, ::3] += 120
        return Images(x, labels, ("rows", "columns", "noise"))

    splits = Splits(images(72), images(24), images(24), "stripes", "memory")
    monkeypatch.setattr(run_module, "load_data", lambda config, data=None: splits)
    return splits


def settings(folder, *, norm="groupnorm1", generative=PLAIN, objective=NONE, encoder=None, views=2, **training):
    return load_config(
        {
            "run_dir": str(folder),
            "views": {"name": "grey", "views": views},
            "encoder": encoder or {"name": "test_resnet", "kwargs": {"norm_layer": norm} if norm else {}},
            "objective": objective,
            "generative": generative,
            "optimizer": {"warmup_epochs": 0.0},
            "training": {
                "epochs": 1,
                "batch_size": 24,
                "log_every_steps": 1,
                "knn_every_epochs": 0,
                "checkpoint_every_steps": 2,
                "device": "cpu",
                "precision": "float32",
                **training,
            },
        }
    )


def state(run_dir):
    return load_checkpoint(RunDirectory(Path(run_dir)).checkpoint)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("kind", slow_but_for(KINDS, "ebm", "ebclr"))
def test_a_resumed_run_is_the_run_that_was_never_stopped(kind, tmp_path, monkeypatch):
    choice = KINDS[kind]
    whole = pretrain(settings(tmp_path / "whole", accumulate=2, **choice))

    class Stop(Exception):
        pass

    def until_five(run, network):
        if run.step == 2:
            raise Stop
        return update(run, network)

    config = settings(tmp_path / "parts", accumulate=2, **choice)
    monkeypatch.setattr(train, "update", until_five)
    with pytest.raises(Stop):
        pretrain(config)
    assert state(config.run_dir)["step"] == 2
    monkeypatch.setattr(train, "update", update)
    resumed = pretrain(config, resume=True)
    states = [state(path) for path in (whole, resumed)]
    assert equal(*states) and int(states[0]["terms"]["generative"]["buffer.age"].sum()) > 0
    lines = [RunDirectory(path).read_metrics() for path in (whole, resumed)]
    for line in lines[0] + lines[1]:
        line.pop("images_per_second")
    assert lines[0] == lines[1]
    expected = {"image_energy_data", "image_energy_chains", "image_gap_sigmas", "image_chain_age", "image_duplicates"}
    assert expected <= lines[0][-1].keys()


def term_of(run):
    return run.terms["generative"]


def captured(run, monkeypatch):
    """One update's objective step, whole step and embeddings, and what the generative part was given."""
    seen = {}
    forward = Generative.forward

    def spy(self, model, step, embeddings, views, generator):
        seen.update(objective=step, views=views, embeddings=embeddings)
        return forward(self, model, step, embeddings, views, generator)

    monkeypatch.setattr(Generative, "forward", spy)
    whole, _ = update(run, run.model)
    return seen["objective"], whole, seen["embeddings"], seen["views"]


def test_jem_is_cross_entropy_plus_the_likelihood_of_the_free_energy(tmp_path, monkeypatch):
    run = prepare(settings(tmp_path / "run", **KINDS["jem"]))
    run.optimizer.step = lambda: None
    objective, whole, embeddings, _ = captured(run, monkeypatch)
    logits = embeddings.projection.detach()
    labels = torch.stack([embeddings.label, embeddings.label]).flatten()
    assert objective.loss.item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), labels).item(), abs=1e-5)
    slots = term_of(run).buffer.age.nonzero()[:, 0]
    model = run.model.eval()
    with torch.no_grad():
        chains = model.projector(model.encoder(term_of(run).buffer.images[slots]))
    gap = -logits[0].logsumexp(1).mean() + chains.logsumexp(1).mean()
    assert len(slots) == 24 and (whole.loss - objective.loss).item() == pytest.approx(gap.item(), abs=1e-5)


def test_ebclr_is_nt_xent_plus_the_likelihood_of_the_joint_energys_marginal(tmp_path, monkeypatch):
    run = prepare(settings(tmp_path / "run", **KINDS["ebclr"]))
    run.optimizer.step = lambda: None
    objective, whole, embeddings, _ = captured(run, monkeypatch)
    z, bank = (F.normalize(part, dim=1) for part in embeddings.projection.detach())
    slots = term_of(run).buffer.age.nonzero()[:, 0]
    with torch.no_grad():
        chains = F.normalize(run.model.projector(run.model.encoder(term_of(run).buffer.images[slots])), dim=1)
    data_energy, chain_energy = (-(part @ bank.T / 0.1).logsumexp(1).mean() for part in (z, chains))
    expected = 0.1 * (data_energy - chain_energy).item()
    assert (whole.loss - objective.loss).item() == pytest.approx(expected, abs=1e-4)


def test_clel_pulls_the_direction_to_the_embedding(tmp_path, monkeypatch):
    run = prepare(settings(tmp_path / "run", **KINDS["clel"]))
    objective, whole, embeddings, _ = captured(run, monkeypatch)
    f, z = embeddings.features[0], embeddings.projection[1].detach()
    assert whole.terms["image_energy_data"].item() == pytest.approx(f.square().sum(1).mean().item() / 2, rel=1e-5)
    assert "image_alignment" in whole.terms and term_of(run).head.direction.weight.grad.abs().sum() > 0
    assert z.shape == (24, 8)


@pytest.mark.parametrize("start", ["noise", "data"])
def test_chains_start_where_they_are_told(start, tmp_path, monkeypatch):
    still = {"name": "sgld", "step_size": 1e-9, "noise": 0.0, "steps": 1}
    generative = {**PLAIN, "sampler": still, "chains": {"start": start, "count": 7}}
    run = prepare(settings(tmp_path / "run", generative=generative))
    assert term_of(run).buffer is None
    seen = []
    move = Generative._move

    def spy(self, energy, x, generator):
        draw, chains = move(self, energy, x, generator)
        seen.append((x, chains.x))
        return draw, chains

    monkeypatch.setattr(Generative, "_move", spy)
    update(run, run.model)
    ((x, chains),) = seen
    assert chains.shape == (7, 1, SIZE, SIZE)
    assert torch.allclose(chains, x[:7], atol=1e-6) == (start == "data")
    if start == "noise":
        assert 0.4 < float(chains.mean()) < 0.6 and float(chains.std()) > 0.25


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "maximum_likelihood", "energy_penalty": 0.1, "divergence_weight": 1.0},
        {"name": "denoising", "largest": 0.2, "smallest": 0.1, "levels": 2},
        {"name": "sliced"},
        {"name": "noise_contrastive"},
        {"name": "conditional_noise_contrastive", "noise": 0.2},
    ],
)
def test_every_loss_trains_the_encoder_and_the_head(loss, tmp_path):
    smooth = {"name": "test_resnet", "kwargs": {"norm_layer": "groupnorm1", "act_layer": "silu"}}
    config = settings(tmp_path / "run", generative={**PLAIN, "loss": loss}, views=1)
    run = prepare(dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, kwargs=smooth["kwargs"])))
    before = {name: p.detach().clone() for part in run.parts for name, p in part.named_parameters()}
    step, _ = update(run, run.model)
    assert step.loss.isfinite() and "image_loss" in step.terms
    after = {name: p for part in run.parts for name, p in part.named_parameters()}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder") for name in moved) and any(name.startswith("head") for name in moved)
    assert ("log_normalizer" in moved) == (loss["name"] == "noise_contrastive")


def test_sampling_leaves_the_training_state_alone(tmp_path, monkeypatch):
    """Modes, flags and gradients within an update are what they are without sampling."""
    run = prepare(settings(tmp_path / "run"))
    update(run, run.model)
    assert all(m.training for m in run.model.modules()) and all(p.requires_grad for p in term_of(run).parameters())
    gradients = [p.grad.clone() for p in run.model.encoder.parameters()]
    views = torch.rand(1, 24, 1, SIZE, SIZE)
    term_of(run)(run.model, Step(torch.zeros(()), {}), run.model(views), views, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, run.model.encoder.parameters(), strict=True))


def test_the_weight_rises(tmp_path):
    run = prepare(settings(tmp_path / "run", generative={**PLAIN, "warmup": 0.5, "weight": 2.0}))
    weights = []
    for fraction in (0.0, 0.25, 0.5, 1.0):
        term_of(run).set_progress(fraction)
        weights.append(term_of(run).weight)
    assert weights == [0.0, 1.0, 2.0, 2.0]


def test_half_of_the_drawn_chains_are_mirrored(tmp_path):
    run = prepare(
        settings(tmp_path / "run", generative={**PLAIN, "chains": {"size": 40, "flip": True, "restart": 0.0}})
    )
    buffer = term_of(run).buffer
    draw = buffer.draw(40, generator=torch.Generator().manual_seed(0))
    original = buffer.images[draw.slots]
    flipped = (draw.images == original.flip(-1)).flatten(1).all(1)
    assert 8 < int(flipped.sum()) < 32
    assert torch.equal(draw.images[~flipped], original[~flipped])


# ------------------------------------------------------------------ alarms


def values(**changes):
    healthy = {
        "energy_std": 1.0,
        "gap": 0.5,
        "gap_sigmas": 0.5,
        "saturated": 0.4,
        "duplicates": 0.0,
        "drift": 0.1,
        "loss": 0.1,
    }
    return healthy | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gap": 50.0, "gap_sigmas": 30.0}, "50 nats above the data in energy, 30 standard deviations"),
        ({"gap": -50.0, "gap_sigmas": -30.0}, "50 nats below the data"),
        ({"energy_std": 1e-9, "gap": 0.0, "gap_sigmas": float("nan")}, "the energy is flat"),
        ({"saturated": 1.0}, "100.0% of the chains' pixels are at 0 or 1"),
        ({"drift": 0.4}, "a step moves pixels by 0.4 of their range"),
        ({"duplicates": 0.75}, "75.0% of the chains are copies"),
        ({"loss": float("nan")}, "loss is not finite"),
    ],
)
def test_signs_of_divergence_are_named(changes, message):
    assert divergence_sign(values()) is None and divergence_sign(values(gap_sigmas=30.0)) is None
    assert message in divergence_sign(values(**changes))
    assert divergence_sign({"energy_std": 1.0, "loss": 0.1}) is None


def test_measurements_are_those_of_their_definitions():
    positive, negative = torch.tensor([0.0, 2.0]), torch.tensor([4.0, 4.0, 7.0])
    chains = torch.tensor([[0.0, 1.0], [0.0, 0.9995], [0.5, 0.5]])
    found = {name: float(value) for name, value in measure(positive, negative, chains, torch.tensor(0.3)).items()}
    spread = ((1.0 + 2.0) / 2) ** 0.5
    expected = {"energy_std": spread, "gap": 4.0, "gap_sigmas": 4 / spread, "drift": 0.3 / 2**0.5}
    assert found == pytest.approx(expected | {"saturated": 4 / 6, "duplicates": 2 / 3})


def test_an_alarm_persists_before_it_stops():
    alarm, bad, good = Alarm(patience=3), values(saturated=1.0), values()
    for measured, persisted in [(bad, False), (bad, False), (good, False), (bad, False), (bad, False), (bad, True)]:
        alarm.watch(divergence_sign(to_floats({name: torch.tensor(value) for name, value in measured.items()})))
        assert (alarm.persisted is not None) == persisted and (alarm.sign is None) == (measured is good)


def runs_away(monkeypatch, *, calls):
    """Let the energy explode in some calls of the generative part, counted from 0."""
    forward, count = Generative.forward, itertools.count()

    def explodes(self, model, step, embeddings, views, generator):
        if next(count) in calls:
            with torch.no_grad():
                self.head.layers[-1].bias += 1e3
                self.head.layers[-1].weight *= 1e3
        return forward(self, model, step, embeddings, views, generator)

    monkeypatch.setattr(Generative, "forward", explodes)


def test_a_diverging_run_goes_back_then_stops_itself_and_keeps_its_last_good_checkpoint(tmp_path, monkeypatch, caplog):
    config = settings(tmp_path / "run", generative={**PLAIN, "patience": 3, "rollbacks": 2}, epochs=20)
    runs_away(monkeypatch, calls=range(5, 1000))
    with pytest.raises(TrainingStopped, match=r"diverged at update \d+: for 3 updates.*lower optimizer.lr") as error:
        pretrain(config)
    assert "\n" not in str(error.value)
    assert caplog.text.count("; back to update") == 2
    good = state(config.run_dir)
    assert good["step"] in (4, 6) and good["terms"]["generative"]["buffer.images"].isfinite().all()
    assert good["rollbacks"] == 2 and rate_factor(prepare(config, resume=True)) == 0.25
    assert all(value.isfinite().all() for value in good["model"].values())
    assert ssl_ebm.load(config.run_dir).head is not None
    lines = RunDirectory(Path(config.run_dir)).read_metrics()
    assert lines[-1]["step"] > good["step"]


def test_a_run_that_went_back_takes_smaller_steps_from_there_and_ends(tmp_path, monkeypatch):
    config = settings(tmp_path / "run", generative={**PLAIN, "patience": 3, "rollbacks": 1}, epochs=2)
    plain = dataclasses.replace(config, run_dir=str(tmp_path / "plain"))
    pretrain(plain)
    runs_away(monkeypatch, calls=range(5, 8))
    pretrain(config)
    lines, calm = (RunDirectory(Path(c.run_dir)).read_metrics() for c in (config, plain))
    assert [line["step"] for line in lines] == [line["step"] for line in calm]
    first = next(place for place, line in enumerate(lines) if line.get("rollbacks"))
    assert first > 0
    for place, (line, other) in enumerate(zip(lines, calm, strict=True)):
        assert line["lr"] == pytest.approx(other["lr"] * (1 if place < first else 0.5))
    assert state(config.run_dir)["rollbacks"] == 1


def test_gradient_cosine_is_that_of_gradients_taken_apart(tmp_path):
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    cosine = gradient_cosine(w.square().sum() / 2, w[0], [w, unused])
    assert cosine["gradient_cosine"].item() == pytest.approx(0.6)
    assert gradient_cosine(0 * w.sum(), w[0], [w]) == {}
    for kind, measured in (("ebclr", True), ("ebm", False)):
        lines = RunDirectory(pretrain(settings(tmp_path / kind, **KINDS[kind], log_every_steps=2))).read_metrics()
        assert all(("image_gradient_cosine" in line) == measured for line in lines if "loss" in line)
        assert all(-1 <= line.get("image_gradient_cosine", 0) <= 1 for line in lines)


def test_gradients_are_compared_only_where_a_line_is_written(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(term_module, "gradient_cosine", lambda *given: calls.append(1) or {})
    pretrain(settings(tmp_path / "run", **KINDS["ebclr"], log_every_steps=2))
    assert len(calls) == 2  # after updates 2 and 3, the last


def test_without_a_joint_embedding_there_is_no_collapse_to_warn_of(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "collapse_sign", lambda z: "flat")
    for objective, warned in ((NONE, False), (SIMCLR, True)):
        config = settings(tmp_path / objective["name"], objective=objective, epochs=3)
        lines = RunDirectory(pretrain(config)).read_metrics()
        assert any("collapse" in line for line in lines) == warned


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path, monkeypatch):
    config = settings(tmp_path / "run", generative={**PLAIN, "patience": 1}, epochs=2)
    runs_away(monkeypatch, calls=range(1000))
    with pytest.raises(TrainingStopped, match="diverged at update"):
        pretrain(config)
    assert not RunDirectory(Path(config.run_dir)).checkpoint.exists()


def test_lost_chains_start_again_and_their_update_is_skipped(tmp_path, monkeypatch):
    run = prepare(settings(tmp_path / "run", generative={**PLAIN, "chains": {"size": 24, "restart": 0.0}}))
    sample = type(term_of(run).sampler).__call__

    def loses_one(self, energy, x, *, generator=None, age=None):
        chains = sample(self, energy, x, generator=generator, age=age)
        chains.x[3] = float("nan")
        return chains

    update(run, run.model)
    monkeypatch.setattr(type(term_of(run).sampler), "__call__", loses_one)
    before = [p.detach().clone() for p in run.model.parameters()]
    update(run, run.model)
    assert all(torch.equal(a, p) for a, p in zip(before, run.model.parameters(), strict=True)) and run.skipped == 1
    buffer = term_of(run).buffer
    assert buffer.images.isfinite().all() and sorted(buffer.age.tolist()) == [0] + [2] * 23
    assert not allows_checkpoint(run) and "not finite" in term_of(run).alarm.sign


# ------------------------------------------------------------------ what is loaded


def test_a_trained_model_keeps_its_image_energy_and_samples(tmp_path):
    path = pretrain(settings(tmp_path / "run"))
    model, run = ssl_ebm.load(path), prepare(settings(tmp_path / "other"))
    restore(run, state(path))
    x = torch.rand(4, 1, SIZE, SIZE)
    run.model.eval()
    with torch.no_grad():
        expected = term_of(run).head(run.model.encoder(x))
    assert torch.allclose(model.image_energy(x), expected, atol=1e-5)
    told = []
    samples = model.sample(3, progress=told.append)
    assert samples.images.shape == (3, 1, SIZE, SIZE) and sum(told) == 40  # 2 steps a call, restarted every 20th
    assert samples.temperature == 0.01**2 / 2 and not samples.adversarial
    assert torch.equal(model.sample(3).images, samples.images)
    assert torch.allclose(model.image_energy(samples.images), samples.energy, atol=1e-5)
    near = model.sample(x0=x, steps=1).images
    assert 0 < float((near - x).abs().mean()) < 0.2
    pairs = model.sample(given=x, steps=2)
    assert pairs.images.shape == x.shape and not pairs.adversarial
    assert torch.allclose(pairs.energy, model.energy(x, pairs.images), atol=1e-5)


def test_images_of_a_class_lower_its_energy(tmp_path):
    model = ssl_ebm.load(pretrain(settings(tmp_path / "run", **KINDS["jem"])))
    start = torch.rand(4, 1, SIZE, SIZE)

    def energy(x):
        return -model.embed(x)[:, 2].mean().item()

    samples = model.sample(x0=start, label=2, steps=20)
    assert energy(samples.images) < energy(start)
    with pytest.raises(ValueError, match=r"label must be in \[0, 2\], got 3"):
        model.sample(2, label=3)


def test_the_joint_head_needs_a_bank(tmp_path):
    model = ssl_ebm.load(pretrain(settings(tmp_path / "run", **KINDS["ebclr"])))
    bank, x = torch.rand(6, 1, SIZE, SIZE), torch.rand(2, 1, SIZE, SIZE)
    expected = -(-model.energy_matrix(x, bank)).logsumexp(1)
    assert torch.allclose(model.image_energy(x, bank=bank), expected, atol=1e-4)
    assert model.sample(2, bank=bank, steps=1).images.shape == x.shape
    with pytest.raises(ValueError, match="give bank=images"):
        model.sample(2)


def test_a_joint_embedding_alone_is_probed_adversarially(tmp_path):
    path = pretrain(settings(tmp_path / "run", norm=None, generative=None, objective={"name": "simclr"}))
    model, x = ssl_ebm.load(path), torch.rand(3, 1, SIZE, SIZE)
    assert model.head is None and state(path)["terms"] == {}
    with pytest.raises(ValueError, match="BatchNorm.*GroupNorm or LayerNorm"):
        model.sample(given=x)
    samples = model.sample(given=x, convert_batch_norm=True, steps=5)
    assert samples.adversarial
    noise = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert float(model.energy(x, samples.images).sum()) < float(model.energy(x, noise).sum())
    with pytest.raises(ValueError, match="no energy of single images: train one with a section generative"):
        model.sample(3)


def test_mistakes_in_samples_are_named(tmp_path):
    model, x = ssl_ebm.load(pretrain(settings(tmp_path / "run"))), torch.rand(3, 1, SIZE, SIZE)
    for options, message in [
        ({"x0": x * 255}, "divide uint8 images by 255"),
        ({"x0": x * float("nan")}, "must be finite"),
        ({}, "needs n >= 1"),
        ({"n": 2, "x0": x}, "x0 and given of n images each, got n=2"),
        ({"n": 2, "label": 1}, "generative.head=logits"),
        ({"given": x, "label": 1}, "given images or a label, not both"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            model.sample(**options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": None}, "BatchNorm.* couples the samples.*norm_layer=groupnorm1"),
        ({"norm": None, "objective": {"name": "simclr"}}, "BatchNorm"),
        ({"generative": {**PLAIN, "head": {"name": "scaler"}}}, "did you mean 'scalar'"),
        ({"generative": {**PLAIN, "loss": {"name": "sliced", "levels": 2}}}, "'sliced' 'levels'"),
        (
            {"generative": {**PLAIN, "sampler": {"name": "mala"}}},
            "needs step_size: generative.sampler.step_size",
        ),
        (
            {"generative": {**PLAIN, "sampler": {**SGLD, "step": 1}}},
            "unknown argument of generative.sampler 'sgld' 'step'",
        ),
        ({"generative": {**PLAIN, "chains": {"size": 10}}}, "size=10 is less than the 24 chains"),
        ({"generative": {**PLAIN, "chains": {"start": "dat"}}}, "did you mean 'data'"),
        ({"generative": {**PLAIN, "chains": {"start": "data", "count": 25}}}, "at most the batch's 24 images, got 25"),
        ({"generative": {**PLAIN, "chain": {}}}, "did you mean 'generative.chains'"),
        ({"generative": {**PLAIN, "weight": 0.0}}, "generative.weight must be > 0"),
        ({"generative": {**PLAIN, "warmup": 2.0}}, "warmup is a fraction"),
        ({"generative": {**PLAIN, "patience": 0}}, "patience must be >= 1"),
        (
            {"generative": {**PLAIN, "head": {"name": "free_energy"}}},
            "free_energy and generative.sampler.name=gibbs together",
        ),
        ({"generative": {**PLAIN, "sampler": {"name": "gibbs"}}}, "together, got scalar and gibbs"),
        ({"generative": KINDS["rbm"]["generative"]}, "is an RBM's, got a ResNet: set encoder.name=rbm"),
        ({**KINDS["rbm"], "encoder": {"name": "rbm"}}, "set encoder.kwargs.img_size=12"),
        ({**KINDS["rbm"], "encoder": {"name": "rbm", "pretrained": True}}, "set encoder.pretrained=false"),
        (
            {"generative": {**KINDS["rbm"]["generative"], "loss": {"name": "denoising"}}},
            "denoising needs images that vary continuously",
        ),
        ({"generative": None}, "objective none trains nothing by itself: add a section generative"),
        (
            {
                "generative": {
                    **PLAIN,
                    "sampler": {"name": "mala", "step_size": 0.1},
                    "loss": {"name": "maximum_likelihood", "divergence_weight": 1.0},
                }
            },
            "got sampler mala",
        ),
    ],
)
def test_mistakes_in_the_section_are_named_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message) as error:
        pretrain(settings(tmp_path / "run", **changes))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generative": {**PLAIN, "loss": {"name": "latent_guided"}}}, "needs generative.head=norm"),
        ({**KINDS["clel"], "objective": NONE, "views": 1}, "z from a second view: set views.views=2"),
        ({**KINDS["ebclr"], "objective": NONE, "views": 1}, "set views.views=2"),
    ],
)
def test_parts_that_do_not_go_together_stop_the_first_update(changes, message, tmp_path):
    run = prepare(settings(tmp_path / "run", **changes))
    with pytest.raises(ValueError, match=message):
        update(run, run.model)


def test_a_damaged_buffer_in_a_checkpoint_is_named(tmp_path):
    config = settings(tmp_path / "run")
    path = RunDirectory(pretrain(config)).checkpoint
    whole = state(config.run_dir)
    for change, message in [
        ({"buffer.images": torch.empty(0, 1, SIZE, SIZE)}, "replay buffer is empty"),
        ({"buffer.images": torch.zeros(30, 1, SIZE, SIZE)}, "holds 30×1×12×12 images.*this one 40×1×12×12"),
    ]:
        save_checkpoint(path, {**whole, "terms": {"generative": whole["terms"]["generative"] | change}})
        with pytest.raises(ValueError, match=message) as error:
            prepare(config, resume=True)
        assert "\n" not in str(error.value)


def test_a_run_without_the_section_pays_nothing(tmp_path):
    run = prepare(settings(tmp_path / "run", generative=None, objective=SIMCLR))
    assert run.terms == {} and allows_checkpoint(run) and len(run.parts) == 2
    save(run)
    assert state(tmp_path / "run")["terms"] == {}
