"""Which token of an answer a study counts, on a tokenizer that cuts " 5" in two."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxheads.errors import UserError
from jaxheads.icl.metrics import token_f1
from jaxheads.icl.tasks import load_task
from jaxheads.models.forward import forward
from jaxheads.runs import RunFolder
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation import outcomes, study as few_shot
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.job import Given, Job
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.run import run_study
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.weights.model import load

STUDY = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym",),
        clean_prompts=2,
        corrupted_prompts=2,
        sequences=2,
        sequence_length=5,
        documents=2,
        document_length=8,
    ),
    ablation=AblationConfig(
        tasks=("word_length", "synonym"),
        prompts=4,
        fractions=(0.2,),
        keep_only=(),
        draws=0,
        matched_to=(),
        zero_shot=True,
        max_new_tokens=3,
    ),
    execution=ExecutionConfig(tasks=("word_length",), prompts=2, clean_prompts=2),
    redundancy=RedundancyConfig(tasks=("word_length",), prompts=2, top=2),
    shots=2,
)
PUBLISHED = dataclasses.replace(STUDY, targets="published")
PARTS = ("scores", "ablation")

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(model_folder):
    """The tiny model, whose tokenizer has 200 control tokens and splits digits off."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    control = [f"<|{number}|>" for number in range(200)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [f"Q: {x}\nA: {y}\n\n" for x in load_task("synonym").inputs for y in "a5"]
    inner.train_from_iterator(words, trainer)
    tokenizer = Tokenizer(inner, None, adds_bos=False)
    return dataclasses.replace(load(model_folder), tokenizer=tokenizer)


def generated(model, ids, count=3) -> list[int]:
    """What follows by whole forwards."""
    ids, length = list(ids), len(ids)
    for _ in range(count):
        out = forward(model.params, jnp.asarray([ids]), model.config)
        ids.append(int(out.logits[0, -1].argmax()))
    return ids[length:]


@pytest.mark.slow
def test_the_digit_counts_and_the_space_stands_in_the_prompt(model, tmp_path):
    run = run_study(model, STUDY, tmp_path / "run", parts=PARTS)
    (space,) = model.tokenizer.encode(" ")
    digits = {model.tokenizer.encode(str(digit))[0] for digit in range(10)}
    for kind, array in (("", "ablation/"), ("_zero_shot", "ablation/zero_shot/")):
        start = f"prompts/evaluation{kind}/word_length"
        tokens, lengths = run.arrays[start], run.arrays[f"{start}/lengths"]
        targets = run.arrays[f"{start}/targets"]
        assert set(targets.tolist()) <= digits and len(set(targets.tolist())) > 1
        for b, length in enumerate(lengths):
            assert tokens[b, length - 1] == space and tokens[b, length - 2] != space
            (first, *_) = generated(model, tokens[b, :length], 1)
            found = run.arrays[f"{array}first_token"][0, 0, b]
            assert found == (first == targets[b])
    info = run.result["task_info"]["word_length"]
    assert info["shared_tokens"] == [space] and info["shared"] == " "
    assert 0 < info["collisions"] < 0.2 and info["items"] == 501
    assert run.result["config"]["targets"] == "informative"
    assert outcomes.accuracy(run)[0].tasks == STUDY.ablation.tasks
    with pytest.raises(UserError, match=r"config\.targets: 'informative' there, 'publ"):
        run_study(model, PUBLISHED, tmp_path / "run", parts=PARTS)


def test_the_published_choice_leaves_such_tasks_out_of_means(model, tmp_path):
    run = run_study(model, PUBLISHED, tmp_path / "run", parts=PARTS)
    (space,) = model.tokenizer.encode(" ")
    targets = run.arrays["prompts/evaluation/word_length/targets"]
    assert set(targets.tolist()) == {space}
    info = run.result["task_info"]["word_length"]
    assert info["collisions"] == 1 and info["shared_tokens"] == []
    for measured in (outcomes.accuracy(run), outcomes.zero_shot(run)):
        first, f1 = measured
        assert first.tasks == ("synonym",) and f1.tasks == STUDY.ablation.tasks


def test_f1_is_of_the_whole_answer_up_to_the_end_of_the_text(model, tmp_path):
    """Answers that are what the model says: whole, and cut at its control tokens."""
    inputs = prepare(model, STUDY, ("ablation",), None).inputs["ablation"]
    assert inputs is not None
    (space,) = model.tokenizer.encode(" ")
    answers, ends = {}, 0
    for task, batch in inputs.prompts.items():
        begun = [space] if task == "word_length" else []
        assert batch.begun() == [begun] * 4
        answers[task] = []
        for row, length in zip(batch.tokens, batch.lengths, strict=True):
            ids = [*begun, *generated(model, row[:length])]
            special = [id in model.tokenizer.special_ids for id in ids]
            ends += any(special)
            cut = special.index(True) if any(special) else len(ids)
            answers[task].append(model.tokenizer.decode(ids[:cut]))
    assert 0 < ends < 8
    told = dataclasses.replace(inputs, answers=answers, zero_shot={})
    shape = (model.config.num_layers, model.config.num_heads)
    nothing = np.zeros(shape)
    given = Given(
        {"function_vector": nothing, "induction": nothing},
        np.zeros((*shape, model.config.head_dim), np.float32),
    )
    job = Job(
        model.params,
        model.config,
        model.tokenizer,
        given,
        RunFolder(tmp_path / "run", "ablation", {}, {}),
        2**28,
        lambda flops: None,
    )
    run = few_shot.run(told, job)
    assert run.few_shot.f1 is not None
    expected = [[token_f1(a, a) for a in of_task] for of_task in answers.values()]
    np.testing.assert_array_equal(run.few_shot.f1[0], expected)
    assert np.mean(expected) > 0.5


@pytest.mark.parametrize("part", ["execution", "redundancy"])
def test_what_counts_first_tokens_alone_needs_some_that_tell(model, part):
    made = prepare(model, STUDY, ("scores", part))
    assert part in made.inputs
    message = rf"--{part}.tasks needs answers .* of word_length have the same one"
    with pytest.raises(UserError, match=message):
        prepare(model, PUBLISHED, ("scores", part))
