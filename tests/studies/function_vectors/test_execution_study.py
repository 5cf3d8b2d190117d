"""The execution study end to end on tiny models: numbers, receipt, resuming."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import check_page
from families import random_params

from jaxheads import heads
from jaxheads.__main__ import main
from jaxheads.cli import run as cli
from jaxheads.engine.devices import make_mesh
from jaxheads.engine.progress import Progress
from jaxheads.errors import UserError
from jaxheads.models import family, gpt2
from jaxheads.models.forward import forward
from jaxheads.runs import Arrays, RunFolder, load as load_run
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors import study
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.function_vectors.inputs import PROMPTS
from jaxheads.studies.inputs import STUDY
from jaxheads.studies.report import render
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

TASKS = ("antonym", "singular-plural")
KINDS = PROMPTS[1:]
SMALL = StudyConfig(
    execution=ExecutionConfig(
        tasks=TASKS, prompts=3, clean_prompts=2, size=0.1, sizes=(0.3, 0.1, 0.04),
        random_sets=2, read_out=4,
    ),
    shots=2,
)  # fmt: skip


def changed(**changes) -> StudyConfig:
    return dataclasses.replace(
        SMALL, execution=dataclasses.replace(SMALL.execution, **changes)
    )


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def other(model):
    """GPT-2: biases of the output projection, LayerNorm, learned positions."""
    config = gpt2.Config(4, 28, 4, 34, 600, 512)
    return dataclasses.replace(model, config=config, params=random_params(config))


def scored(model, path):
    """A run with made-up scores, as far as a ranking of this model is read."""
    rng = np.random.default_rng(0)
    c = model.config
    shape = (c.num_layers, c.num_heads)
    result = {
        "model": {"params_sha256": model.provenance.params_sha256},
        "scores": {name: {"unit": "?"} for name in ("function_vector", "induction")},
        "scoring_tasks": ["antonym"],
        "task_info": {},
    }
    mean = rng.normal(size=(*shape, c.head_dim)).astype(np.float32)
    arrays: Arrays = {"fv/mean_heads": mean}
    for name in result["scores"]:
        arrays[f"score/{name}"] = rng.normal(size=shape)
        arrays[f"score/{name}_se"] = rng.uniform(size=shape)
    return RunFolder(path, "scores", {}, {}).finish(result, arrays)


@pytest.fixture(scope="module")
def ranking(model, tmp_path_factory):
    return scored(model, tmp_path_factory.mktemp("runs") / "scored")


@pytest.fixture(scope="module")
def advanced():
    return []


@pytest.fixture(scope="module")
def run_part(model, ranking, quick_compilation):
    def run(out, config=SMALL, **options):
        return run_study(
            model, config, out, parts=("execution",), ranking=ranking, **options
        )

    return run


@pytest.fixture(scope="module")
def run(run_part, advanced, tmp_path_factory):
    progress = Progress(advance=advanced.append)
    return run_part(tmp_path_factory.mktemp("runs") / "run", progress=progress)


def prompts(run, kind, task):
    name = f"prompts/execution/{kind}/{task}"
    return tuple(run.arrays[name + part] for part in ("", "/lengths", "/targets"))


def by_hand(model, tokens, lengths, vector, at):
    """Logits [B, V] of a loop over layers; the vector is added after layer ``at``."""
    c, params = model.config, model.params
    fam = family(c.model_type)
    b, t = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(t)[None], (b, t))

    def attend(q, k, v):
        k, v = (jnp.repeat(x, c.num_heads // x.shape[2], axis=2) for x in (k, v))
        scores = jnp.einsum("bthk,bshk->bhts", q, k) / np.sqrt(c.head_dim)
        scores = jnp.where(jnp.tril(jnp.ones((t, t), bool))[None, None], scores, -1e30)
        return jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores), v)

    def whole(tokens, lengths, vector, at):
        last = jnp.arange(t)[None] == lengths[:, None] - 1
        added = last[..., None] * vector[None, None]
        x = fam.embed(params, tokens, positions, c)
        x = x + (at == -1) * added
        for index in range(c.num_layers):
            layer = jax.tree.map(lambda leaf, index=index: leaf[index], params.layers)
            x = fam.block(layer, x, positions, attend, c)
            x = x + (at == index) * added
        x = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0]
        return fam.unembed(params, x, c)

    if (c, t, b) not in _LOOPS:
        _LOOPS[c, t, b] = jax.jit(whole)
    return np.asarray(_LOOPS[c, t, b](tokens, lengths, jnp.asarray(vector), at))


_LOOPS = {}


def vector_by_hand(run, model, task, chosen, mean=None, bias=False):
    """Each head's mean output on the task's own prompts, through its projection."""
    layers = model.params.layers
    if mean is None:
        tokens, lengths, _ = prompts(run, "vector", task)
        captured = forward(model.params, tokens, model.config, capture=("heads",)).heads
        z = np.asarray(captured)[:, np.arange(len(tokens)), lengths - 1]
        mean = z.mean(axis=1)
    total = np.zeros(model.config.width)
    for layer, head in np.argwhere(chosen):
        total += np.float64(mean[layer, head]) @ np.asarray(layers.wo[layer, head])
        if bias:
            total += np.asarray(layers.bo[layer])
    return total


def assert_answers(run, model, name, index, logits, targets):
    """Right answers and probabilities of a condition are those of logits [B, V]."""
    right = run.arrays[f"execution/right/{name}"][index]
    np.testing.assert_array_equal(right, logits.argmax(-1) == targets)
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    found = run.arrays[f"execution/probability/{name}"][index]
    np.testing.assert_allclose(
        found, p[np.arange(len(targets)), targets], rtol=2e-3, atol=1e-6
    )


def test_every_condition_is_a_whole_run_by_hand(run, model):
    sets = run.result["execution"]["sets"]
    masks, vectors = run.arrays["execution/heads"], run.arrays["execution/vectors"]
    nothing = np.zeros(model.config.width, np.float32)
    for u, task in enumerate(TASKS):
        tops = [n for n, told in enumerate(sets) if told["kind"] == "top"]
        for n in (0, 1, tops[-1]):
            expected = vector_by_hand(run, model, task, masks[n])
            scale = np.abs(expected).max()
            np.testing.assert_allclose(vectors[u, n], expected, atol=1e-4 * scale)
        for kind in PROMPTS:
            tokens, lengths, targets = prompts(run, kind, task)
            logits = by_hand(model, tokens, lengths, nothing, 0)
            assert_answers(run, model, kind, u, logits, targets)
        for kind in KINDS:
            tokens, lengths, targets = prompts(run, kind, task)
            cases = [("vector", (layer,), 0, layer) for layer in range(3)]
            cases += [("random", (1, 2), 2, 2)]
            # Sizes are tried at L // 3 = 1: 6, 2 and 1 heads of 18.
            cases += [("sizes", (0,), 3, 1), ("sizes", (1,), 0, 1)]
            cases += [("sizes", (2,), 6, 1), ("random_sizes", (1, 2), 8, 1)]
            for name, index, n, layer in cases:
                logits = by_hand(model, tokens, lengths, vectors[u, n], layer)
                where = (u, *index)
                assert_answers(run, model, f"{kind}_{name}", where, logits, targets)
    vectors_do = run.arrays["execution/probability/zero_shot_vector"]
    alone = run.arrays["execution/probability/zero_shot"]
    assert np.abs(vectors_do - alone[:, None]).max() > 1e-4


@pytest.mark.slow
def test_published_quirks_by_hand_on_another_family(other, tmp_path, quick_compilation):
    config = changed(
        tasks=TASKS[:1], mean="tasks", bias="each_head", place="entering", sizes=(),
        layers="third", ranking_by="induction",
    )  # fmt: skip
    ranking = scored(other, tmp_path / "scored")
    run = run_study(
        other, config, tmp_path / "run", parts=("execution",), ranking=ranking
    )
    told = run.result["execution"]
    assert told["layer"] == 1 and run.arrays["execution/layers"].tolist() == [1]
    assert not [name for name in run.arrays if "/vector/" in name]
    assert told["mean_prompts"] is None
    chosen = heads.top(ranking.arrays["score/induction"], 2)  # 10 % of 16, rounded up
    assert told["heads"] == heads.head_names(chosen)
    mean = ranking.arrays["fv/mean_heads"]
    vector = vector_by_hand(run, other, TASKS[0], chosen, mean, bias=True)
    found = run.arrays["execution/vectors"][0, 0]
    np.testing.assert_allclose(found, vector, atol=1e-4 * np.abs(vector).max())
    for kind in KINDS:
        tokens, lengths, targets = prompts(run, kind, TASKS[0])
        logits = by_hand(other, tokens, lengths, found, 0)  # entering layer 1
        assert_answers(run, other, f"{kind}_vector", (0, 0), logits, targets)
        assert run.arrays[f"execution/right/{kind}_sizes"].shape == (1, 0, 3)


def test_the_vectors_prompts_and_the_queries_share_no_item(run, model):
    def items(kind, task):
        rows = prompts(run, kind, task)[0]
        texts = [model.tokenizer.decode(row.tolist()) for row in rows]
        return {part.split("\n")[0] for text in texts for part in text.split("Q: ")[1:]}

    for task in TASKS:
        own = items("vector", task)
        assert len(own) > 3
        for kind in PROMPTS:
            assert not own & items(kind, task)
    assert "the second half" in run.result["execution"]["items"]
    queries = run.arrays["execution/queries"]
    assert [len(set(row)) for row in queries.tolist()] == [3, 3]


def test_read_outs_name_the_tokens_of_the_largest_logits(run, model):
    vectors = run.arrays["execution/vectors"][:, 0]
    fam = family(model.config.model_type)
    for name, shown in (
        ("read_out", vectors),
        ("read_out_apart", vectors - vectors.mean(axis=0)),
    ):
        logits = np.asarray(fam.unembed(model.params, shown, model.config))
        for u, task in enumerate(TASKS):
            told = run.result["execution"]["by_task"][task][name]
            assert [one["id"] for one in told] == np.argsort(-logits[u])[:4].tolist()
            assert told[0]["logit"] == pytest.approx(logits[u].max(), abs=1e-3)
            assert told[0]["token"] == model.tokenizer.decode([told[0]["id"]])


def test_every_array_has_the_dims_that_the_receipt_says(run, advanced):
    seen = {"U": 2, "W": 9, "D": 22, "L": 3, "H": 6, "X": 3, "B": 3, "Y": 2, "Z": 3}
    named = {n: a for n, a in run.arrays.items() if n.startswith("execution/")}
    assert len(named) == 4 + 2 * 11
    for name, array in named.items():
        dims = run.result["arrays"][name]["dims"]
        assert array.shape == tuple(seen[letter] for letter in dims), name
    told = run.result["execution"]
    assert told["counts"] == [6, 2, 1] and told["count"] == 2
    clean = run.arrays["execution/right/clean"].sum(axis=1)
    assert [told["by_task"][task]["answered"] for task in TASKS] == clean.tolist()
    row = run.result["plan"]["rows"][0]
    assert row["part"] == "execution" and sum(advanced) == pytest.approx(row["flops"])
    # 2 x 3 kinds of 3 prompts and 2 of the vectors', and 9 + 6 runs of a prompt.
    assert row["forwards"] == 2 * (9 + 2 + 2 * 3 * (9 + 6))


class Killed(Exception):
    """Stands for the end of a process in the middle of a task."""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    run_part, run, tmp_path, monkeypatch
):
    out, calls = tmp_path / "run", []
    task = study._Runner.task

    def once(self, name):
        calls.append(name)
        if len(calls) == 2:
            raise Killed
        return task(self, name)

    monkeypatch.setattr(study._Runner, "task", once)
    with pytest.raises(Killed):
        run_part(out)
    assert not (out / "result.json").exists()
    again = run_part(out)
    assert calls == [TASKS[0], TASKS[1], TASKS[1]]
    for path in (out, run.path):
        assert (path / "arrays.npz").stat().st_size > 0
    assert (out / "arrays.npz").read_bytes() == (run.path / "arrays.npz").read_bytes()
    assert again.result["execution"] == run.result["execution"]


def test_a_zero_vector_is_an_error(run_part, tmp_path, monkeypatch):
    task = study._Runner.task

    def zeros(self, name):
        unit = task(self, name)
        return unit | {"vectors": 0 * unit["vectors"]}

    monkeypatch.setattr(study._Runner, "task", zeros)
    with pytest.raises(UserError, match="would change nothing"):
        run_part(tmp_path / "run", changed(tasks=TASKS[:1]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(tasks=("antonym", "antonym")), "--execution.tasks takes .* different"),
        (dict(prompts=1), "--execution.prompts must be 2 or more"),
        (dict(clean_prompts=0), "--execution.clean-prompts"),
        (dict(size=0.0), "--execution.size takes shares .* not 0.0"),
        (dict(sizes=(0.1, 1.5)), "--execution.sizes takes shares .* not 1.5"),
        (dict(random_sets=-1), "--execution.random-sets"),
        (dict(read_out=0), "--execution.read-out"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(tasks=()), "--execution.tasks is empty"),
        (dict(ranking_by="copying"), "--execution.ranking-by .* 'copying' is not"),
        (dict(tasks=("antonyms",)), "antonym"),
    ],
)
def test_inputs_that_do_not_fit_are_one_sentence(run_part, tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        run_part(tmp_path / "run", changed(**changes))
    assert not (tmp_path / "run").exists()


def test_the_command_makes_a_run_with_a_table_and_a_report(
    run, ranking, model_folder, capfd, tmp_path, quick_compilation
):
    pytest.importorskip("vl_convert")
    out = tmp_path / "run"
    options = f"--shots=2 --execution.tasks {' '.join(TASKS)} --execution.prompts=3"
    options += " --execution.clean-prompts=2 --execution.size=0.1 --execution.sizes"
    options += " 0.3 0.1 0.04 --execution.random-sets=2 --execution.read-out=4"
    options += f" --ranking {ranking.path} --out {out}"
    main(["execution", str(model_folder), *options.split()])
    said, plan = capfd.readouterr()
    assert "execution" in plan and "FLOPs" in plan
    for text in ("Function vectors of 2 heads", "random heads, layer 1", "chosen"):
        assert text in said
    again = load_run(out)
    np.testing.assert_array_equal(
        again.arrays["execution/vectors"], run.arrays["execution/vectors"]
    )
    page = (out / "report.html").read_text("utf-8")
    for text in ('<section id="execution">', '<section id="read-out">', TASKS[1]):
        assert text in page


@pytest.mark.slow
def test_the_browser_draws_every_chart(run, browser):
    check_page(browser, render(run))


def test_a_study_runs_the_part_where_its_tasks_are_named(monkeypatch, model, tmp_path):
    asked = []

    def stopped(*arguments, parts, **options):
        asked.append(parts)
        raise UserError("enough")

    monkeypatch.setattr("jaxheads.studies.run.run_study", stopped)
    monkeypatch.setattr("jaxheads.weights.model.load", lambda *_: model)
    for options in ([], ["--execution.tasks", "antonym"]):
        with pytest.raises(UserError, match="enough"):
            cli.run(["study", "somewhere", "-o", str(tmp_path), *options])
    assert asked == [STUDY, (*STUDY, "execution")]


@pytest.mark.slow
def test_devices_share_the_prompts(run, ranking, model_folder, tmp_path):
    split = load(model_folder, mesh=make_mesh("data=3,model=2"))
    made = run_study(
        split, SMALL, tmp_path / "run", parts=("execution",), ranking=ranking
    )
    for name, array in run.arrays.items():
        if name.startswith("execution/right"):
            np.testing.assert_array_equal(made.arrays[name], array)
        elif name.startswith("execution/"):
            np.testing.assert_allclose(made.arrays[name], array, rtol=1e-3, atol=1e-5)
