"""The redundancy study end to end on a tiny model: numbers, receipt, resuming."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.__main__ import main
from jaxheads.engine.progress import Progress
from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import probability
from jaxheads.runs import Arrays, RunFolder, load as load_run
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

SMALL = StudyConfig(
    redundancy=RedundancyConfig(
        tasks=("synonym", "present-past"), prompts=3, top=3, permutations=4
    ),
    shots=3,
)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory):
    """A run with made-up scores, as far as a ranking of this model is read."""
    rng = np.random.default_rng(0)
    names = ("function_vector", "induction")
    result = {
        "model": {"params_sha256": model.provenance.params_sha256},
        "scores": {name: {"unit": "probability"} for name in names},
        "scoring_tasks": ["antonym"],
        "task_info": {},
    }
    arrays: Arrays = {"fv/mean_heads": rng.normal(size=(3, 6, 10)).astype(np.float32)}
    for name in names:
        arrays[f"score/{name}"] = rng.normal(size=(3, 6))
        arrays[f"score/{name}_se"] = rng.uniform(size=(3, 6))
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "scored", "scores", {}, {})
    return folder.finish(result, arrays)


@pytest.fixture(scope="module")
def run_part(model, scored, quick_compilation):
    def run(out, config=SMALL, **options):
        return run_study(
            model, config, out, parts=("redundancy",), ranking=scored, **options
        )

    return run


@pytest.fixture(scope="module")
def run(run_part, tmp_path_factory):
    return run_part(tmp_path_factory.mktemp("runs") / "redundancy")


def changed(**changes) -> StudyConfig:
    return dataclasses.replace(
        SMALL, redundancy=dataclasses.replace(SMALL.redundancy, **changes)
    )


def naive(run, model, kind, replaced):
    """Values [N, B] by whole forwards."""
    name = f"prompts/redundancy/{kind}"
    tokens, lengths, targets = (
        run.arrays[name + part] for part in ("", "/lengths", "/targets")
    )
    where = jnp.asarray(np.arange(tokens.shape[1])[None] == lengths[:, None] - 1)
    rows = []
    for one in replaced:
        ablation = Ablation(jnp.asarray(1.0 - one), run.arrays["fv/mean_heads"], where)
        out = forward(
            model.params,
            tokens,
            model.config,
            lengths=lengths,
            ablation=ablation,
            logits="last",
        )
        rows.append(np.asarray(probability(out.logits, targets)))
    return np.stack(rows)


def test_the_numbers_are_those_of_whole_forwards(run, model):
    for name in ("backward", "forward"):
        replaced = run.arrays[f"redundancy/{name}_replaced"]
        for kind, array in (("selection", "value"), ("held_out", "held_out")):
            slow = naive(run, model, kind, replaced)
            fast = run.arrays[f"redundancy/{name}_{array}"]
            np.testing.assert_allclose(fast, slow, atol=2e-5)
    heads = run.arrays["redundancy/heads"]
    pair = np.zeros((4, 3, 6), bool)
    pair[[1, 3], *heads[0]] = pair[[2, 3], *heads[1]] = True
    none, one, other, both = naive(run, model, "selection", pair).mean(axis=1)
    found = run.arrays["redundancy/interaction"][0, 1]
    np.testing.assert_allclose(found, both - one - other + none, atol=2e-5)


def test_the_heads_are_the_top_of_the_ranking(run, scored):
    scores = scored.arrays["score/function_vector"]
    order = np.argsort(-scores, axis=None, kind="stable")[:3]
    expected = np.stack(np.unravel_index(order, scores.shape), axis=1)
    np.testing.assert_array_equal(run.arrays["redundancy/heads"], expected)


def test_the_result_says_what_it_cost(run):
    told = run.result["redundancy"]
    work = told["work"]
    # 2 x 4 orders of 4 prefixes, 7 single and paired sets and clean, and the searches.
    assert work["subsets_asked"] > 8 * 4 + 7
    assert work["subsets_run"] < work["subsets_asked"]
    assert work["prompts"] == 12
    tokens = sum(
        run.arrays[f"prompts/redundancy/{kind}/lengths"].sum()
        for kind in ("selection", "held_out")
    )
    assert work["tokens"] == tokens + work["subset_prompts"]
    assert work["whole_forward_tokens"] > 5 * work["subset_prompts"]
    assert work["forwards_timed"] == 6 and work["whole_forward_s"] > 0
    assert work["largest_difference"] < 1e-5
    assert run.result["plan"]["rows"][0]["forwards"] >= work["subset_prompts"]
    assert "complements" in told["sign"] and "substitutes" in told["sign"]
    assert min(told["largest_change"]) > 0


def test_shares_are_of_the_clean_value_and_told_again_on_held_out_prompts(run, model):
    told = run.result["redundancy"]
    nothing = np.zeros((1, 3, 6), bool)
    for name in ("backward", "forward"):
        path = told[name]
        assert path["reached"] and set(path["kept"]) <= set(told["heads"])
        at = path["smallest"]
        for key, kind, array in (
            ("share", "selection", "value"),
            ("held_out_share", "held_out", "held_out"),
        ):
            clean = naive(run, model, kind, nothing).mean()
            value = run.arrays[f"redundancy/{name}_{array}"][at].mean()
            assert path[key] == pytest.approx(value / clean, rel=1e-4)
            assert path[f"{key}_se"] >= 0
        assert path["share"] >= 0.9


def test_every_array_has_the_dims_that_the_receipt_says(run):
    seen: dict[str, int] = {"L": 3, "H": 6, "C": 3, "R": 8, "P": 2, "B": 6}
    named = {n: a for n, a in run.arrays.items() if n.startswith("redundancy/")}
    assert len(named) == 27
    for name, array in named.items():
        dims = run.result["arrays"][name]["dims"]
        assert array.ndim == len(dims), name
        for letter, length in zip(dims, array.shape, strict=True):
            assert length == seen.setdefault(letter, length), name


def test_no_item_is_in_both_halves(run, model):
    texts = {
        kind: {
            question
            for row in run.arrays[f"prompts/redundancy/{kind}"]
            for question in model.tokenizer.decode(row.tolist()).split("Q: ")[1:]
        }
        for kind in ("selection", "held_out")
    }
    assert not texts["selection"] & texts["held_out"] - {""}


def test_the_command_makes_the_same_run_with_tables_and_a_report(
    run, scored, model_folder, capfd, tmp_path
):
    out = tmp_path / "run"
    options = "--shots=3 --redundancy.tasks synonym present-past --redundancy.prompts=3"
    options += " --redundancy.top=3 --redundancy.permutations=4"
    where = ["--ranking", str(scored.path), "--out", str(out)]
    main(["redundancy", str(model_folder), *options.split(), *where])
    again = load_run(out)
    assert again.result["fingerprint"] == run.result["fingerprint"]
    assert (
        again.arrays["redundancy/shapley"] == run.arrays["redundancy/shapley"]
    ).all()
    said, plan = capfd.readouterr()
    for text in ("interactions", "Shapley values", "greedy searches", "times as long"):
        assert text in said
    assert "redundancy" in plan and "FLOPs" in plan
    assert '<section id="smallest-set">' in (out / "report.html").read_text("utf-8")


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("moment", [1, 2, 4, 6])
def test_interrupted_it_goes_on_and_ends_with_the_same_arrays(
    run, run_part, tmp_path, moment
):
    calls = 0

    def advance(flops):
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Stop

    with pytest.raises(Stop):
        run_part(tmp_path / "run", progress=Progress(advance=advance))
    assert not (tmp_path / "run" / "result.json").exists()
    again = run_part(tmp_path / "run")
    assert {n: a.tobytes() for n, a in again.arrays.items()} == {
        n: a.tobytes() for n, a in run.arrays.items()
    }


def test_all_heads_may_be_searched_with_the_others_gone(run_part, tmp_path):
    config = changed(
        universe="all", others="replaced", heads=("0.1", "2.5"), antithetic=False
    )
    made = run_part(tmp_path / "run", config)
    told = made.result["redundancy"]
    assert told["chosen_by"] == "name" and told["heads"] == ["0.1", "2.5"]
    replaced = made.arrays["redundancy/forward_replaced"]
    assert replaced[0].all()
    assert not made.arrays["redundancy/backward_replaced"][0].any()
    assert made.arrays["redundancy/backward_share"][0] == 1
    assert told["permutations"] == 4


def test_a_model_that_is_never_right_is_told_so(run_part, tmp_path):
    with pytest.raises(UserError, match="clean value is 0 and the floor 0"):
        run_part(tmp_path / "run", changed(metric="accuracy"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(heads=("0.1",)), "two or more, not 1"),
        (dict(top=1), "2 or more, but is 1"),
        (dict(top=99), "99 heads were asked for"),
        (dict(heads=("7.0", "0.1")), "head 7.0 is out of range"),
        (dict(ranking_by="luck"), "luck"),
        (dict(tasks=("antonym",)), "disjoint.*--redundancy.tasks"),
        (dict(tasks=("synonim",)), "synonym"),
    ],
)
def test_inputs_that_do_not_fit_are_one_sentence(run_part, tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        run_part(tmp_path / "out", changed(**changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(UserError, match=f"at most 1, not {share}"):
        changed(share=share)
