"""Code of the user's: trained, loaded and evaluated; and never imported because a run names it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import ssl_ebm
from ssl_ebm.cli import main
from ssl_ebm.data.image_files import DataError
from ssl_ebm.evaluation.energy import of_pairs
from ssl_ebm.evaluation.evaluate import evaluate
from ssl_ebm.report.compare import compare
from ssl_ebm.report.samples import sample
from ssl_ebm.run_directory import RunDirectory, load_checkpoint
from ssl_ebm.study import worker
from ssl_ebm.study.plan import load_study, plan
from ssl_ebm.study.results import study_results
from ssl_ebm.study.state import config_file, write_configs
from ssl_ebm.user_code import MissingPart, Parts, import_part, is_import_name, part_name

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text(), re.M | re.S)
FILES = {found[1]: code for _, code in BLOCKS if (found := re.match(r"# (\w+\.(?:py|yaml))\n", code))}
IMPORT_NAMES = {
    "objective": "my_objectives:margin",
    "data": "my_data:shapes",
    "encoder": "my_encoders:Convolution",
    "views": "my_views:noisy",
}
SPY = "from pathlib import Path\nPath('imported').touch()\n"


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory):
    """A user's directory, with the files of the guide and a module that leaves a trace where it is imported."""
    folder = tmp_path_factory.mktemp("user")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    (folder / "spy.py").write_text(SPY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_pairs, "foreign_sets", lambda config, splits: {"noise": splits.test.images.flip(-1)})
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield folder
    for name in [*(Path(file).stem for file in FILES), "spy"]:
        sys.modules.pop(name, None)


def things():
    return {kind: import_part(name) for kind, name in IMPORT_NAMES.items()}


def settings(run_dir, **training):
    shown = {"epochs": 1, "batch_size": 32, "log_every_steps": 1, "knn_every_epochs": 0, "device": "cpu"}
    return {
        "run_dir": str(run_dir),
        "data": {"kwargs": {"count": 180}},
        "optimizer": {"warmup_epochs": 0},
        "training": {**shown, "precision": "float32", **training},
    }


def trained(run_dir, *, parts=None, **options):
    """A run of the user's parts, or of some of them."""
    return ssl_ebm.pretrain(settings(run_dir), **(things() if parts is None else parts), **options)


@pytest.fixture(scope="module")
def run(workplace):
    lines = []
    path = trained("runs/run", on_measure=lines.append)
    assert lines == RunDirectory(path).read_metrics() and [line["step"] for line in lines] == list(range(1, 5))
    return path


def copy_of(run, path, change=None):
    """A run directory as another one, its config changed as a stranger might."""
    path.mkdir(parents=True)
    config = OmegaConf.load(run / "config.yaml")
    for key, value in (change or {}).items():
        OmegaConf.update(config, key, value, merge=False)
    OmegaConf.save(config, path / "config.yaml")
    for name in ("encoder.safetensors", "metrics.jsonl"):
        (path / name).write_bytes((run / name).read_bytes())
    return path


def in_another_process(folder, *scripts):
    """Run scripts in a new interpreter in which a package with the guide's entry points is installed."""
    toml = next(code for language, code in BLOCKS if language == "toml")
    ini = re.sub(r'\[project\.entry-points\."(.+?)"\]', r"[\1]", toml).replace('"', "")
    site = folder / "site" / "mine-1.0.dist-info"
    site.mkdir(parents=True)
    shadow = "[ssl_ebm.objectives]\nsimclr = my_objectives:margin\n"
    (site / "entry_points.txt").write_text(ini.replace("[ssl_ebm.objectives]\n", shadow))
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder), str(site.parent)])}
    code = "\n".join(scripts)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


INSTALLED = """
assert isinstance(ssl_ebm.create_objective("margin", margin=3.0).contrast, Margin)
assert not isinstance(ssl_ebm.create_objective("simclr").contrast, Margin), "a built-in wins"
try:
    ssl_ebm.create_objective("margim")
except ValueError as error:
    assert "did you mean 'margin'" in str(error)
run = ssl_ebm.pretrain("installed.yaml")
model = ssl_ebm.load(run)  # what is installed is trusted
assert model.missing is None and model.encoder.num_features == 8
assert model.config.views == {"name": "noisy", "noise": 0.2} and not model.config.data.external
assert ssl_ebm.load_data(model.config.data).num_classes == 3
assert main(["objectives", "margin"]) == 0 and main(["objectives"]) == 0
"""


def test_every_block_of_the_guide_runs(workplace, capsys):
    names, for_another_process = {}, []
    for language, code in BLOCKS:
        if language == "python" and code.startswith("# in another process\n"):
            for_another_process.append(code)
        elif language == "bash":
            for line in code.replace("\\\n", " ").splitlines():
                assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
        elif language == "python" and not re.match(r"# \w+\.py\n", code):
            try:
                exec(compile(code, "docs/extending.md", "exec"), names)
            except DataError as error:
                pytest.skip(str(error))
    assert [line["step"] for line in names["lines"]] == [6]
    assert names["features"].isfinite().all() and names["features"].shape[0] == 256
    imports = "from ssl_ebm.cli import main\nfrom ssl_ebm.objectives.parts import Margin\n"
    done = in_another_process(workplace, *for_another_process, imports, INSTALLED)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([5, 32]) the run's objective is my_objectives:margin" in done.stdout
    assert "margin, of the package mine" in done.stdout and "E⁺ - E⁻" in done.stdout
    recorded = OmegaConf.to_container(OmegaConf.load("runs/third/config.yaml"))
    assert recorded["objective"] == {"name": "my_objectives:margin", "external": True, "margin": 0.5}


def test_the_loop_of_the_guide_is_short():
    (loop,) = [code for _, code in BLOCKS if "update_teacher" in code]
    assert len([line for line in loop.splitlines() if line.strip()]) <= 40


def test_the_config_records_what_was_given(run):
    config = ssl_ebm.load_config(run / "config.yaml")
    assert config.objective == {"name": "my_objectives:margin", "external": True}
    assert config.views == {"name": "my_views:noisy", "external": True}
    assert (config.encoder.name, config.encoder.external) == ("my_encoders:Convolution", True)
    assert (config.data.name, config.data.external, config.data.kwargs) == ("my_data:shapes", True, {"count": 180})
    assert re.fullmatch("[0-9a-f]{16}", config.data.fingerprint)


def test_without_the_objective_features_are_there_and_its_energy_is_not(run):
    x = torch.rand(4, 1, 16, 16)
    parts = things()
    whole = ssl_ebm.load(run, encoder=parts["encoder"], objective=parts["objective"])
    model = ssl_ebm.load(run, encoder=parts["encoder"])
    assert whole.missing is None and torch.equal(model.embed(x), whole.embed(x))
    assert torch.allclose(whole.energy(x, x.flip(0)), whole.energy_matrix(x, x.flip(0)).diagonal(), atol=1e-6)
    wanted = r"objective is my_objectives:margin.*give it again \(objective=, --objective my_objectives:margin\)"
    for ask in (
        lambda: model.energy(x, x),
        lambda: model.energy_matrix(x, x),
        lambda: model.free_energy(x, x),
        lambda: model.index(x),
        lambda: model.canonical(torch.stack([x, x])),
        lambda: model.sample(given=x, steps=1, convert_batch_norm=True),
    ):
        with pytest.raises(MissingPart, match=wanted):
            ask()


def test_parts_that_are_missing_or_needless_are_named(run, tmp_path):
    parts = things()
    with pytest.raises(MissingPart, match="the run's encoder is my_encoders:Convolution"):
        ssl_ebm.load(run)
    with pytest.raises(MissingPart, match="cannot be evaluated: the run's data is my_data:shapes"):
        evaluate(run, **{**parts, "data": None}, force=True)
    with pytest.raises(MissingPart, match="the run's views is my_views:noisy"):
        evaluate(run, **{**parts, "views": None}, force=True)
    with pytest.raises(MissingPart, match="my_losses:Alignment is another"):
        ssl_ebm.load(run, encoder=parts["encoder"], objective="my_losses:Alignment")
    with pytest.raises(ValueError, match="has other images or labels than the run was made with"):
        evaluate(run, **{**parts, "data": lambda count: import_part("my_data:shapes")(count + 3)}, force=True)
    with pytest.raises(ValueError, match="weights of .* do not fit"):
        ssl_ebm.load(run, encoder=lambda in_chans, image_size: parts["encoder"](in_chans, image_size, 5))
    built_in = trained(tmp_path / "run", parts={key: parts[key] for key in ("data", "encoder")})
    with pytest.raises(ValueError, match="the run's objective is simclr, which needs no objective="):
        ssl_ebm.load(built_in, objective=parts["objective"])


def test_results_without_the_objective_are_completed_once_it_is_given(run, tmp_path, capsys):
    path, parts = copy_of(run, tmp_path / "runs" / "run"), things()
    features_only = {**parts, "objective": None}
    first = evaluate(path, **features_only)
    assert "give it again" in capsys.readouterr().err
    assert first["energy"]["trained"] is None and "objective" in first["missing"]
    assert set(first["ood"]["noise"]) == {"knn", "mahalanobis"} and not (path / "gallery.npz").exists()
    assert first["objective"] == {
        "name": "my_objectives:margin",
        "family": "external",
        "energy": "‖x - x'‖²/D",
        "conservative": True,
        "surrogate": False,
        "reads_labels": False,
    }
    comparison = compare([path])
    row = comparison.rows[0].values
    assert row["auroc"] is None and row["knn"] == first["rows"]["encoder"]["knn"]["headline"]["accuracy"]
    assert any("has no energies: the run's objective is my_objectives:margin" in note for note in comparison.warnings)
    assert "<!DOCTYPE html>" in comparison.write(tmp_path / "report.html").read_text()
    assert evaluate(path) == json.loads(json.dumps(first)), "stored results need nothing"

    second = evaluate(path, **parts)
    assert "missing" not in second and 0 < second["energy"]["trained"]["anchor_auroc"] <= 1
    assert second["rows"]["encoder"]["linear"] == first["rows"]["encoder"]["linear"]
    assert compare([path]).rows[0].values["auroc"] == second["energy"]["trained"]["anchor_auroc"]
    with np.load(path / "pairs.npz") as pairs:
        assert set(pairs) == {"trained", "features", "kind"}


@pytest.mark.parametrize("record", [{"external": True}, {}], ids=["recorded", "forged"])
def test_nothing_that_a_run_names_is_imported_by_itself(record, run, tmp_path, monkeypatch, capsys):
    """Neither a module that leaves a trace nor `os.system` with its argument."""
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    parts = things()
    for objective in ({"name": "os:system", "command": "touch imported"}, {"name": "spy:make"}):
        stranger = copy_of(run, tmp_path / objective["name"], {"objective": {**objective, **record}})
        model = ssl_ebm.load(stranger, encoder=parts["encoder"])
        with pytest.raises(MissingPart, match=f"the run's objective is {objective['name']}"):
            model.energy(torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16))
        with pytest.raises(MissingPart, match="cannot be sampled"):
            sample(stranger, encoder=parts["encoder"], data=parts["data"])
        assert main(["export", str(stranger), f"{tmp_path}/w.safetensors", "--encoder", IMPORT_NAMES["encoder"]]) == 0
    evaluate(tmp_path / "os:system", **{**parts, "objective": None})
    compare([tmp_path / "os:system"], **parts)
    assert main(["evaluate", f"{tmp_path}/os:system"]) == 0, "what is stored needs nothing"
    everything = {"data.name": "spy:data", "encoder.name": "spy:net", "views.name": "spy:views"}
    external = {f"{kind}.external": bool(record) for kind in ("data", "encoder", "views")}
    stranger = copy_of(run, tmp_path / "all", {**everything, **external})
    for ask in (ssl_ebm.load, evaluate, sample, lambda path: compare([path])):
        with pytest.raises(MissingPart, match="spy"):
            ask(stranger)
    for command in ("evaluate", "compare", "sample"):
        capsys.readouterr()
        assert main([command, str(stranger)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    with pytest.raises(ValueError, match="give data="):
        ssl_ebm.load_data(ssl_ebm.load_config(stranger / "config.yaml").data)
    assert not Path("imported").exists() and "spy" not in sys.modules


def test_a_trusted_run_imports_what_it_names(run, tmp_path):
    """So that the test above could fail."""
    stranger = copy_of(run, tmp_path / "run", {"objective": {"name": "spy:make", "external": True}})
    with pytest.raises(ValueError, match="spy:make cannot be imported"):
        ssl_ebm.load(stranger, encoder=IMPORT_NAMES["encoder"], trust=True)
    assert Path("imported").exists()
    Path("imported").unlink()
    del sys.modules["spy"]
    assert ssl_ebm.load(run, trust=True).missing is None


def test_a_recorded_config_trains_again_only_with_its_parts(run, tmp_path):
    again = [f"run_dir={tmp_path}/again"]
    with pytest.raises(MissingPart, match="the run's objective is my_objectives:margin"):
        ssl_ebm.pretrain(run / "config.yaml", again)
    assert not (tmp_path / "again").exists()
    ssl_ebm.pretrain(run / "config.yaml", again, trust=True)
    states = [load_checkpoint(RunDirectory(path).checkpoint)["model"] for path in (run, tmp_path / "again")]
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


def test_a_run_of_ones_own_parts_is_resumed_exactly(tmp_path):
    parts = {**things(), "objective": import_part("my_losses:Alignment")}

    class Stop(Exception):
        pass

    def stop_at_six(line):
        if line["step"] == 6:
            raise Stop

    shown = {"epochs": 2, "checkpoint_every_steps": 3}
    whole = ssl_ebm.pretrain(settings(tmp_path / "whole", **shown), **parts)
    with pytest.raises(Stop):
        ssl_ebm.pretrain(settings(tmp_path / "parts", **shown), **parts, on_measure=stop_at_six)
    config = settings(tmp_path / "parts", **shown)
    with pytest.raises(ValueError, match="objective.name: my_losses:Alignment → my_objectives:margin"):
        ssl_ebm.pretrain(config, **{**parts, "objective": IMPORT_NAMES["objective"]}, resume=True)
    resumed = ssl_ebm.pretrain(config, **parts, resume=True)
    states = [load_checkpoint(RunDirectory(path).checkpoint) for path in (whole, resumed)]
    assert states[0]["step"] == states[1]["step"] == 8
    for key in ("model", "objective"):
        assert all(torch.equal(states[0][key][name], states[1][key][name]) for name in states[0][key])


def test_modules_that_are_given_stay_as_they_are(tmp_path):
    """A function without an import name, and instances, are recorded by their names and taken again."""
    encoder, objective = import_part("my_encoders:Convolution")(1, 16), ssl_ebm.create_objective("simclr")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    parts = {"encoder": encoder, "objective": objective, "data": import_part("my_data:shapes")(90)}
    run = trained(tmp_path / "run", parts=parts)
    config = ssl_ebm.load_config(run / "config.yaml")
    assert config.objective == {"name": "Objective", "external": True} and config.encoder.name == "Convolution"
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    model = ssl_ebm.load(run, encoder=encoder, objective=objective)
    assert any(not torch.equal(before[name], value) for name, value in model.encoder.backbone.state_dict().items())
    with pytest.raises(MissingPart, match=r"is Convolution, code that no run brings: give it again \(encoder=\)"):
        ssl_ebm.load(run)


def test_images_are_sampled_and_energies_of_images_do_without_the_objective(run, tmp_path):
    parts = {kind: part for kind, part in things().items() if kind != "views"}
    picture = sample(run, **parts, count=2, steps=1, convert_batch_norm=True)
    assert picture.path.is_file() and "adversarial" in picture.lines[0]
    generative = {"head": {"name": "scalar"}, "sampler": {"name": "sgld", "steps": 1}, "chains": {"start": "noise"}}
    x, models = torch.rand(3, 1, 16, 16), {}
    for head in ("scalar", "joint"):
        config = settings(tmp_path / head) | {"generative": {**generative, "head": {"name": head}}}
        config["objective"] = {"name": IMPORT_NAMES["objective"], "projector": {"hidden_norm": False}}
        path = ssl_ebm.pretrain(config, **{**things(), "objective": None})
        models[head] = ssl_ebm.load(path, encoder=parts["encoder"])
    assert models["scalar"].image_energy(x).isfinite().all()
    with pytest.raises(MissingPart, match="the run's objective"):
        models["joint"].image_energy(x, bank=x)
    config["run_dir"] = str(tmp_path / "larger")
    with pytest.raises(ValueError, match="must have the images' 16 pixels, got 18"):
        ssl_ebm.pretrain(config, **{**things(), "objective": None, "views": larger_views})


def larger_views(images, generator):
    return torch.nn.functional.pad(images, (1, 1, 1, 1))[None].repeat(2, 1, 1, 1, 1) / 255


class Flat(torch.nn.Module):
    num_features = 7

    def forward(self, images):
        return images.flatten(1)


def grey_views(images, generator):
    return images[None] / 255


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"encoder": torch.nn.Flatten()}, "encoder Flatten must be, or make, an nn.Module with num_features"),
        ({"encoder": Flat()}, "Flat says num_features=7 and gives 256"),
        ({"encoder": lambda in_chans, image_size: torch.nn.Linear(3, 3)}, "with num_features, got Linear"),
        ({"views": lambda images, generator: images}, "views of .* must be one tensor of floating point"),
        ({"views": lambda images, generator: images / 255}, r"must be \['views', 2, 1, 'size', 'size'\]"),
        ({"views": lambda images, generator: images[None].float()}, r"must be in \[0, 1\], got values from"),
        ({"views": grey_views}, "needs at least 2 an image, got 1"),
        ({"objective": lambda: lambda embeddings: embeddings.projection.sum()}, "must return Step"),
        ({"objective": lambda *, size: None}, "needs size: objective.size="),
        ({"objective": "my_objectives:nothing"}, "my_objectives:nothing cannot be imported"),
        ({"objective": "nothing:here"}, "nothing:here cannot be imported"),
        ({"objective": "simcrl"}, "did you mean 'simclr'"),
        ({"data": 3}, "data must be Splits, a map-style torch Dataset, or arrays"),
    ],
)
def test_what_is_wrong_with_a_part_is_said(parts, message, tmp_path):
    parts = {"data": import_part("my_data:shapes")(90), "encoder": import_part("my_encoders:Convolution"), **parts}
    with pytest.raises((ValueError, TypeError), match=message):
        trained(tmp_path / "run", parts=parts)


def test_a_timm_model_is_probed_on_ones_own_images(tmp_path, capsys):
    command = ["evaluate", "--timm", "test_resnet", "--no-pretrained", "data.image_size=16", "--device", "cpu"]
    assert main([*command, "--data", IMPORT_NAMES["data"], "--out", str(tmp_path / "timm")]) == 0
    record = json.loads((tmp_path / "timm" / "evaluation.json").read_text())
    assert record["protocol"]["data"]["name"] == IMPORT_NAMES["data"] and record["protocol"]["sizes"]["test"] == 60
    assert main([*command, "--data", "nothing:here"]) == 2 and "nothing:here cannot" in capsys.readouterr().err


def test_names_of_parts():
    assert is_import_name("a.b:c.d")
    assert not any(map(is_import_name, ("resnet18", "a:b:c", "a/b:c", "a:", 3, "hf-hub:x")))
    assert part_name(import_part(IMPORT_NAMES["data"])) == IMPORT_NAMES["data"]
    assert part_name(lambda: None).endswith("<lambda>") and part_name(torch.nn.Linear(1, 1)) == "Linear"
    assert part_name(load_study) == "ssl_ebm.study.plan:load_study"
    with pytest.raises(ValueError, match="is named package.module:function, got 'margin'"):
        import_part("margin")


def test_each_run_takes_the_part_that_it_names():
    names = ["my_objectives:margin", "my_losses:Alignment"]
    parts = Parts(objective=names)
    for name in names:
        assert part_name(parts.find("objective", {"name": name, "external": True})) == name
    assert parts.find("objective", {"name": "simclr"}) is None
    with pytest.raises(MissingPart, match="my_objectives:margin, my_losses:Alignment is another"):
        parts.find("objective", {"name": "other:part"})
    assert Parts(objective=len).find("objective", {"name": "made", "external": True}) is len


def test_a_study_of_ones_own_objective(workplace, run, tmp_path):
    """Its workers get the code from the study's own config, and not from what lies in its directory."""
    names = {kind: IMPORT_NAMES[kind] for kind in ("data", "encoder", "views")}
    base = {key: value for key, value in settings("").items() if key != "run_dir"}
    small = {"name": "simclr", "objective": {"projector": {"hidden": [16], "out": 8}}}
    mapping = {"directory": str(tmp_path / "study"), "base": base, "objectives": [small], "seeds": [0]}
    study = load_study(mapping, objectives=[IMPORT_NAMES["objective"]], parts=names)
    runs = plan(study)
    assert [planned.label for planned in runs] == ["simclr", "margin"]
    write_configs(study, runs)
    for planned in runs:
        assert worker.main([str(config_file(study, planned))]) == 0
    results = study_results(study.path)
    assert set(results.runs) == {"simclr", "margin"} and results.table["margin"]["auroc"]["mean"] is not None
    forged = OmegaConf.load(runs[1].path / "config.yaml")
    forged.objective = {"name": "spy:make", "external": True}
    OmegaConf.save(forged, runs[1].path / "config.yaml")
    (runs[1].path / "evaluation.json").unlink()
    assert worker.main([str(config_file(study, runs[1]))]) == 0
    assert "missing" in json.loads((runs[1].path / "evaluation.json").read_text())
    assert study_results(study.path).table["margin"]["auroc"]["mean"] is None
    assert not Path("imported").exists() and "spy" not in sys.modules
    with pytest.raises(ValueError, match="unknown objective 'margim'"):
        load_study(mapping, objectives=["margim"])
