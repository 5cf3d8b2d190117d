"""Named sets of heads as files, and their ablation by a study."""

import json
import os

import numpy as np
import pytest
from synthetic_run import Sizes, make_run
from test_cli import ABLATION, jaxheads

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.heads import parse_heads, singles, uniform
from jaxheads.heads.set_files import read_sets, write_sets
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.ablation.study import Inputs, chosen_sets
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import Prepared
from jaxheads.studies.run import stated_config
from jaxheads.weights.model import load

pytestmark = pytest.mark.usefixtures("quick_compilation")
SHAPE = (3, 6)  # of the model folder's model


def named(**sets) -> dict[str, np.ndarray]:
    return {name: parse_heads(heads, SHAPE) for name, heads in sets.items()}


def test_sets_are_read_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    sets = {f"draw {n}: [é]": uniform(rng, (7, 11), n) for n in (5, 1, 77)}
    path = tmp_path / "a folder" / "sets.json"
    write_sets(path, sets, "ab" * 32)
    for shape, params in ((None, None), ((7, 11), None), ((7, 11), "ab" * 32)):
        back = read_sets(path, shape, params)
        assert list(back) == list(sets), "in the file's order"
        for name, heads in back.items():
            assert heads.dtype == bool and (heads == sets[name]).all()
    assert os.listdir(path.parent) == ["sets.json"]
    said = json.loads(path.read_text(encoding="utf-8"))
    assert said["shape"] == [7, 11] and said["params_sha256"] == "ab" * 32


def test_sets_of_another_model_are_refused_and_sets_of_any_are_not(tmp_path):
    path = tmp_path / "sets.json"
    write_sets(path, named(a=["0.1"]), "ab" * 32)
    with pytest.raises(UserError, match="3 layers of 6 heads, but this one has 6 of 3"):
        read_sets(path, (6, 3))
    with pytest.raises(UserError, match=r"other params \(abababababab..., these are c"):
        read_sets(path, SHAPE, "cd" * 32)
    write_sets(path, named(a=["0.1"]))
    assert read_sets(path, SHAPE, "cd" * 32)["a"].sum() == 1


def test_what_is_no_set_is_not_written(tmp_path):
    for sets, sentence in (
        ({}, "these are 0 of shapes none"),
        ({"a": np.ones(3, bool)}, r"shapes \[3\]"),
        (named(a=["0.1"]) | {"b": np.ones((2, 2), bool)}, r"shapes \[2, 2\], \[3, 6\]"),
        (named(a=["0.1"], b=[]), "set 'b' must have a name and a head"),
        ({"": np.ones(SHAPE, bool)}, "set '' must have a name"),
    ):
        with pytest.raises(UserError, match=sentence):
            write_sets(tmp_path / "sets.json", sets)
    assert not list(tmp_path.iterdir())


def text(sets='{"a": ["0.1"]}', shape="[3, 6]", schema=1) -> str:
    return f'{{"schema": {schema}, "shape": {shape}, "sets": {sets}}}'


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (text('{"far": ["0.1", "3.0"]}'), "set 'far': head 3.0 is out of range"),
        (text('{"odd": ["0-1"]}'), "set 'odd': a head is written"),
        (text('{"numbers": [20.5]}'), r'set \'numbers\' must .*"20.5".*not \[20.5\]'),
        (text('{"none": []}'), "set 'none' must have"),
        (text('{"a": ["0.1"], "a": ["0.2"]}'), "has 'a' twice"),
        (text("{}"), "sets must be one or more"),
        (text("[1]"), "sets must be one or more"),
        (text(shape="[3, 0]"), r"shape must be \[layers, heads\]"),
        (text(shape="[2147483647, 4]"), r"shape must be \[layers, heads\] of a model"),
        (text(schema=2), "schema 2"),
        ('{"schema": 1}', "no shape, sets"),
        ("[]", "no schema, shape, sets"),
        ("{", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        (None, "No such file"),
    ],
)
def test_a_file_that_holds_no_sets_is_refused_by_name(written, sentence, tmp_path):
    path = tmp_path / "mine.json"
    if written is not None:
        path.write_text(written)
    with pytest.raises(UserError, match=sentence) as refused:
        read_sets(path)
    assert "mine.json" in str(refused.value)


@pytest.fixture(scope="module")
def scored(model_folder, tmp_path_factory):
    """A run with made-up scores of the model folder's model."""
    model = load(model_folder)
    made = make_run(sizes=Sizes(layers=3, heads=6), parts=("scores",))
    made.result["model"]["params_sha256"] = model.provenance.params_sha256
    fill = np.random.default_rng(0).normal(size=(3, 6, model.config.head_dim))
    made.arrays["fv/mean_heads"] = fill.astype(np.float32)
    path = tmp_path_factory.mktemp("scored") / "run"
    return runs.RunFolder(path, "scores", {}, {}).finish(made.result, made.arrays).path


def ablate(capfd, model_folder, scored, *more):
    arguments = ["ablate", model_folder, "--shots=3", *ABLATION, "--ranking", scored]
    return jaxheads(capfd, *arguments, *more)


def test_every_set_of_a_file_is_ablated(model_folder, scored, capfd, tmp_path):
    file, out = tmp_path / "sets.json", tmp_path / "run"
    # Two of one size, and a name that is markup to the terminal and to the page.
    sets = named(**{"one [bold]": ["0.1"], "<b>": ["2.5"], "two": ["0.1", "1.4"]})
    model = runs.load(scored).result["model"]["params_sha256"]
    write_sets(file, sets, model)
    options = ("--ablation.sets", file, "--ablation.heads", "0.1", "-o", out)
    code, said, error = ablate(capfd, model_folder, scored, *options)
    assert code == 0, error
    assert "one [bold]" in said and "<b>" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page and "(<b>)" not in page
    run = runs.load(out)
    told = run.result["ablation"]["sets"][-4:]
    assert [one["name"] for one in told] == [*sets, "0.1"]
    for one, replaced in zip(told, run.arrays["ablation/replaced"][-4:], strict=True):
        assert one["mode"] == "chosen" and one["largest_change"] > 0
        assert (replaced == sets.get(one["name"], sets["one [bold]"])).all()
    same = run.arrays["ablation/f1"][[-4, -1]]
    assert (same[0] == same[1]).all(), "one set, twice"


def test_the_sets_and_not_their_file_decide_which_run_it_is(model_folder, tmp_path):
    model, file = load(model_folder), tmp_path / "sets.json"
    sets = named(a=["0.1"], b=["2.5", "0.2"])

    def stated(path):
        config = StudyConfig(ablation=AblationConfig(sets=path, heads=("1.1",)))
        own = chosen_sets(model, config.ablation)
        assert [one["name"] for one, _ in own][-1] == "1.1"
        inputs = Inputs({}, {}, config.ablation, 0, own=own)
        prepared = Prepared({"ablation": inputs}, {}, False)
        return stated_config(config, ("scores", "ablation"), None, prepared)

    write_sets(file, sets)
    first = stated(file)
    assert stated(file.rename(tmp_path / "moved.json")) == first
    # In another order the rows of an unfinished run would be mistaken for each other.
    for other in (dict(reversed(sets.items())), named(a=["0.1"], b=["2.5", "0.3"])):
        write_sets(file, other)
        assert stated(file) != first


def test_a_study_refuses_a_file_before_it_runs(model_folder, scored, capfd, tmp_path):
    file, out = tmp_path / "sets.json", tmp_path / "run"
    for write, sentence in (
        (lambda: file.write_text(text('{"far": ["0.6"]}')), "head 0.6 is out of range"),
        (
            lambda: write_sets(file, {"a": singles(np.ones((2, 6), bool))[0]}),
            "2 layers of 6",
        ),
        (lambda: write_sets(file, named(a=["0.1"]), "00"), "other params"),
    ):
        write()
        options = ("--ablation.sets", file, "-o", out)
        code, said, error = ablate(capfd, model_folder, scored, *options)
        assert code == 2 and sentence in error and not said
        assert not out.exists()


def test_a_run_states_the_options_of_its_parts_alone():
    stated = stated_config(StudyConfig(), ("ablation",))
    assert "ablation" in stated and "scores" in stated, "it needs scores"
    assert not {"token_loss", "execution", "redundancy", "attribution"} & set(stated)
    stated = stated_config(StudyConfig(), ("attribution",))
    assert "attribution" in stated and "scores" not in stated
    general = {"shots", "seed", "protocol", "drawing", "template", "no_label_overlap"}
    assert general < set(stated)
