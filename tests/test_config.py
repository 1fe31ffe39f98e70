"""A config is a file over the base that it names, changed by overrides; presets differ in what they compare."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from ssl_ebm.config import Config, compose, differences, load_config, merge, replace_value, save_config
from ssl_ebm.networks.encoder import EncoderConfig

ROOT = Path(__file__).parents[1]
PRESETS = sorted(path for path in (ROOT / "configs" / "fashion_mnist").glob("*.yaml") if path.stem != "base")
BASE = """\
run_dir: runs/${objective.name}
views: {name: grey, size: 20}
encoder: {name: resnet18, kwargs: {layers: [1, 1, 1, 1]}, output_stride: 16}
objective: {projector: {hidden: [512], out: 128}}
optimizer: {lr: 0.5, clip_norm: 3.0}
generative:
  head: {name: scalar, hidden: [8]}
  sampler: {name: sgld, steps: 7}
  chains: {count: 5}
"""


def written(folder, *, base=BASE, file="base: base.yaml\n"):
    """The path of a run's file, with its base beside it."""
    (folder / "base.yaml").write_text(base)
    (folder / "run.yaml").write_text(file)
    return folder / "run.yaml"


# the presets


SLOWER = {"optimizer.lr"}
MULTI_CROP = {"views.crop_scale", "views.local_views", "views.local_size"}
NEEDS = {  # what presets need besides their objective
    **dict.fromkeys(("corinfomax", "cpc", "jsd", "moco_v3", "msn", "simsiam", "spectral"), SLOWER),
    "nwj": SLOWER | {"optimizer.clip_norm"},
    "dino": SLOWER | MULTI_CROP | {"optimizer.clip_norm"},
    "swav": MULTI_CROP,
    "mcr2": SLOWER | {"views.views"},
    "emp_ssl": {"views.views", "training.batch_size"},
    "wmse": {"training.batch_size"},
}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_differ_in_their_objective_and_in_what_it_needs(path):
    """Each against simclr, which needs nothing, and so any two; the line of a need says why."""
    changed = [line.partition(":")[0] for line in differences(load_config(path.with_stem("simclr")), load_config(path))]
    changed = {key for key in changed if key != "run_dir" and not key.startswith("objective.")}
    assert changed == NEEDS.get(path.stem, set())
    lines = path.read_text().splitlines()
    for key in changed:
        assert any(line.startswith(f"  {key.split('.')[1]}: ") and " # " in line for line in lines), key


# a file over its base


def test_a_file_changes_its_base_key_by_key(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    text = "base: ../base.yaml\nobjective: {name: byol, projector: {out: 64}}\noptimizer: {lr: 0.25}\nseed: 3\n"
    (tmp_path / "runs").mkdir()
    written(tmp_path)
    (tmp_path / "runs" / "byol.yaml").write_text(text)
    config = load_config(tmp_path / "runs" / "byol.yaml", ["optimizer.weight_decay=0.125"])
    assert config.objective == {"name": "byol", "projector": {"hidden": [512], "out": 64}}
    assert (config.optimizer.lr, config.optimizer.clip_norm, config.optimizer.weight_decay) == (0.25, 3.0, 0.125)
    assert config.views == {"name": "grey", "size": 20} and config.encoder.output_stride == 16
    assert (config.seed, config.run_dir) == (3, "runs/byol")
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config and "base" not in (tmp_path / "resolved.yaml").read_text()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("encoder", {"name": "resnet34"}),
        ("views", {"name": "simclr", "views": 3}),
        ("generative.head", {"name": "norm"}),
        ("generative.sampler", {"name": "mala"}),
        ("objective.energy", {"name": "bilinear"}),
        ("objective", {"name": "byol"}),
    ],
)
def test_another_name_replaces_a_part_whole(part, value):
    """No argument of one encoder, sampler, ... reaches another; the sections around it are changed key by key."""
    base = {
        "encoder": {"name": "resnet18", "kwargs": {"layers": [1]}, "output_stride": 16},
        "views": {"name": "grey", "size": 20},
        "generative": {"head": {"name": "scalar", "hidden": [8]}, "sampler": {"name": "sgld", "steps": 7}, "weight": 2},
        "objective": {"name": "simclr", "temperature": 0.5, "energy": {"name": "cosine", "scale": 2}},
    }
    assert merge(base, replace_value({}, part, value)) == replace_value(base, part, value)
    *_, last = part.split(".")
    same_name = {"name": {"head": "scalar", "sampler": "sgld"}.get(last, base.get(last, {"name": "cosine"})["name"])}
    assert merge(base, replace_value({}, part, same_name)) == base


def test_images_and_optimiser_keep_what_every_name_shares():
    base = {"data": {"name": "cifar10", "limit": 500}, "optimizer": {"name": "adamw", "lr": 0.5, "warmup_epochs": 2}}
    changes = {"data": {"name": "svhn"}, "optimizer": {"name": "sgd", "lr": 1.0}}
    assert merge(base, changes) == {
        "data": {"name": "svhn", "limit": 500},
        "optimizer": {"name": "sgd", "lr": 1.0, "warmup_epochs": 2},
    }
    assert base["optimizer"]["lr"] == 0.5, "the base is not changed itself"


@pytest.mark.parametrize(
    ("base", "file", "message"),
    [
        (BASE, "base: bse.yaml", r"run.yaml: there is no base .*bse.yaml: it must be relative to the file"),
        (BASE, "base: run.yaml", r"run.yaml: base .*run.yaml names a base itself, 'run.yaml': only one level"),
        (
            "base: other.yaml",
            "base: base.yaml",
            r"run.yaml: base .*base.yaml names a base itself, 'other.yaml': only one",
        ),
        (BASE, "base: [base.yaml]", r"run.yaml: base must be the name of a file, got \['base.yaml'\]"),
        (BASE, "base: base.yaml\noptimiser: {}", r"run.yaml: unknown config key 'optimiser': did you mean 'optimizer'"),
        (
            "training: {epoch: 1}",
            "base: base.yaml",
            r"base.yaml: unknown config key 'training.epoch': did you mean 'tr",
        ),
        ("generative: {chains: {cuont: 1}}", "base: base.yaml", "base.yaml: .* did you mean 'generative.chains.count'"),
        ("- 3", "base: base.yaml", r"base.yaml must hold a mapping"),
        (
            BASE,
            "base: base.yaml\nrun_dir: '${objectiv.name}'",
            r"config key run_dir: Interpolation key 'objectiv.name'",
        ),
    ],
)
def test_mistakes_name_file_and_key(base, file, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_config(written(tmp_path, base=base, file=file))
    assert len(str(caught.value).splitlines()) == 1


def test_a_mapping_names_no_base():
    with pytest.raises(ValueError, match=r"only a file may name a base: merge the mapping with 'base.yaml'"):
        load_config({"base": "base.yaml"})
    with pytest.raises(ValueError, match="unknown config key 'base'"):
        load_config({}, ["base=base.yaml"])


# overrides


def test_a_mapping_on_the_command_line_replaces(tmp_path):
    path = written(tmp_path)
    config = load_config(path, ["encoder={name: resnet34, kwargs: {}}", "optimizer={name: sgd, lr: 1}"])
    assert config.encoder == EncoderConfig(name="resnet34") and config.optimizer.clip_norm is None
    config = load_config(path, ["encoder.name=resnet34", "objective.projector={out: 3}", "training={epochs: 3}"])
    assert (config.encoder.name, config.encoder.output_stride) == ("resnet34", 16)
    assert config.objective["projector"] == {"out": 3} and config.training.epochs == 3
    config = load_config(path, ["generative.sampler={name: mala, step_size: 2}", "generative.chains={size: 9}"])
    assert config.generative is not None and config.generative.sampler == {"name": "mala", "step_size": 2}
    assert (config.generative.chains.size, config.generative.chains.count) == (9, None)
    assert config.generative.head == {"name": "scalar", "hidden": [8]}
    assert load_config(path, ["generative=null"]).generative is None


def test_overrides_follow_one_another():
    views = ["views.size=9", "views={name: byol, views: 3}", "views.views=4"]
    assert load_config({"views": {"name": "grey"}}, views).views == {"name": "byol", "views": 4}
    given = {"objective": {"name": "custom", "contrast": "sigmoid"}}
    config = load_config(given, ["objective.contrast.name=margin", "objective.contrast.margin=2"])
    assert config.objective["contrast"] == {"name": "margin", "margin": 2}
    assert given == {"objective": {"name": "custom", "contrast": "sigmoid"}}


@pytest.mark.parametrize("text", ["007", "5e10713", "off", "null", "1_000", "a=b", "~/x", "[1]", "{a: 1}", "", " x"])
def test_text_is_taken_as_it_is(text):
    config = load_config({"data": {"root": "before"}}, [f"data.root={text}", f"run_dir={text}"])
    assert config.data.root == config.run_dir == text


def test_other_values_are_yaml():
    overrides = ["objective.temperature=1e-1", "objective.graph=null", "objective.flag=off", "views.crop_scale=[0.5,1]"]
    config = load_config({}, [*overrides, "training.epochs=3e-1", "data.limit=null", "training.channels_last=on"])
    assert config.objective == {"name": "simclr", "temperature": 0.1, "graph": None, "flag": False}
    assert config.views["crop_scale"] == [0.5, 1] and config.training.epochs == 0.3
    assert config.data.limit is None and config.training.channels_last is True


@dataclass(frozen=True)
class Section:
    label: str | None = "before"


@dataclass(frozen=True)
class Owner:
    section: Section = field(default_factory=Section)


def test_text_that_may_be_null():
    for text, value in (("null", None), ("007", "007"), ("off", "off")):
        assert compose(Owner, {}, [f"section.label={text}"]).section.label == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views={size: 9}", r"views=\{'size': 9\} replaces grey and must have a name; .* write views.size=\.\.\."),
        ("generative.head={}", r"generative.head=\{\} replaces scalar .* write generative.head.KEY="),
        ("views={size: 9", r"views=\{size: 9 is not valid YAML"),
        ("training.epochs=long", r"config key training.epochs: Value 'long' of type 'str' could not be converted"),
        ("training.epoch=1", "unknown config key 'training.epoch': did you mean 'training.epochs'"),
        ("encoder={nam: resnet18}", "replaces resnet18 and must have a name"),
        ("encoder={name: resnet18, kwarg: 1}", "unknown config key 'encoder.kwarg': did you mean 'encoder.kwargs'"),
        ("optimizer.lr", "an override must be key=value"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load_config(written(tmp_path), [override])
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_may_name_another_key(tmp_path):
    overrides = ["run_dir=runs/${objective.name}-${seed}", "seed=5", "objective={name: byol}"]
    assert load_config(written(tmp_path), overrides).run_dir == "runs/byol-5"


def test_overrides_leave_the_defaults_alone():
    before = asdict(Config())
    load_config({}, ["objective.temperature=1", "views={name: byol}", "encoder.kwargs={layers: [2]}"])
    assert asdict(Config()) == before
