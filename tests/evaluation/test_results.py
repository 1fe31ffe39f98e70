"""evaluation.json is described by dataclasses: the page that is made from them, and what is refused when it is read."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from example_measures import extend
from example_runs import write_run

from ssl_ebm.cli import main
from ssl_ebm.evaluation.described_json import as_markdown, mismatches
from ssl_ebm.evaluation.results import VERSION, Results, documentation
from ssl_ebm.evaluation.stored import current_results, read_results

ROOT = Path(__file__).parents[2]


@dataclass
class Inner:
    """A part.

    Attributes:
        size: How many, over
            two lines.
    """

    size: int


@dataclass
class Outer(Inner):
    """A whole."""

    name: Annotated[str, "a | b"]
    part: Inner | None = None
    parts: Annotated[dict[str, list[Inner]], "By kind."] = field(default_factory=dict)
    values: Annotated[list[float | None], "In order."] = field(default_factory=list)
    rest: Annotated[Any, "Anything."] = None


Outer.__doc__ += "\n\nAttributes:\n    part: One."
GOOD = {"size": 3, "name": "x", "part": {"size": 1}, "parts": {"a": [{"size": 2}]}, "values": [1, 0.5, None]}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, []),
        ({"part": None, "rest": [1, {"a": None}]}, []),
        ({"size": 3.0}, [("type", "size")]),
        ({"size": True}, [("type", "size")]),
        ({"size": None}, [("type", "size")]),
        ({"name": 3}, [("type", "name")]),
        ({"part": {}}, [("missing", "part.size")]),
        ({"part": []}, [("type", "part")]),
        (
            {"parts": {"a": [{"size": 1}, {"size": "1", "x": 0}]}},
            [("unknown", "parts.a.1.x"), ("type", "parts.a.1.size")],
        ),
        ({"parts": {"a": {}}}, [("type", "parts.a")]),
        ({"values": [1, "2", False]}, [("type", "values.1"), ("type", "values.2")]),
        ({"new": 1}, [("unknown", "new")]),
    ],
)
def test_what_differs_from_a_description_is_named_by_its_place(change, wrong):
    assert list(mismatches(GOOD | change, Outer)) == wrong


def test_what_is_not_there():
    assert list(mismatches({"parts": {}}, Outer)) == [("missing", "size"), ("missing", "name")]
    assert list(mismatches([GOOD], Outer)) == [("type", "")]


def test_a_description_as_markdown():
    text = as_markdown(Outer)
    assert text.index("## Outer\n\nA whole.\n") < text.index("## Inner\n\nA part.\n")
    for line in (
        "| size | integer | How many, over two lines. |",
        "| name | text | a \\| b |",
        "| part? | [Inner](#inner) or null | One. |",
        "| parts? | by name: list of [Inner](#inner) | By kind. |",
        "| values? | list of number or null | In order. |",
    ):
        assert f"\n{line}\n" in text


def test_documentation_is_up_to_date():
    assert (ROOT / "docs/results_schema.md").read_text() == documentation(), (
        "python -m ssl_ebm.evaluation.results > docs/results_schema.md"
    )


def test_made_up_results_are_what_evaluation_writes(tmp_path):
    run = extend(write_run(tmp_path / "run"))
    assert list(mismatches(json.loads((run / "evaluation.json").read_text()), Results)) == []


def changed(run, change):
    path = run / "evaluation.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["protocol"].update(version=VERSION - 1),
            f"of protocol version {VERSION - 1}, and only {VERSION} is",
        ),
        (lambda c: c.pop("protocol"), "of protocol version None"),
        (lambda c: c["rows"]["encoder"].pop("knn"), f"of protocol version {VERSION} lacks rows.encoder.knn:"),
        (lambda c: [c["energy"].pop(k) for k in ("trained", "features")], "lacks energy.trained, energy.features:"),
        (lambda c: c["rows"]["encoder"]["health"].update(rankme="high"), "another type at rows.encoder.health.rankme:"),
        (lambda c: c.update(rows={"encoder": {}}), "rows.encoder.energy: evaluate"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(change, message, tmp_path):
    path = changed(write_run(tmp_path / "run"), change)
    with pytest.raises(ValueError) as caught:
        read_results(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and message in text and "\n" not in text
    assert text.endswith(f"evaluate it again with ssl-ebm evaluate {tmp_path / 'run'} --force")


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_file_is_refused(content, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match="evaluate it again with"):
        read_results(run / "evaluation.json")
    with pytest.raises(FileNotFoundError, match="no results at"):
        read_results(tmp_path / "evaluation.json")


def test_a_new_number_of_a_later_writer_does_no_harm(tmp_path):
    path = changed(write_run(tmp_path / "run"), lambda content: content["rows"]["encoder"].update(new={"number": 1}))
    assert read_results(path)["rows"]["encoder"]["new"] == {"number": 1}


def test_results_are_current_if_they_are_of_these_weights_and_this_protocol(tmp_path):
    run = write_run(tmp_path / "run")
    path = run / "evaluation.json"
    weights = json.loads(path.read_text())["protocol"]["weights"]
    assert current_results(path, weights) == json.loads(path.read_text())
    assert current_results(path, "others") is None and current_results(tmp_path / "none.json", weights) is None
    changed(run, lambda content: content.pop("rows"))
    assert current_results(path, "others") is None
    with pytest.raises(ValueError, match="lacks rows:"):
        current_results(path, weights)
    changed(run, lambda content: content["protocol"].update(version=VERSION - 1))
    assert current_results(path, weights) is None, "it is evaluated again"


def test_compare_says_what_a_file_lacks(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    changed(run, lambda content: content["energy"].pop("trained"))
    assert main(["compare", str(run)]) == 2
    error = capsys.readouterr().err
    assert f"lacks energy.trained: evaluate it again with ssl-ebm evaluate {run} --force" in error
    assert error.count("\n") == 1
