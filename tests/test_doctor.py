"""What `jaxheads doctor` finds: nothing in whole models, and every planted fault."""

import dataclasses
import itertools
import json
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from families import CONFIGS, cast, random_params
from safetensors.numpy import load_file, save_file

from jaxheads import models
from jaxheads.__main__ import main
from jaxheads.engine.devices import make_mesh, shardings
from jaxheads.errors import UserError
from jaxheads.models import ablation, layers, llama
from jaxheads.report import receipt
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies import doctor
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.weights.model import Model, Provenance, load

pytestmark = pytest.mark.usefixtures("quick_compilation")

PLAIN = llama.Config(2, 18, 4, 2, 12, 30, 37, 64)
NAMES = ["of a", "of b", "of c"]
FAST = ("llama-gqa", "gemma2")
NUMBER = itertools.count()


def model_of(config, dtype=np.float32, mesh=None) -> Model:
    params = cast(random_params(config), dtype)
    if mesh is not None:
        abstract = llama.abstract(config)
        params = jax.device_put(params, shardings(abstract, mesh))
    origin = Provenance(
        "x", None, None, "x", "x", None, "", np.dtype(dtype).name, "x", {}, None, None
    )
    return Model(params, config, None, origin, "there is none in this folder")


def all_hold(checks) -> None:
    of_text, of_runs = checks[-len(doctor.TEXT) :], checks[: -len(doctor.TEXT)]
    assert [check.name for check in of_runs] == [doctor.FINITE, *doctor.RUNS]
    assert not [str(check) for check in of_runs if not check.holds]
    assert {check.where for check in of_text} == {"there is none in this folder"}
    assert {check.holds for check in of_text} == {None}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in CONFIGS
    ],
)
def test_everything_holds_of_every_family(name):
    all_hold(doctor.examine(model_of(CONFIGS[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_everything_holds_in_narrow_dtypes(name, dtype):
    all_hold(doctor.examine(model_of(CONFIGS[name], dtype)))


@pytest.mark.slow
def test_everything_holds_on_several_devices():
    config = llama.Config(2, 16, 4, 2, 8, 32, 48, 64)
    all_hold(doctor.examine(model_of(config, mesh=make_mesh("2x2"))))


def case_of(config, params=None) -> doctor.Case:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (3, 9))
    params = random_params(config) if params is None else params
    return doctor.Case(params, config, tokens, [9, 5, 7], NAMES)


def planted(monkeypatch, **changed) -> doctor.Case:
    """A case of a family that is Llama but for some of its functions."""
    name = f"planted_{next(NUMBER)}"
    module = types.ModuleType(f"jaxheads.models.{name}")
    public = {key: value for key, value in vars(llama).items() if key[:2] != "__"}
    vars(module).update(public | changed)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(models.FAMILIES, name, name)
    return case_of(dataclasses.replace(PLAIN, model_type=name))


def embedding_with(change):
    def embed(params, tokens, positions, config):
        return change(llama.embed(params, tokens, positions, config))

    return {"embed": embed}


def noise(x):
    def draw(x):
        return x + np.random.default_rng().normal(size=x.shape).astype(x.dtype)

    return jax.pure_callback(draw, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        # A batch's mean leaks into every row.
        (lambda x: x + x.mean(axis=0, keepdims=True), ["one_by_one", "other_rows"]),
        # The mask lets padding through.
        (lambda x: x + x.mean(axis=1, keepdims=True), ["unpadded", "other_padding"]),
        # A run of one token is another thing than a run of many.
        (lambda x: x * (2 if x.shape[1] == 1 else 1), ["cached", "shared_prefix"]),
        (noise, ["two_runs"]),
    ],
)
def test_a_run_that_depends_on_more_than_its_prompt(monkeypatch, change, checks):
    case = planted(monkeypatch, **embedding_with(change))
    assert doctor.finite_values(case).holds
    for name in checks:
        check = getattr(doctor, name)(case)
        assert check.holds is False and "prompt of " in check.where
        assert check.difference is not None and check.tolerance is not None
        assert check.difference > check.tolerance


def test_heads_that_do_not_sum(monkeypatch):
    def contributions(layer, z, config, whole=None):
        return llama.contributions(layer, z, config, whole).at[..., 2, :].multiply(0.9)

    case = planted(monkeypatch, contributions=contributions)
    check = doctor.heads_sum(case)
    assert check.holds is False and check.where.startswith("layer ")


def test_patterns_that_do_not_sum(monkeypatch):
    softmax = layers.softmax
    monkeypatch.setattr(layers, "softmax", lambda *given: 0.99 * softmax(*given))
    check = doctor.patterns_sum(planted(monkeypatch))
    assert check.holds is False and check.difference == pytest.approx(0.01, abs=1e-4)
    assert check.where.startswith("layer ") and "head " in check.where


def test_an_ablation_that_does_too_much_or_nothing(monkeypatch):
    apply = ablation.apply_to_heads
    monkeypatch.setattr(ablation, "apply_to_heads", lambda *a: 1.001 * apply(*a))
    check = doctor.nothing_ablated(planted(monkeypatch))
    assert check.holds is False and check.tolerance == 0
    monkeypatch.setattr(ablation, "apply_to_heads", lambda heads, *others: heads)
    check = doctor.an_edit_changes(planted(monkeypatch))
    assert check.holds is False
    assert check.where == "layer 0: nothing changes without its heads"


def test_products_of_less_precision(monkeypatch):
    case = case_of(PLAIN)
    assert doctor.products(case).holds
    narrow = lambda x: jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32)
    whole = doctor._product
    monkeypatch.setattr(doctor, "_product", lambda a, w: whole(narrow(a), narrow(w)))
    check = doctor.products(case)
    assert check.holds is False and check.where.startswith("prompt of ")
    assert "asked for highest" in check.compared  # by tests/conftest.py
    with jax.default_matmul_precision("bfloat16"):
        assert doctor.products(case).holds  # it is what was asked for


@pytest.mark.parametrize(
    ("leaf", "at", "where"),
    [
        ("wq", (1, 3, 2), "layer 1, head 2, prompt of a, position 0: a value is"),
        ("wo", (0, 3), "layer 0, head 3, prompt of a: a value of what it adds is"),
        ("w_down", (0,), "layer 1, prompt of a, position 0: a value of the stream"),
        ("w_down", (1,), "prompt of a: a logit is not finite"),
    ],
)
def test_weights_that_are_no_numbers(leaf, at, where):
    params = random_params(PLAIN)
    wrong = getattr(params.layers, leaf).at[at].set(np.nan)
    params = params.replace(layers=params.layers.replace(**{leaf: wrong}))
    checks = doctor._of_model(case_of(PLAIN, params), doctor.RUNS)
    assert checks[0].holds is False and where in checks[0].where
    assert {check.holds for check in checks[1:]} == {None}
    assert {check.where for check in checks[1:]} == {"not all values are finite"}


def test_text_that_does_not_come_back(model_folder):
    class Wrong(Tokenizer):
        def decode(self, ids):
            return super().decode(ids).replace("house", "home")

    tokenizer = load(model_folder).tokenizer
    assert tokenizer is not None
    texts = {"of a": "Q: tree\nA:", "of b": "Q: a house\nA:"}
    assert doctor.round_trip(tokenizer, texts).holds
    wrong = Wrong(tokenizer._inner, tokenizer.bos_id, tokenizer.adds_bos)
    check = doctor.round_trip(wrong, texts)
    assert check.holds is False
    assert check.where == r"of b, character 7: 'use\nA:' comes back as 'me\nA:'"


def test_ids_and_begin_tokens_are_told_by_prompt():
    ids = np.array([[1, 5, 6], [1, 7, 8]])
    assert doctor.ids_in_range({"a": ids}, 9).holds
    check = doctor.ids_in_range({"a": ids}, 8)
    assert check.holds is False and check.where == "a, prompt 1, position 2 has id 8"
    assert doctor.bos_once({"a": ids}, 1, True).holds
    assert doctor.bos_once({"a": ids}, 9, False).holds
    assert doctor.bos_once({"a": ids}, None, False).holds is None
    for wrong, bos, at in (
        ([[1, 5, 6], [1, 1, 8]], True, "[0, 1]"),
        ([[1, 5, 6], [7, 7, 8]], True, "none"),
        ([[5, 5, 6], [7, 1, 8]], False, "[1]"),
    ):
        check = doctor.bos_once({"a": np.array(wrong)}, 1, bos)
        assert check.holds is False
        assert check.where == f"a, prompt 1 has it at positions {at}"


def test_answers_that_begin_alike_are_named():
    collisions = {"plain": 0.1, "some": 0.5, "all": 1.0}
    check = doctor.first_tokens(collisions)
    assert check.holds is False and "all answers of all begin" in check.where
    assert check.compared.endswith("more than a fifth of pairs agree in some")
    assert doctor.first_tokens({"plain": 0.1, "some": 0.5}).holds


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the tiny Llama that a test may damage."""
    return shutil.copytree(model_folder, tmp_path / "m")


def damage(folder, scale=1.0):
    """One weight of head 4 in layer 1 is NaN, or all are larger."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, values in tensors.items():
        tensors[name] = values * np.float32(scale)
    if scale == 1:
        tensors["model.layers.1.self_attn.q_proj.weight"][4 * 10 + 3] = np.nan
    save_file(tensors, path)


def run_doctor(capfd, *arguments) -> tuple[int, str, str]:
    code = 0
    try:
        main(["doctor", *map(str, arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capfd.readouterr()


def test_the_command_says_what_holds_and_writes_it(folder, capfd, tmp_path):
    code, said, _ = run_doctor(capfd, folder, "-o", tmp_path / "told.json")
    told = json.loads((tmp_path / "told.json").read_text())
    holds = {check["name"]: check["holds"] for check in told["checks"]}
    assert list(holds) == [doctor.FINITE, *doctor.RUNS, *doctor.TEXT]
    assert code == (not all(holds.values()))
    assert all(holds[name] for name in holds if name != doctor.TEXT[-1]), said
    for name in holds:
        assert name in said
    assert told["dtype"] == "float32" and told["source"] == str(folder)


@pytest.mark.filterwarnings("ignore:.*NaN or infinite weights")
def test_the_command_fails_where_a_check_does(folder, capfd):
    (folder / "tokenizer.json").unlink()
    damage(folder)
    code, said, _ = run_doctor(capfd, folder)
    assert code == 1
    assert "values are finite does not hold: layer 1, head 4, prompt 0" in said
    assert "tokenizer round trip: not asked" in said


def test_the_command_refuses_a_mistake(folder, capfd):
    for arguments in ((folder, "-o", "told.txt"), (folder / "nowhere",)):
        code, _, error = run_doctor(capfd, *arguments)
        assert code == 2 and error.splitlines()[-1].startswith("jaxheads: ")


STUDY = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym", "capitalize"), clean_prompts=3, corrupted_prompts=3,
        sequences=3, sequence_length=12, documents=2, document_length=20,
    ),
    shots=2,
)  # fmt: skip


def test_a_study_records_what_held(model_folder, tmp_path):
    run = run_study(load(model_folder), STUDY, tmp_path / "run", parts=("scores",))
    told = run.result["checks"]
    names = ["ids in range", "BOS once", doctor.FINITE, *doctor.CHEAP]
    assert [check["name"] for check in told] == names
    assert all(check["holds"] for check in told)
    facts = dict(receipt.facts(run)[0][1])
    assert facts["checks before it began"] == f"{', '.join(names)}: held"


@pytest.mark.filterwarnings("ignore:.*NaN or infinite weights")
@pytest.mark.parametrize(
    ("dtype", "scale", "said"),
    [
        ("float32", 1.0, ("layer 1, head 4, prompt ", "prompts/clean/antonym")),
        ("float16", 300.0, ("layer ", "in float16; --dtype float32 may hold")),
    ],
)
def test_a_study_of_values_that_are_no_numbers_does_not_begin(
    folder, tmp_path, capfd, dtype, scale, said
):
    damage(folder, scale)
    out = tmp_path / "run"
    with pytest.raises(UserError) as error:
        run_study(load(folder, dtype=dtype), STUDY, out, parts=("scores",))
    for part in (*said, "nothing was run, because values are finite does not hold"):
        assert part in str(error.value)
    assert sorted(each.name for each in out.iterdir()) == ["run.json", "units"]
    assert not list((out / "units").iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids.__setitem__((1, 2), 600), "antonym, prompt 1, position 2"),
        (lambda ids: ids.__setitem__((2, 3), 0), "antonym, prompt 2 has it at"),
    ],
)
def test_a_study_with_wrong_ids_does_not_begin(model_folder, tmp_path, change, said):
    from jaxheads.studies.inputs import prepare

    model = load(model_folder)
    prepared = prepare(model, STUDY, ("scores",))
    assert prepared.inputs["scores"] is not None
    change(prepared.inputs["scores"].clean["antonym"].tokens)
    with pytest.raises(UserError, match=said):
        run_study(model, STUDY, tmp_path / "run", parts=("scores",), prepared=prepared)
