"""Dynamics of trainings on token ids: prompts, inputs, seeds together, whole runs."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import check_page
from synthetic_dynamics import make_dynamics
from test_transitions import EARLY, LATE, OTHERS, trajectories

from jaxheads import runs
from jaxheads.__main__ import main
from jaxheads.engine import passes
from jaxheads.errors import UserError
from jaxheads.models import gpt2, toy
from jaxheads.scores import function_vector, induction
from jaxheads.scores.attention import attention_share
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.dynamics import emergence
from jaxheads.studies.dynamics.seeds import count, order
from jaxheads.studies.dynamics.token_inputs import (
    own_config,
    prepare_tokens,
    require_tasks,
)
from jaxheads.studies.dynamics.trained import gather, is_training, run_trained
from jaxheads.studies.dynamics.transitions import Definition, find, permuted
from jaxheads.studies.report import render
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.corpora import open_corpus
from jaxheads.training.data.function_mixture import (
    FunctionMixture,
    draw_prompts,
    most_shots,
    task_names,
    unchanged_share,
)
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.text_windows import TextWindows
from jaxheads.training.data.token_store import tokenise
from jaxheads.training.data.vocabulary import train_tokenizer
from jaxheads.training.loop import train
from jaxheads.weights.model import load

SOURCE = FunctionMixture(
    30, inputs=9, shifts=2, tables=1, text_tokens=11, successors=3, longest_block=12
)
SMALL = StudyConfig(
    scores=ScoresConfig(
        clean_prompts=4,
        corrupted_prompts=3,
        sequences=4,
        documents=3,
        document_length=12,
    ),
    ablation=AblationConfig(
        prompts=5,
        fractions=(),
        keep_only=(),
        draws=0,
        matched_to=(),
    ),
    shots=4,
)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("task", ["shift-2", "table-1"])
def test_prompts_are_blocks_of_the_function(bos, task):
    source = dataclasses.replace(SOURCE, bos=bos)
    function = source.functions[task_names(source).index(task)]
    batch = draw_prompts(source, task, 100, 5, seed=3)
    assert batch.tokens.shape == (100, bos + 11) and (batch.lengths == bos + 11).all()
    if bos:
        assert (batch.tokens[:, 0] == source.vocab_size - 1).all()
    for row, target in zip(batch.tokens[:, int(bos) :], batch.targets, strict=True):
        inputs, answers = row[::2], row[1::2]
        assert len(set(inputs)) == 6 and inputs.max() < 9
        np.testing.assert_array_equal(answers, function[inputs[:-1]] + 9)
        assert target == function[inputs[-1]] + 9 and target not in row
    assert len(np.unique(batch.tokens, axis=0)) == 100
    assert len(np.unique(batch.tokens[:, -1])) == 9  # every input is asked


@pytest.mark.parametrize("corrupt", ["permutation", "derangement"])
def test_corrupted_prompts_move_the_answers(corrupt):
    clean = draw_prompts(SOURCE, "shift-1", 300, 3, seed=1)
    moved = draw_prompts(SOURCE, "shift-1", 300, 3, seed=1, corrupt=corrupt)
    np.testing.assert_array_equal(clean.targets, moved.targets)
    np.testing.assert_array_equal(clean.tokens[:, 1::2], moved.tokens[:, 1::2])
    answers = slice(2, None, 2)
    own, other = clean.tokens[:, answers], moved.tokens[:, answers]
    np.testing.assert_array_equal(np.sort(own), np.sort(other))
    share = unchanged_share(clean, moved, SOURCE)
    assert share == pytest.approx((own == other).mean())
    # A uniform permutation keeps one of its places on average.
    assert share == 0 if corrupt == "derangement" else abs(share - 1 / 3) < 0.08
    kinds = {tuple(np.argsort(a)[np.argsort(np.argsort(b))])
             for a, b in zip(own, other, strict=True)}  # fmt: skip
    assert len(kinds) == (2 if corrupt == "derangement" else 6)


def test_draws_do_not_touch_each_other():
    first, more = (draw_prompts(SOURCE, "table-1", n, 4, 0) for n in (3, 7))
    np.testing.assert_array_equal(first.tokens, more.tokens[:3])
    others = [
        draw_prompts(SOURCE, "table-1", 7, 4, 0, purpose="evaluation"),
        draw_prompts(SOURCE, "shift-1", 7, 4, 0),
        draw_prompts(SOURCE, "table-1", 7, 4, 1),
    ]
    for other in others:
        assert (other.tokens[:, 1::2] != more.tokens[:, 1::2]).any()


@pytest.mark.parametrize(
    ("task", "shots", "corrupt"),
    [("shift-3", 2, None), ("shift-1", 9, None), ("shift-1", 1, "derangement")],
)
def test_prompts_that_cannot_be_are_refused(task, shots, corrupt):
    with pytest.raises(UserError):
        draw_prompts(SOURCE, task, 2, shots, 0, corrupt=corrupt)


@pytest.mark.parametrize(
    ("length", "inputs", "bos", "shots"),
    [(30, 9, True, 8), (30, 40, True, 14), (30, 40, False, 14), (31, 40, False, 15)],
)
def test_shots_are_as_many_as_fit(length, inputs, bos, shots):
    source = dataclasses.replace(SOURCE, sequence_length=length, inputs=inputs, bos=bos)
    assert most_shots(source, 99) == shots
    batch = draw_prompts(source, "shift-1", 2, shots, 0)
    assert batch.tokens.shape[1] <= length
    assert most_shots(source, 11) == min(shots, 4 if bos else 5)


def test_a_config_becomes_one_of_the_source():
    own = own_config(SMALL, SOURCE, 30)
    assert own.scores.tasks == ("shift-1", "shift-2", "table-1")
    assert own.ablation.tasks == ("shift-1_test", "shift-2_test", "table-1_test")
    assert (own.shots, own.bos, own.ablation.max_new_tokens) == (4, True, 1)
    assert own.scores.sequence_length == 8  # the longest period
    scores = dataclasses.replace(SMALL.scores, sequence_length=40)
    longer = own_config(dataclasses.replace(SMALL, scores=scores), SOURCE, 30)
    assert longer.scores.sequence_length == 11  # text tokens; 14 would fit the window
    assert own_config(dataclasses.replace(SMALL, shots=10), SOURCE, 30).shots == 8
    scores = dataclasses.replace(SMALL.scores, tasks=("table-1",))
    named = own_config(dataclasses.replace(SMALL, scores=scores), SOURCE, 12)
    assert named.scores.tasks == ("table-1",)
    assert named.scores.sequence_length == 5 and named.scores.document_length == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(text=Path("a")), "--text"),
        (dict(drawing="published"), "--drawing"),
        (dict(targets="published"), "--targets"),
        (dict(bos=False), "--bos"),
        (dict(shots=1), "2 demonstrations"),
        (dict(scores=ScoresConfig(tasks=("shift-1", "antonym"))), "'antonym'"),
        (dict(scores=ScoresConfig(probe_tokens="retokenized")), "probe-tokens"),
    ],
)
def test_options_about_text_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        own_config(dataclasses.replace(SMALL, **change), SOURCE, 30)


def test_scores_of_text_are_refused():
    scores = dataclasses.replace(SMALL.scores, names=("retrieval",))
    config = own_config(dataclasses.replace(SMALL, scores=scores), SOURCE, 30)
    with pytest.raises(UserError, match="needs text"):
        prepare_tokens(config, SOURCE, 30, ("scores",))


def test_inputs_are_of_the_sources_tokens():
    config = own_config(SMALL, SOURCE, 30)
    made = prepare_tokens(config, SOURCE, 30, ("scores", "ablation"))
    scores, ablation = made.inputs["scores"], made.inputs["ablation"]
    text, probe = np.arange(18, 29), scores.probe
    assert made.bos
    assert probe.shape == (4, 17) and np.isin(probe[:, 1:], text).all()
    np.testing.assert_array_equal(probe[:, 1:9], probe[:, 9:])
    assert (probe[:, 0] == 29).all() and scores.documents.shape == (3, 13)
    for task in task_names(SOURCE):
        clean, corrupted = scores.clean[task], scores.corrupted[task]
        np.testing.assert_array_equal(clean.targets[:3], corrupted.targets)
        assert ablation.prompts[f"{task}_test"].tokens.shape == (5, 10)
    alone = prepare_tokens(config, SOURCE, 30, ("scores",))
    assert "ablation" not in alone.inputs
    zero = dataclasses.replace(
        config, ablation=dataclasses.replace(config.ablation, zero_shot=True)
    )
    both = prepare_tokens(zero, SOURCE, 30, ("scores", "ablation"))
    queries = both.inputs["ablation"]
    batch, full = queries.zero_shot["shift-1_test"], queries.prompts["shift-1_test"]
    np.testing.assert_array_equal(batch.tokens, full.tokens[:, [0, -1]])


def test_data_without_tasks_are_refused():
    repeats = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
    with pytest.raises(UserError, match="RepeatedTokens, which has none"):
        require_tasks(repeats, "run")


DEFINITION = Definition(early_share=0.04)


def test_transitions_of_seeds_are_counted_together():
    turned = {(2, 7): EARLY} | OTHERS
    late = {(2, 7): LATE, (3, 1): [0, 0, 0, 0.01, 0.1, 0.2]}
    trainings = [
        trajectories(turned, late, seed=0),
        trajectories(OTHERS, late, seed=1),
        trajectories(turned, late, seed=2),
    ]
    found = count(trainings, DEFINITION, permutations=40)
    assert (found.each, found.of, found.shown) == ([1, 0, 1], [2] * 3, [2] * 3)
    # The naive twin: heads are given others' trajectories, and all is found anew.
    for name in ("all heads", "within layers"):
        sums = np.zeros(40)
        for number, seen in enumerate(trainings):
            for r, places in enumerate(permuted((5, 20), 40, number)[name]):
                flat = seen.induction.reshape(6, -1)[:, places].reshape(6, 5, 20)
                other = dataclasses.replace(seen, induction=flat)
                sums[r] += find(other, DEFINITION, permutations=1).count
        assert found.expected[name] == pytest.approx(sums.mean())
        assert found.p_value[name] == pytest.approx((1 + (sums >= 2).sum()) / 41)


def test_a_little_above_chance_is_no_induction_head():
    faint = {(2, 7): [0, 0, 0.09, 0.08, 0.01, 0.0], (0, 1): [0, 0, 0, 0.09, 0.09, 0.09]}
    seen = trajectories(faint, {(2, 7): LATE})
    told = emergence.find(seen).induction["final"]
    assert told.step is None and "above chance, less than 0.1" in told.reason
    assert find(seen, DEFINITION, permutations=1).count == 0
    lower = dataclasses.replace(DEFINITION, least_induction=0.05)
    assert find(seen, lower, permutations=1).count == 1
    clear = {head: 2 * np.array(scores) for head, scores in faint.items()}
    assert find(trajectories(clear, {(2, 7): LATE}), DEFINITION, 1).count == 1


@pytest.mark.parametrize(
    ("steps", "kind"),
    [((4, 8), "induction"), ((8, 4), "fv"), ((4, 4), "same"), ((4, None), "undated")],
)
def test_the_order_is_that_of_the_dates(steps, kind):
    told = {
        name: {"final": {"step": step}, "largest": {"step": 1}}
        for name, step in zip(("induction", "fv"), steps, strict=True)
    }
    assert order([told, told], "final")[kind] == 2
    assert order([told], "largest")["same"] == 1


def test_the_page_shows_the_seeds(tmp_path):
    pytest.importorskip("vl_convert")
    each = {}
    for seed in (0, 1):
        one = make_dynamics(seed=seed)
        result = one.result | {"evaluation_tasks": [], "fingerprint": str(seed)}
        result["arrays"] = {name: {"dims": ["U"], "unit": ""} for name in one.arrays}
        path = tmp_path / f"seed_{seed}"
        each[seed] = dataclasses.replace(one, path=path, result=result)
    result, arrays = gather(tmp_path, each)
    assert result["arrays"]["dynamics/score/induction"]["dims"] == ["N", "U"]
    assert arrays["dynamics/score/induction"].shape == (2, 9, 20, 15)
    page = render(runs.Run(tmp_path, result | {"study": "dynamics of seeds"}, arrays))
    assert "Induction heads emerge first in 2 of 2 seeds" in page
    assert re.search(
        r"Of the 12 heads at the top 2.* \d+ stand out .*, of which 7", page
    )
    assert '<section id="seeds">' in page and '<section id="transition">' in page


# Whole runs, which compile studies.


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    """Two seeds on the function mixture, three checkpoints."""
    folder = tmp_path_factory.mktemp("training") / "mixture"
    model = toy.Config(2, 20, 4, 5, SOURCE.vocab_size, 30, mlp_width=22)
    config = TrainConfig(
        steps=4, batch_size=3, seeds=2, seed=5, eval_every=0, checkpoints=("2",),
        learning_rate=0.03,
    )  # fmt: skip
    train(config, model, SOURCE, folder)
    return folder


@pytest.fixture(scope="module")
def dynamics(training, tmp_path_factory, quick_compilation) -> runs.Run:
    return run_trained(training, SMALL, tmp_path_factory.mktemp("out") / "both")


@pytest.mark.slow
def test_every_seed_has_the_scores_of_its_prompts(training, dynamics):
    assert is_training(training) and not is_training(dynamics.path)
    told = dynamics.result["dynamics_seeds"]
    assert [one["seed"] for one in told["seeds"]] == [5, 6]
    assert told["steps"] == [0, 2, 4]
    assert dynamics.result["scoring_tasks"] == ["shift-1", "shift-2", "table-1"]
    effects = dynamics.arrays["dynamics/fv_effects"]
    assert effects.shape == (2, 3, 3, 2, 4)
    model = load(training / "checkpoints" / "seed_6" / "step_00000004")
    for place, task in enumerate(task_names(SOURCE)):
        clean = draw_prompts(SOURCE, task, 4, 4, 0)
        moved = draw_prompts(SOURCE, task, 3, 4, 0, corrupt="permutation")
        given = (clean.tokens, clean.lengths)
        heads = passes.last_heads(model.params, *given, model.config)
        made = function_vector.effects(
            model.params, moved.tokens, moved.lengths, moved.targets,
            np.asarray(heads).mean(axis=1), model.config,
        )  # fmt: skip
        np.testing.assert_allclose(
            effects[1, 2, place], np.asarray(made).mean(axis=-1), atol=2e-6
        )
    probe = induction.probe(4, 8, list(range(18, 29)), 29, 0)
    edges = {"induction": induction.edges(8, True)}
    seen = attention_share(model.params, probe, model.config, edges)["induction"]
    np.testing.assert_allclose(
        dynamics.arrays["dynamics/score/induction"][1, 2],
        np.asarray(seen).mean(axis=-1),
        atol=2e-6,
    )
    assert dynamics.arrays["dynamics/first_token"].shape == (2, 3, 3, 5)


@pytest.mark.slow
def test_the_same_call_reads_and_more_steps_are_refused(training, dynamics):
    told = json.loads((dynamics.path / "result.json").read_text())
    again = run_trained(training, SMALL, dynamics.path)
    assert again.result == told
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        run_trained(training, SMALL, dynamics.path, steps=(3,))
    with pytest.raises(UserError, match=r"--seeds takes seeds of .* 5, 6, not 7"):
        run_trained(training, SMALL, dynamics.path, seeds=(7,))
    with pytest.raises(UserError, match="another config"):
        run_trained(training, dataclasses.replace(SMALL, seed=1), dynamics.path)


@pytest.mark.slow
def test_one_seed_is_a_dynamics_run_that_grows_into_all(
    training, dynamics, tmp_path, quick_compilation
):
    one = run_trained(training, SMALL, tmp_path / "one", seeds=(6,), steps=(4,))
    assert one.result["study"] == "dynamics"
    np.testing.assert_array_equal(
        one.arrays["dynamics/score/function_vector"][0],
        dynamics.arrays["dynamics/score/function_vector"][1, 2],
    )
    more = run_trained(training, SMALL, tmp_path / "more", steps=(2, 4))
    assert more.result["dynamics_seeds"]["steps"] == [2, 4]
    more = run_trained(training, SMALL, tmp_path / "more")
    assert more.result["dynamics_seeds"]["steps"] == [0, 2, 4]
    for name, array in dynamics.arrays.items():
        np.testing.assert_array_equal(more.arrays[name], array, err_msg=name)


@pytest.mark.slow
def test_seeds_and_steps_have_pages(dynamics, tmp_path):
    pytest.importorskip("vl_convert")
    page = render(dynamics)
    assert "When the scores emerge, seed by seed" in page
    step = runs.load(dynamics.path / "seed_5" / "steps" / "step4")
    assert step.result["ablation"]["metrics"] == ["first_token"]
    assert "ablation/f1" not in step.arrays
    assert "shift-1_test" in render(step)
    assert "Emergence" in render(runs.load(dynamics.path / "seed_5"))


@pytest.mark.slow
def test_the_browser_draws_the_seeds(dynamics, browser):
    check_page(browser, render(dynamics))


@pytest.mark.slow
def test_the_command_prints_the_seeds(training, tmp_path, capsys, quick_compilation):
    options = "--scores.clean-prompts 3 --scores.corrupted-prompts 2 --shots 3 "
    options += "--scores.sequences 2 --no-few-shot --steps 0 4"
    out = tmp_path / "out"
    main(["dynamics", str(training), *options.split(), "-o", str(out)])
    assert "Dates of emergence" in capsys.readouterr().out
    assert (out / "report.html").is_file()
    arguments = ["dynamics", str(training / "checkpoints" / "seed_5"), "--seeds", "5"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "--seeds is of a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_without_tasks_is_refused(tmp_path):
    source = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
    config = TrainConfig(steps=1, batch_size=2, eval_every=0)
    train(config, toy.Config(1, 8, 2, 4, 10, 12), source, tmp_path / "run")
    with pytest.raises(UserError, match="`jaxheads report` shows the induction"):
        run_trained(tmp_path / "run", SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_on_text_is_scored_on_text_tasks(tmp_path, quick_compilation):
    (tmp_path / "docs").mkdir()
    for number in range(9):
        words = " ".join(f"Q: word{number} {i}\nA: capital{i}\n" for i in range(60))
        (tmp_path / "docs" / f"{number}.txt").write_text(words)
    corpus = open_corpus(tmp_path / "docs")
    tokenizer = train_tokenizer(corpus, 300)
    store = tokenise(corpus, tokenizer, tmp_path / "run-tokens")
    source = TextWindows(store, 90, 300, held_out=0, bos_id=tokenizer.bos_id)
    config = TrainConfig(
        steps=1, batch_size=2, seeds=2, eval_every=0, checkpoints=()
    )  # fmt: skip
    model = gpt2.Config(2, 12, 3, 20, 300, 160)
    train(config, model, source, tmp_path / "run", tokenizer=tokenizer)
    small = dataclasses.replace(
        SMALL,
        shots=1,
        scores=dataclasses.replace(
            SMALL.scores, tasks=("antonym", "capitalize"), sequence_length=8
        ),
        text=tmp_path / "docs",
    )
    run = run_trained(tmp_path / "run", small, tmp_path / "out", few_shot=False)
    assert run.result["scoring_tasks"] == ["antonym", "capitalize"]
    assert run.arrays["dynamics/fv_effects"].shape == (2, 2, 2, 2, 3)
    assert "dynamics/first_token" not in run.arrays
