"""Few-shot tasks of a model in training: prompts, answers, figures and receipt."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.icl.prompts import build_prompts, encode_prompts
from jaxheads.icl.tasks import load_task, task_names
from jaxheads.models import gpt2
from jaxheads.models.forward import forward
from jaxheads.models.parameters import init_params
from jaxheads.studies.train.figures import evaluated
from jaxheads.studies.train.page import table
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.corpora import open_corpus
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.text_windows import TextWindows
from jaxheads.training.data.token_store import tokenise
from jaxheads.training.data.vocabulary import train_tokenizer
from jaxheads.training.fewshot import draw_fewshot, fewshot_figures
from jaxheads.training.loop import train
from jaxheads.training.measures import figure_dims, figure_unit, make_evidence
from jaxheads.training.trained import open_trained

pytestmark = pytest.mark.usefixtures("quick_compilation")

TASKS = ("country-capital", "antonym")
EVIDENCE = EvidenceConfig(
    evidence_samples=4,
    probe_period=4,
    probe_repeats=2,
    probe_sequences=2,
    repetitions=2,
    evidence_tasks=TASKS,
    evidence_shots=2,
    evidence_prompts=3,
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Windows of text, held-out ones, and the tokenizer that was learned from it."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "docs").mkdir()
    for number in range(12):
        words = " ".join(f"Q: word{number} {i}\nA: capital{i}\n" for i in range(40))
        (folder / "docs" / f"{number:02d}.txt").write_text(words)
    corpus = open_corpus(folder / "docs")
    tokenizer = train_tokenizer(corpus, 300)
    store = tokenise(corpus, tokenizer, folder / "run-tokens")
    source = TextWindows(store, 120, 300, held_out=0.3, bos_id=tokenizer.bos_id)
    held_out = dataclasses.replace(source, split="held-out")
    return folder, source, held_out, tokenizer


@pytest.fixture(scope="module")
def model():
    """A random model with large weights, and params of two runs."""
    config = gpt2.Config(2, 12, 3, 20, 300, 120)
    abstract = gpt2.abstract(config)
    each = [init_params(abstract, jax.random.key(seed), scale=2.0) for seed in (1, 2)]
    return config, each, jax.tree.map(lambda *x: jnp.stack(x), *each)


def shared_of(name, tokenizer):
    """Ids with which all answers of a task begin; here none begins another."""
    every = [tokenizer.encode(f"\nA: {one}") for one in load_task(name).outputs]
    begin = len(tokenizer.encode("\nA:"))
    same = [len(set(column)) == 1 for column in zip(*every, strict=False)]
    return every[0][begin : same.index(False)]


def test_figures_are_those_of_one_prompt_after_the_other(text, model):
    *_, tokenizer = text
    config, each, params = model
    few = draw_fewshot(TASKS, tokenizer, bos=True, max_length=120, shots=2, prompts=3)
    assert few.tasks == TASKS and few.shots == (2, 2)
    found = fewshot_figures(params, few, config)
    for run, one in enumerate(each):
        for place, name in enumerate(TASKS):
            right, given, shared = [], [], len(shared_of(name, tokenizer))
            for prompt in build_prompts(load_task(name), 3, 2, 0):
                ids = [tokenizer.bos_id, *tokenizer.encode(prompt.text)]
                whole = tokenizer.encode(f"{prompt.text} {prompt.answer}")
                assert whole[: len(ids) - 1] == ids[1:]
                whole = [tokenizer.bos_id, *whole]
                logits = forward(one, jnp.array([whole]), config).logits[0]
                steps = jax.nn.log_softmax(logits)[len(ids) - 1 : -1]
                answer = np.array(whole[len(ids) :])
                given.append(float(steps[jnp.arange(len(answer)), answer].sum()))
                told = int(logits[len(ids) - 1 + shared].argmax())
                right.append(told == answer[shared])
            accuracy = found["fewshot_accuracy"][run, place]
            assert accuracy == pytest.approx(np.mean(right))
            log_probability = found["fewshot_log_probability"][run, place]
            assert log_probability == pytest.approx(np.mean(given), rel=1e-4)


def test_the_token_that_counts_follows_what_all_answers_share(text, model):
    config, (one, _), params = model
    few = draw_fewshot(TASKS, text[3], bos=True, max_length=120, shots=2, prompts=3)
    for shift in (0, 1):  # the likeliest tokens in place of one answer's token
        answers, place = few.answers.copy(), few.shared + shift
        for task, prompt in np.ndindex(few.shared.shape):
            tokens = jnp.array(few.tokens[[task], prompt])
            logits = forward(one, tokens, config).logits[0]
            at = few.at[task, prompt, place[task, prompt]]
            answers[task, prompt, place[task, prompt]] = logits[at].argmax()
        told = dataclasses.replace(few, answers=answers)
        found = fewshot_figures(params, told, config)["fewshot_accuracy"][0]
        assert (found == 1).all() if shift == 0 else (found < 1).all()


def test_a_model_that_knows_the_answers_is_right(text):
    *_, tokenizer = text
    few = draw_fewshot(TASKS, tokenizer, bos=True, max_length=120, shots=1, prompts=3)
    batch = encode_prompts(
        build_prompts(load_task("antonym"), 3, 1, 0), tokenizer, bos=True
    )
    space = shared_of("antonym", tokenizer)
    assert len(space) == 1 and few.describe()["shared_tokens"][1] == 1
    np.testing.assert_array_equal(few.answers[1, :, 0], [space[0]] * 3)
    np.testing.assert_array_equal(few.answers[1, :, 1], batch.targets)
    np.testing.assert_array_equal(few.at[1, :, 1], batch.lengths - 1)
    assert few.scored[..., 0].all() and few.scored.sum() > few.scored[..., 0].sum()


@pytest.mark.parametrize("max_length", [80, 100, 140])
def test_tasks_get_as_many_demonstrations_as_fit(text, max_length):
    *_, tokenizer = text
    few = draw_fewshot(TASKS, tokenizer, bos=True, max_length=max_length, prompts=4)
    for name, shots in zip(few.tasks, few.shots, strict=True):
        fits = []
        for count in (shots, shots + 1):
            rows = [
                len(tokenizer.encode(f"{prompt.text} {prompt.answer}")) + 1
                for prompt in build_prompts(load_task(name), 4, count, 0)
            ]
            fits.append(max(rows) <= max_length)
        assert fits == [True, False]
    assert few.tokens.shape[2] <= max_length


def test_all_leaves_out_what_has_no_room(text):
    *_, tokenizer = text
    few = draw_fewshot(("all",), tokenizer, bos=True, max_length=60, prompts=2)
    assert few.left_out and set(few.tasks) | {*few.left_out} == set(task_names())
    with pytest.raises(UserError, match=few.left_out[0]):
        named = (few.tasks[0], few.left_out[0])
        draw_fewshot(named, tokenizer, bos=True, max_length=60, prompts=2)


@pytest.mark.parametrize("names", [("antonym", "antonym"), ("all", "antonym")])
def test_tasks_are_named_once(text, names):
    with pytest.raises(UserError, match="different tasks"):
        draw_fewshot(names, text[3], bos=True, max_length=120)


def test_token_ids_have_no_text_tasks():
    source = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
    config = gpt2.Config(1, 8, 2, 10, 10, 12)
    asked = dataclasses.replace(EVIDENCE, probe_period=3)
    with pytest.raises(UserError, match="on token ids of RepeatedTokens: leave it out"):
        make_evidence(asked, config, source)


def test_tasks_without_evidence_are_refused():
    with pytest.raises(UserError, match="turned off"):
        dataclasses.replace(EVIDENCE, evidence=False).check()


@pytest.mark.slow
def test_a_run_keeps_them_by_seed_and_task(text):
    folder, source, held_out, tokenizer = text
    model = gpt2.Config(1, 12, 3, 20, 300, 120)
    config = TrainConfig(steps=2, batch_size=2, seeds=2, eval_every=1, eval_batches=1)
    evidence = make_evidence(EVIDENCE, model, source, held_out, tokenizer)
    train(
        config,
        model,
        source,
        folder / "run",
        held_out=held_out,
        evidence=evidence,
        tokenizer=tokenizer,
    )
    trained = open_trained(folder / "run")
    told = trained.run.result
    assert told["model"]["evidence"]["few_shot"]["tasks"] == list(TASKS)
    assert told["model"]["evidence"]["few_shot"]["shots"] == [2, 2]
    described = told["arrays"]["evaluation/fewshot_accuracy"]
    assert described == {"dims": ["evaluation", "N", "task"], "unit": "share"}
    assert figure_unit("fewshot_log_probability") == "nats"
    assert figure_dims("fewshot_log_probability") == ("task",)
    again = trained.evidence()
    assert again.describe() == evidence.describe()
    measured = again.measure(trained.params(2))
    for name in ("fewshot_accuracy", "fewshot_log_probability"):
        values = trained.evaluated(name)
        assert values is not None and values.shape == (3, 2, 2)
        np.testing.assert_allclose(measured[name], values[-1], rtol=1e-5)
    assert np.isfinite(values).all() and (values < 0).all()
    mean = evaluated(trained.run, "fewshot_accuracy")
    accuracy = trained.evaluated("fewshot_accuracy")
    assert mean is not None and accuracy is not None
    np.testing.assert_allclose(mean, accuracy.mean(axis=2))
    made = table(trained.run)
    assert made and [row[0].text for row in made.rows] == list(TASKS)
