"""Prompts, probes and effects as the published code makes them, against naive twins."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny

from jaxheads.errors import UserError
from jaxheads.icl import published
from jaxheads.icl.prompts import build_prompts
from jaxheads.icl.tasks import load_task, load_tasks
from jaxheads.icl.templates import TEMPLATES
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores import induction_text
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.protocols import PROTOCOLS
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.usefixtures("quick_compilation")

# What scikit-learn 1.9.1 gave: train and valid of 23 items, split twice.
SPLITS = {
    published.SCORING: (
        [22, 16, 8, 6, 17, 4, 2, 5, 18, 9, 7, 19, 3, 0, 15, 12],
        [13, 21, 10],
    ),
    published.EVALUATION: (
        [5, 11],
        [4, 3, 15, 22, 10, 13, 16, 9, 14, 1, 21, 8, 19, 17, 2, 12, 7, 20, 0],
    ),
}
# And of larger files: how many items of each, their first ones, and the sums of items
# times their places.
LARGE = [
    (published.SCORING, 124, (86, 12), [6, 59, 121], [93, 75, 99], (242885, 4835)),
    (
        published.SCORING,
        2398,
        (1678, 216),
        [1521, 2214, 1918],
        [735, 118, 1455],
        (1707032328, 28887806),
    ),
    (published.EVALUATION, 124, (12, 101), [106, 101, 3], [91, 105], (4307, 321988)),
    (
        published.EVALUATION,
        2398,
        (239, 1944),
        [243, 284, 1514],
        [872, 1294],
        (32757975, 2289367444),
    ),
]


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_is_scikit_learns(split):
    demonstrations, queries = published.split_indices(23, split)
    assert (demonstrations.tolist(), queries.tolist()) == SPLITS[split]


@pytest.mark.parametrize(("split", "count", "sizes", "first", "asked", "sums"), LARGE)
def test_a_large_split_is_scikit_learns(split, count, sizes, first, asked, sums):
    found = published.split_indices(count, split)
    assert tuple(map(len, found)) == sizes
    assert found[0][: len(first)].tolist() == first
    assert found[1][: len(asked)].tolist() == asked
    assert tuple(int(each @ np.arange(1, len(each) + 1)) for each in found) == sums


ITEMS = [(f"in {i}", f"out {i % 7}") for i in range(20)]
ITEMS += [("in 3", "again "), ("in 3", "out 3"), ("hole", "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of 23 items: words, some odd; numbers as text; and lists."""
    root = tmp_path_factory.mktemp("files")
    numbers = [(f"in {i}", str(i)) for i in range(22)] + [("last", 7)]
    lists = [(f"in {i}", [f"a{i}", f"b{i}"]) for i in range(23)]
    for name, pairs in (("words", ITEMS), ("numbers", numbers), ("lists", lists)):
        items = [{"input": given, "output": wanted} for given, wanted in pairs]
        (root / f"{name}.json").write_text(json.dumps(items))
    return root


def text(pairs, query):
    return "".join(f"Q: {x}\nA: {y}\n\n" for x, y in pairs) + f"Q: {query}\nA:"


def test_scoring_prompts_are_those_of_one_global_generator(folder):
    """As numpy's own global functions draw them, with labels drawn as strings."""
    np.random.seed(42)
    train, valid = (np.array(each) for each in SPLITS[published.SCORING])
    expected = []
    for pairs in (ITEMS, [(f"in {i}", str(i)) for i in range(22)] + [("last", "7")]):
        kinds = []
        for shuffled in (False, True):
            made = []
            for _ in range(4):
                shots = [pairs[train[i]] for i in np.random.choice(16, 3, False)]
                query = pairs[valid[np.random.choice(np.arange(3), 1, False)[0]]]
                labels = [wanted for _, wanted in shots]
                if shuffled:
                    labels = np.random.permutation(labels).tolist()
                inputs = [given for given, _ in shots]
                shown = zip(inputs, labels, strict=True)
                made.append((text(shown, query[0]), query[1].strip()))
            kinds.append(made)
        expected.append(tuple(kinds))
    tasks = load_tasks(("words", "numbers"), folder)
    drawn = published.scoring_prompts(tasks, 4, 4, 3, 42)
    found = [
        tuple([(prompt.text, prompt.answer) for prompt in kind] for kind in kinds)
        for kinds in drawn
    ]
    assert found == expected
    for prompt in drawn[0][1]:
        assert sorted(y for _, y in prompt.shots) == sorted(
            y for _, y in prompt.clean_shots
        )


@pytest.mark.parametrize("name", ["words", "lists"])
def test_evaluation_prompt_i_asks_item_i(folder, name):
    train, valid = SPLITS[published.EVALUATION]
    pairs, shown = ITEMS, ITEMS
    if name == "lists":
        pairs = [(f"in {i}", f"a{i}") for i in range(23)]
        shown = [(f"in {i}", f"['a{i}', 'b{i}']") for i in range(23)]
    np.random.seed(42)
    expected = []
    for place in range(9):
        shots = [shown[train[i]] for i in np.random.choice(2, 2, replace=False)]
        given, wanted = pairs[valid[place]]
        expected.append((text(shots, given), wanted.strip()))
    tasks = [load_task(name, folder)]
    (drawn,) = published.evaluation_prompts(tasks, 9, 2, 42)
    assert [(prompt.text, prompt.answer) for prompt in drawn] == expected
    (fewer,) = published.evaluation_prompts(tasks, 4, 2, 42)
    assert fewer == drawn[:4]
    with pytest.raises(UserError, match=r"has 19 queries .* 20 are asked for"):
        published.evaluation_prompts(tasks, 20, 2, 42)
    with pytest.raises(UserError, match=r"2 are for demonstrations .* 3 are needed"):
        published.evaluation_prompts(tasks, 4, 3, 42)


def test_the_first_clean_prompts_of_the_first_task_alone_stay(folder):
    tasks = load_tasks(("words", "numbers"), folder)
    few = published.scoring_prompts(tasks, 2, 2, 3, 42)
    many = published.scoring_prompts(tasks, 5, 2, 3, 42)
    assert few[0][0] == many[0][0][:2]
    assert few[0][1] != many[0][1] and few[1][0] != many[1][0][:2]


def test_every_protocol_task_has_enough_built_in_items():
    config = PROTOCOLS["yin2025-code"]
    published.scoring_prompts(load_tasks(config.scores.tasks), 1, 1, 10, 42)
    tasks = load_tasks(config.ablation.tasks)
    drawn = published.evaluation_prompts(tasks, config.ablation.prompts, 10, 42)
    assert {len(prompts) for prompts in drawn} == {100}


def test_a_built_in_task_stands_for_a_split_of_its_name(folder):
    task = load_task("antonym_val", folder)
    assert (task.name, task.source) == ("antonym_val", "built-in antonym")
    assert task.inputs == load_task("antonym").inputs
    with pytest.raises(UserError, match="there is no task 'antonym_part'"):
        load_task("antonym_part")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_is_all_that_changes_a_prompt(name):
    task = load_task("capitalize")
    plain = build_prompts(task, 2, 3, 0)
    for one, other in zip(
        plain, build_prompts(task, 2, 3, 0, template=TEMPLATES[name]), strict=True
    ):
        assert (one.query, one.shots, one.answer) == (
            other.query,
            other.shots,
            other.answer,
        )
        assert other.text == TEMPLATES[name].write(one.shots, one.query)
        assert (one.text == other.text) == (name == "qa")
        assert not other.text.endswith(" ")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"no_label_overlap": True}, "--no-label-overlap"),
        ({"scores": {"corrupt": "derangement"}}, "--drawing published shuffles"),
        ({"scores": {"names": ("duplicate_token",)}}, "duplicate_token is measured on"),
    ],
)
def test_what_does_not_go_together_is_refused(change, sentence):
    config = PROTOCOLS["yin2025-code"]
    scores = dataclasses.replace(config.scores, **change.pop("scores", {}))
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(config, scores=scores, **change)


VOCABULARY = range(1, 41)


def doubled(ids):
    """Text in which every odd id is read again as two tokens, and 4 vanishes."""
    return " ".join(f"{i // 2} {i // 2 + 1}" if i % 2 else str(i) for i in ids if i - 4)


def test_a_probe_through_text_is_read_again():
    read = lambda text: [int(word) for word in text.split()]
    tokens, lengths = induction_text.probe(6, 5, VOCABULARY, doubled, read, 40, 3)
    drawn = np.random.default_rng([3, 0]).choice(np.arange(1, 41), (6, 5))
    for ids, row, length in zip(drawn.tolist(), tokens, lengths, strict=True):
        assert row[:length].tolist() == [40, 40, *read(doubled(ids * 2))]
        assert not row[length:].any()
    assert len(set(lengths)) > 1
    with pytest.raises(UserError, match="make no text"):
        induction_text.probe(2, 2, [4], doubled, read, None, 0)


@pytest.mark.parametrize("name", ["toy", "llama-gqa", "gpt2"])
def test_scores_through_text_equal_loops_over_patterns(name):
    tiny = Tiny(CONFIGS[name])
    rng = np.random.default_rng(1)
    lengths = np.array([9, 14, 6], np.int32)
    tokens = np.zeros((3, 14), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = rng.integers(1, 5, length)  # many copies
    made = induction_text.attention_share(tiny.params, tokens, lengths, tiny.config)
    found = {key: np.asarray(samples) for key, samples in made.items()}
    out = forward(tiny.params, jnp.asarray(tokens), tiny.config, capture=("patterns",))
    patterns = np.asarray(out.patterns)
    layers, _, heads = patterns.shape[:3]
    for b, length in enumerate(lengths):
        hits = [
            (i, j)
            for i in range(length)
            for j in range(1, i + 1)
            if tokens[b, j - 1] == tokens[b, i]
        ]
        rows = len({i for i, _ in hits})
        for layer in range(layers):
            for head in range(heads):
                seen = patterns[layer, b, head]
                mass = sum(float(seen[i, j]) for i, j in hits)
                total = sum(float(seen[i, : i + 1].sum()) for i in range(length))
                of = {key: float(found[key][layer, head, b]) for key in found}
                assert of["induction_yin"] == pytest.approx(mass / total, abs=1e-5)
                assert of["induction"] == pytest.approx(mass / rows, abs=1e-5)
    for key, samples in found.items():
        score = induction_text.head_scores(samples, key, tokens, lengths)
        assert 0 < score.chance < score.ceiling <= 1
        assert (score.mean <= score.ceiling + 1e-6).all()


def reduced(config: StudyConfig) -> StudyConfig:
    """A protocol with as little of everything as a tiny model needs."""
    return dataclasses.replace(
        config,
        scores=dataclasses.replace(
            config.scores,
            tasks=("antonym_train", "present-past_train"),
            clean_prompts=3,
            corrupted_prompts=2,
            sequences=4,
            sequence_length=6,
            documents=2,
            document_length=12,
        ),
        shots=2,
    )


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def run(model, quick_compilation, tmp_path_factory):
    del quick_compilation
    out = tmp_path_factory.mktemp("runs") / "published"
    return run_study(model, reduced(PROTOCOLS["yin2025-code"]), out, parts=("scores",))


@pytest.mark.slow
def test_a_run_writes_the_published_prompts_as_tokens(run, model):
    config = reduced(PROTOCOLS["yin2025-code"])
    tasks = load_tasks(config.scores.tasks)
    drawn = published.scoring_prompts(tasks, 3, 2, 2, 42)
    for task, kinds in zip(tasks, drawn, strict=True):
        for kind, prompts in zip(("clean", "corrupted"), kinds, strict=True):
            name = f"prompts/{kind}/{task.name}"
            for b, prompt in enumerate(prompts):
                length = run.arrays[f"{name}/lengths"][b]
                ids = run.arrays[name][b, :length].tolist()
                assert ids == model.tokenizer.encode(prompt.text, bos=True)
    told = run.result["config"]
    assert told["protocol"] == "yin2025-code" and told["drawing"] == "published"
    assert "ablation" not in told and told["scores"]["tasks"] == list(
        config.scores.tasks
    )
    probe, lengths = (run.arrays[f"prompts/induction{end}"] for end in ("", "/lengths"))
    assert (probe[:, :2] == model.tokenizer.bos_id).all()
    samples = induction_text.attention_share(model.params, probe, lengths, model.config)
    np.testing.assert_allclose(
        run.arrays["score/induction_yin"],
        np.asarray(samples["induction_yin"]).mean(axis=-1),
        atol=1e-5,
    )


def test_two_splits_that_one_built_in_task_stands_for_are_refused(model):
    config = reduced(PROTOCOLS["yin2025-code"])
    shared = dataclasses.replace(config.ablation, tasks=("antonym_val",), prompts=2)
    with pytest.raises(UserError, match=r"disjoint, but the scores .* with antonym:"):
        prepare(model, dataclasses.replace(config, ablation=shared))


def test_no_demonstration_shows_the_answer_if_asked(model):
    config = reduced(PROTOCOLS["yin2025"])
    few = dataclasses.replace(config.ablation, tasks=("sentiment",), prompts=6)
    config = dataclasses.replace(config, ablation=few, no_label_overlap=True)
    made = prepare(model, config, ("ablation",))
    evaluated = made.inputs["ablation"]
    batch, answers = evaluated.prompts["sentiment"], evaluated.answers["sentiment"]
    for ids, length, answer in zip(batch.tokens, batch.lengths, answers, strict=True):
        text = model.tokenizer.decode(ids[:length])
        assert f"A: {answer}" not in text and text.count("A: ") == 2
    same = dataclasses.replace(config, no_label_overlap=False)
    plain = prepare(model, same, ("ablation",)).inputs["scores"]
    for task, batch in made.inputs["scores"].clean.items():
        assert (batch.tokens == plain.clean[task].tokens).all(), "scored as ever"


def test_effects_can_be_made_again_from_what_the_run_wrote(run, model):
    """Whole forwards over the run's own tokens, a head at a time."""
    layers, heads = model.config.num_layers, model.config.num_heads
    for a, task in enumerate(run.result["scoring_tasks"]):
        clean, corrupted = (
            {
                end: run.arrays[f"prompts/{kind}/{task}{end}"]
                for end in ("", "/lengths", "/targets")
            }
            for kind in ("clean", "corrupted")
        )
        out = forward(model.params, clean[""], model.config, capture=("heads",))
        rows = np.arange(len(clean[""]))
        mean = np.asarray(out.heads)[:, rows, clean["/lengths"] - 1].mean(axis=1)
        tokens, lengths = corrupted[""], corrupted["/lengths"]
        where = jnp.arange(tokens.shape[1])[None] == lengths[:, None] - 1

        def chances(keep, mean=mean, where=where, batch=corrupted):
            ablation = Ablation(jnp.asarray(keep), jnp.asarray(mean), where)
            out = forward(
                model.params,
                batch[""],
                model.config,
                lengths=batch["/lengths"],
                ablation=ablation,
                logits="last",
            )
            each = jax.nn.softmax(out.logits, axis=-1)
            return np.asarray(each)[np.arange(len(each)), batch["/targets"]]

        whole = chances(np.ones((layers, heads), np.float32))
        for layer, head in ((0, 1), (1, 5), (2, 3)):
            keep = np.ones((layers, heads), np.float32)
            keep[layer, head] = 0
            expected = chances(keep) - whole
            found = run.arrays["fv/effects_by_prompt"][a, layer, head]
            np.testing.assert_allclose(found, expected, atol=1e-6)
    means = run.arrays["fv/effects_by_prompt"].mean(axis=-1)
    np.testing.assert_allclose(run.arrays["fv/effects"], means, atol=1e-7)
