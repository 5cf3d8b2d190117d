"""A study end to end on a tiny model: numbers, receipt, resuming after a kill."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.icl.metrics import token_f1
from jaxheads.icl.prompts import build_prompts, query_numbers
from jaxheads.icl.tasks import load_task
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation import outcomes
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.run import run_study
from jaxheads.studies.six_arguments.config import ArgumentsConfig
from jaxheads.studies.token_loss.config import TokenLossConfig
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.weights.model import load

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym", "capitalize"),
        clean_prompts=5,
        corrupted_prompts=4,
        sequences=6,
        sequence_length=12,
        documents=3,
        document_length=20,
    ),
    ablation=AblationConfig(
        tasks=("synonym", "present-past"),
        prompts=3,
        fractions=(0.1, 0.3),
        exclusion=0.1,
        keep_only=(0.2,),
        draws=2,
        max_new_tokens=3,
        heads=("0.1", "2.5"),
    ),
    token_loss=TokenLossConfig(
        documents=5, fill_documents=2, positions=(10, 30), window=3, fractions=(0.2,)
    ),
    shots=3,
)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory, quick_compilation):
    return run_study(model, SMALL, tmp_path_factory.mktemp("runs") / "study")


def arrays_of(run):
    return {name: array.tobytes() for name, array in run.arrays.items()}


def test_every_array_has_the_dims_that_the_receipt_says(run):
    size = {"L": 3, "H": 6, "K": 10, "A": 2, "E": 2, "P": 2}
    seen: dict[tuple[str, str], int] = {}
    assert set(run.result["arrays"]) == set(run.arrays)
    for name, array in run.arrays.items():
        dims = run.result["arrays"][name]["dims"]
        assert array.ndim == len(dims), name
        part = name if name.startswith("prompts") else name.split("/")[0]
        for letter, length in zip(dims, array.shape, strict=True):
            expected = size.get(letter) or seen.setdefault((part, letter), length)
            assert length == expected, (name, letter)
    assert len(run.result["ablation"]["sets"]) == len(run.arrays["ablation/replaced"])
    assert len(run.result["token_loss"]["sets"]) == len(run.arrays["token_loss/loss"])


def test_a_run_says_which_prompts_ask_one_query(run):
    asked = {"fv": ("antonym", "capitalize"), "ablation": ("synonym", "present-past")}
    counts = {"fv": 4, "ablation": 3}
    for part, tasks in asked.items():
        for task, numbers in zip(tasks, run.arrays[f"{part}/queries"], strict=True):
            drawn = build_prompts(load_task(task), counts[part], 3, SMALL.seed)
            np.testing.assert_array_equal(numbers, query_numbers(drawn))
    (outcome, *_) = outcomes.accuracy(run)
    assert outcome.over == "queries of these tasks"
    older = {n: a for n, a in run.arrays.items() if not n.endswith("/queries")}
    (outcome, *_) = outcomes.accuracy(dataclasses.replace(run, arrays=older))
    assert "each counted as a query of its own" in outcome.over


def test_the_receipt_is_complete(run, model):
    result = run.result
    assert result["model"]["params_sha256"] == model.provenance.params_sha256
    assert result["model"]["num_params"] > 0 and result["model"]["bos"] is False
    assert result["config"]["scores"]["tasks"] == ["antonym", "capitalize"]
    assert set(result["wall_s"]) == {"scores", "ablation", "token_loss"}
    assert {row["part"] for row in result["plan"]["rows"]} == set(result["wall_s"])
    assert result["versions"]["jaxheads"]
    assert 0 <= result["task_info"]["antonym"]["unchanged_share"] < 1
    for score in result["scores"].values():
        assert score["definition"] and score["source"]
        assert score["chance"] < score["ceiling"]


def naive_answers(model, tokens, length, replaced, fill, new_tokens):
    """Greedy answer of one prompt by whole forwards, ablated from its last position."""
    ids = list(tokens[:length])
    for _ in range(new_tokens):
        where = np.arange(len(ids))[None] >= length - 1
        ablation = Ablation(jnp.asarray(1.0 - replaced), fill, jnp.asarray(where))
        out = forward(model.params, jnp.asarray([ids]), model.config, ablation=ablation)
        ids.append(int(out.logits[0, -1].argmax()))
    return ids[length:]


def test_accuracy_and_f1_equal_whole_forwards(run, model):
    from jaxheads.icl.prompts import build_prompts
    from jaxheads.icl.tasks import load_task

    fill = run.arrays["fv/mean_heads"]
    rng = np.random.default_rng(0)
    for e, task in enumerate(run.result["evaluation_tasks"]):
        prompts = build_prompts(load_task(task), 3, 3, 0)
        tokens = run.arrays[f"prompts/evaluation/{task}"]
        lengths = run.arrays[f"prompts/evaluation/{task}/lengths"]
        targets = run.arrays[f"prompts/evaluation/{task}/targets"]
        for n in rng.choice(len(run.arrays["ablation/replaced"]), 3, replace=False):
            replaced = run.arrays["ablation/replaced"][n]
            b = int(rng.integers(3))
            made = naive_answers(model, tokens[b], lengths[b], replaced, fill, 3)
            first = run.arrays["ablation/first_token"][n, e, b]
            assert first == (made[0] == targets[b])
            text = model.tokenizer.decode(made)
            expected = token_f1(text, prompts[b].answer)
            np.testing.assert_allclose(run.arrays["ablation/f1"][n, e, b], expected)


def test_the_mean_heads_are_those_of_the_clean_prompts(run, model):
    means = []
    for task in run.result["scoring_tasks"]:
        tokens = run.arrays[f"prompts/clean/{task}"]
        lengths = run.arrays[f"prompts/clean/{task}/lengths"]
        out = forward(model.params, tokens, model.config, capture=("heads",))
        assert out.heads is not None
        means.append(out.heads[:, np.arange(5), lengths - 1].mean(axis=1))
    np.testing.assert_allclose(
        run.arrays["fv/mean_heads"], np.mean(means, axis=0), atol=2e-5
    )


def test_losses_equal_whole_forwards(run, model):
    tokens = run.arrays["prompts/token_loss"]
    fill_tokens = run.arrays["prompts/token_loss_fill"]
    out = forward(model.params, fill_tokens, model.config, capture=("heads",))
    assert out.heads is not None
    mean = out.heads.mean(axis=(1, 2))
    for n, told in enumerate(run.result["token_loss"]["sets"]):
        keep = jnp.asarray(1.0 - run.arrays["token_loss/replaced"][n])
        fill = mean if told["value"] == "mean" else None
        out = forward(model.params, tokens, model.config, ablation=Ablation(keep, fill))
        logits = np.asarray(out.logits)
        logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        loss = -np.take_along_axis(logp[:, :-1], tokens[:, 1:, None], 2)[..., 0]
        # loss[:, i] scores index i + 1; token 10 of a document without BOS is index 9.
        exact = np.stack([loss[:, 8], loss[:, 28]], axis=1)
        window = np.stack([loss[:, 7:10].mean(1), loss[:, 27:30].mean(1)], axis=1)
        np.testing.assert_allclose(run.arrays["token_loss/exact"][n], exact, atol=1e-4)
        np.testing.assert_allclose(run.arrays["token_loss/loss"][n], window, atol=1e-4)


def test_sets_are_recorded_with_what_they_changed(run):
    for part in ("ablation", "token_loss"):
        for told in run.result[part]["sets"]:
            assert (told["largest_change"] > 0) == (told["count"] > 0)
    own = run.result["ablation"]["sets"][-1]
    assert own["name"] == "0.1 2.5" and own["mode"] == "chosen"


def test_a_finished_run_is_read_and_not_run_again(run, model):
    before = os.stat(run.path / "result.json").st_mtime_ns
    again = run_study(model, SMALL, run.path)
    assert arrays_of(again) == arrays_of(run)
    assert os.stat(run.path / "result.json").st_mtime_ns == before


def test_another_config_or_model_is_refused(run, model):
    with pytest.raises(UserError, match=r"config.seed: 0 there, 1 asked for"):
        run_study(model, dataclasses.replace(SMALL, seed=1), run.path)


@pytest.mark.slow
def test_the_memory_budget_changes_no_number(run, model, tmp_path):
    tight = run_study(model, SMALL, tmp_path / "tight", memory_gb=1e-3)
    for name, array in run.arrays.items():
        np.testing.assert_allclose(tight.arrays[name], array, atol=2e-5, err_msg=name)


def test_a_ranking_comes_from_another_run(run, model, tmp_path):
    scored = run_study(model, SMALL, tmp_path / "scores", parts=("scores",))
    ablated = run_study(
        model, SMALL, tmp_path / "ablate", parts=("ablation",), ranking=scored
    )
    for name in ("ablation/replaced", "ablation/first_token", "ablation/f1"):
        np.testing.assert_array_equal(ablated.arrays[name], run.arrays[name])
    assert ablated.result["ranking"] == scored.result["fingerprint"]
    losses = run_study(
        model, SMALL, tmp_path / "loss", parts=("token_loss",), ranking=scored
    )
    np.testing.assert_allclose(
        losses.arrays["token_loss/loss"], run.arrays["token_loss/loss"], atol=1e-5
    )
    other = dataclasses.replace(
        model, provenance=dataclasses.replace(model.provenance, params_sha256="00")
    )
    with pytest.raises(UserError, match="other params"):
        run_study(other, SMALL, tmp_path / "x", parts=("ablation",), ranking=scored)
    shared = dataclasses.replace(
        SMALL,
        scores=ScoresConfig(tasks=("next_item",)),
        ablation=dataclasses.replace(SMALL.ablation, tasks=("antonym",)),
    )
    with pytest.raises(UserError, match="disjoint"):
        run_study(model, shared, tmp_path / "x", parts=("ablation",), ranking=scored)


CHILD = """
import sys
from jaxheads import runs
from jaxheads.weights.model import load
from test_study import SMALL
from jaxheads.studies.run import run_study
run_study(load(sys.argv[1]), SMALL, sys.argv[2])
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_arrays(run, model_folder, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(model_folder), str(out)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
        # Each try compiles what the first one did.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # as here, or the last bits differ
    }
    for units in (1, 5):  # killed when so many units are there
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            if len(list((out / "units").glob("[!.]*.npz"))) >= units:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait()
    assert not (out / "result.json").exists()
    subprocess.run(command, env=environment, check=True)
    again = runs.load(out)
    # The kill may fall anywhere: the arrays are equal to the last bit all the same.
    assert arrays_of(again) == arrays_of(run)
    assert (out / "arrays.npz").read_bytes() == (run.path / "arrays.npz").read_bytes()
    assert sorted(os.listdir(out)) == ["arrays.npz", "result.json"]
    times = ("wall_s", "sha256")  # the second is of a file that states the first
    first, second = (
        {k: v for k, v in json.loads((path / "result.json").read_text()).items()}
        for path in (run.path, out)
    )
    for key in times:
        del first[key], second[key]
    assert first == second


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(scores=ScoresConfig(tasks=("antonim",))), "antonym"),
        (dict(shots=400), "401"),
        (
            dict(token_loss=TokenLossConfig(documents=4000)),
            "documents of 510 tokens or more",
        ),
        (dict(token_loss=TokenLossConfig(positions=(50, 900))), "context|lower"),
        (dict(shots=60), "context holds 512"),
        (dict(bos=True, tasks="nowhere"), "nowhere"),
    ],
)
def test_inputs_that_do_not_fit_are_one_sentence(model, tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        run_study(model, dataclasses.replace(SMALL, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StudyConfig(scores=ScoresConfig(tasks=("synonym",))), "disjoint"),
        (lambda: StudyConfig(shots=-1), "--shots must be 0 or more"),
        (
            lambda: StudyConfig(ablation=AblationConfig(fractions=(1.5,))),
            "between 0 and 1, not 1.5",
        ),
        (
            lambda: StudyConfig(token_loss=TokenLossConfig(positions=(60, 50))),
            "early token and a later",
        ),
        (lambda: StudyConfig(token_loss=TokenLossConfig(window=2)), "odd"),
        (
            lambda: StudyConfig(ablation=AblationConfig(tasks=("x", "x"))),
            "different tasks",
        ),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (StudyConfig, lambda config: config),
        (ScoresConfig, lambda part: StudyConfig(scores=part)),
        (AblationConfig, lambda part: StudyConfig(ablation=part)),
        (TokenLossConfig, lambda part: StudyConfig(token_loss=part)),
        (ExecutionConfig, lambda part: StudyConfig(execution=part)),
        (RedundancyConfig, lambda part: StudyConfig(redundancy=part)),
        (AttributionConfig, lambda part: StudyConfig(attribution=part)),
        (TrainConfig, TrainConfig.check),
        (EvidenceConfig, EvidenceConfig.check),
        (ArgumentsConfig, ArgumentsConfig.check),
        (ArmsConfig, ArmsConfig.check),
    ],
)
def test_a_count_that_no_machine_can_do_is_refused(kind, check):
    for field in dataclasses.fields(kind):
        if field.type is not int:
            continue
        if "seed" in field.name and field.name != "seeds":
            check(kind(**{field.name: 10**15}))
            continue
        option = field.name.replace("_", "-")
        with pytest.raises(
            UserError, match=f"{option} (must be at most .*,000|takes an odd)"
        ):
            check(kind(**{field.name: 10**12}))


def test_a_config_of_another_study_is_refused():
    with pytest.raises(TypeError, match="ablation must be of AblationConfig, but is S"):
        StudyConfig(ablation=ScoresConfig())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="scores must be of ScoresConfig, but is dict"):
        StudyConfig(studies={"scores": {"sequences": 3}})
    config = StudyConfig(ablation=AblationConfig(draws=3))
    config = dataclasses.replace(config, ablation=AblationConfig(draws=4))
    assert config.ablation.draws == 4
