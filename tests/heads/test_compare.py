"""Rankings as files, and two of them compared, against brute force and by hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import Sizes, write_run
from test_cli import jaxheads

from jaxheads.errors import UserError
from jaxheads.heads import HeadScores, count_of, parse_heads
from jaxheads.heads.comparison import compare
from jaxheads.heads.rankings import Ranking, read_ranking, write_ranking


def ranking(values, name="a score", params: str | None = "00" * 32) -> Ranking:
    mean = np.asarray(values, np.float64)
    error = np.full(mean.shape, np.nan)
    scores = HeadScores(name, mean, error, "", "", 0.0, 1.0, "")
    return Ranking(scores, Path(name), params_sha256=params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "run"
    write_run(path, sizes=Sizes(layers=8, heads=7))
    return path


def random_pair(seed: int, shape=(6, 10)):
    rng = np.random.default_rng(seed)
    a = rng.gamma(0.3, size=shape) * rng.choice([-1, 1], shape)
    return a, 0.5 * a + rng.gamma(0.3, size=shape)


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_a_ranking_is_read_back_to_the_last_bit(folder, suffix, tmp_path):
    run = read_ranking(folder, "induction")
    path = tmp_path / "a folder" / f"induction.{suffix}"
    sha = run.params_sha256
    write_ranking(path, run.scores, model=run.model, params_sha256=sha)
    back = read_ranking(path, shape=(8, 7), params_sha256=sha)
    assert back.scores.name == "induction"
    assert (back.scores.mean == run.scores.mean).all()
    assert (back.scores.standard_error == run.scores.standard_error).all()
    if suffix == "json":
        assert back.scores.describe() == run.scores.describe()
        assert (back.model, back.params_sha256) == (run.model, sha)
    unknown = ranking(run.scores.mean).scores  # has no standard errors
    write_ranking(path, unknown)
    assert np.isnan(read_ranking(path).scores.standard_error).all()


def test_a_ranking_of_another_model_is_refused(folder, tmp_path):
    path = tmp_path / "r.json"
    write_ranking(path, read_ranking(folder).scores, params_sha256="ab" * 32)
    for source in (folder, path):
        with pytest.raises(UserError, match="8 layers of 7 heads, but this one has 7"):
            read_ranking(source, shape=(7, 8))
        with pytest.raises(UserError, match="made for other params"):
            read_ranking(source, params_sha256="00" * 32)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("r.csv", "layer,head\n0,0\n", "has no score"),
        ("r.csv", "layer,head,score\n0,0,1\n0,2,1\n", "but not head 0.1"),
        ("r.csv", "layer,head,score\n", "but not any row"),
        ("r.csv", "layer,head,score\n0,0,1\n0,0,2\n", "has head 0.0 twice"),
        ("r.csv", "layer,head,score\n0,0,1\n0,1,big\n", "line 3: .*'big'"),
        ("r.csv", "layer,head,score\n0,0,nan\n", "line 2: .* finite"),
        ("r.csv", "layer,head,score\n0,-1,1\n", "line 2: .* negative"),
        ("r.csv", "layer,head,score\n0\n", "line 2"),
        ("r.json", '{"schema": 1, "name": "x", "score": [[1], [1, 2]]}', "score must"),
        (
            "r.json",
            '{"schema": 1, "name": "x", "score": [[1, null]]}',
            "a value is nul",
        ),
        ("r.json", '{"schema": 1, "name": "x", "score": 3}', "list of layers"),
        ("r.json", '{"schema": 1, "name": "x", "score": []}', "list of layers"),
        ("r.json", '{"schema": 1, "name": "x", "score": [[NaN]]}', "finite"),
        ("r.json", '{"schema": 1, "name": "x"}', "no score"),
        ("r.json", '{"schema": 0, "name": "x", "score": [[1]]}', "schema 0"),
        (
            "r.json",
            '{"schema": 1, "name": "x", "score": [[1, 2]], "standard_error": [[1]]}',
            r"\[1, 2\] and \[1, 1\]",
        ),
        ("r.json", "\x00\xff", "must be JSON"),
        ("none.csv", None, "No such file"),
    ],
)
def test_a_file_that_holds_no_ranking_is_refused(name, text, sentence, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=sentence) as refused:
        read_ranking(path)
    assert name in str(refused.value)


def test_a_ranking_is_asked_for_by_name(folder, tmp_path):
    with pytest.raises(UserError, match="no score 'x': it has function_vector, ind"):
        read_ranking(folder, "x")
    path = tmp_path / "r.json"
    write_ranking(path, read_ranking(folder).scores)
    with pytest.raises(UserError, match="holds the score 'function_vector', not 'x'"):
        read_ranking(path, "x")
    assert read_ranking(path, "function_vector").scores.name == "function_vector"


def test_what_is_no_ranking_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"as \.json or \.csv, not as r\.txt"):
        write_ranking(tmp_path / "r.txt", ranking(np.ones((2, 3))).scores)
    with pytest.raises(UserError, match="finite"):
        write_ranking(tmp_path / "r.csv", ranking([[np.nan]]).scores)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("by", ["largest", "magnitude"])
def test_top_sets_are_compared_as_by_hand(by):
    a, b = random_pair(0)
    made = compare(ranking(a, "a"), ranking(b, "b"), (0.1, 0.3), by=by, draws=2)
    if by == "magnitude":
        a, b = abs(a), abs(b)
    for one, fraction in zip(made.tops, (0.1, 0.3), strict=True):
        count = count_of(fraction, 60)
        best = [set(np.argsort(-x.ravel())[:count].tolist()) for x in (a, b)]
        assert (one.fraction, one.count) == (fraction, count)
        assert one.shared == len(best[0] & best[1]) == round(one.share * count)
        assert one.jaccard == pytest.approx(one.shared / len(best[0] | best[1]))
        names = {f"{i // 10}.{i % 10}" for i in best[0] & best[1]}
        assert set(one.heads) == names
        layers = [np.mean([i // 10 for i in heads]) for heads in best]
        assert [one.depth_a, one.depth_b] == pytest.approx(layers)
        assert one.depth_difference == pytest.approx(layers[0] - layers[1])
        mean = b.ravel()[list(best[0])].mean()
        assert one.percentile_a_in_b == pytest.approx(100 * (b < mean).mean())


@pytest.mark.slow
def test_the_chance_of_an_overlap_is_that_of_random_rankings():
    rng = np.random.default_rng(1)
    a, _ = random_pair(1)
    tops = [
        compare(ranking(a), ranking(rng.random((6, 10)), "b"), (0.2,), draws=1).tops[0]
        for _ in range(400)
    ]
    shared = np.array([one.shared for one in tops])
    assert tops[0].shared_chance == pytest.approx(12 * 12 / 60)
    assert shared.mean() == pytest.approx(tops[0].shared_chance, abs=0.25)
    # A p-value is small no more often than it says.
    p_values = np.array([one.p_value for one in tops])
    for level in (0.05, 0.3):
        assert (p_values <= level).mean() <= level + 0.04
    # The chance of one comparison, by its own draws, is the mean over such rankings.
    drawn = compare(ranking(a), ranking(rng.random((6, 10)), "b"), (0.2,)).tops[0]
    for name, near in (("spearman", 0.06), ("kendall", 0.06), ("percentile_a_in_b", 4)):
        mean = np.mean([getattr(one, name) for one in tops])
        assert getattr(drawn, f"{name}_chance") == pytest.approx(mean, abs=near)
    assert drawn.spearman_chance < -0.3, "the choice of heads sets rankings at odds"


def test_a_ranking_agrees_with_itself_and_not_with_its_reverse():
    a, _ = random_pair(2)
    same = compare(ranking(a, "a"), ranking(np.exp(a), "b"), (0.1,), draws=1)
    assert same.spearman == same.kendall == same.tops[0].jaccard == pytest.approx(1)
    assert same.tops[0].p_value < 1e-6 and same.tops[0].depth_difference == 0
    other = compare(ranking(a, "a"), ranking(-a, "b"), (0.1,), draws=1)
    assert other.spearman == other.kendall == pytest.approx(-1)
    assert (other.tops[0].shared, other.tops[0].p_value) == (0, 1)
    size = compare(ranking(a, "a"), ranking(-a, "b"), (0.1,), by="magnitude", draws=1)
    assert size.spearman == pytest.approx(1) and size.tops[0].share == 1


def test_exchanging_two_rankings_exchanges_what_is_said_of_them():
    a, b = random_pair(3)
    one = compare(ranking(a, "a"), ranking(b, "b"), (0.2,), draws=1).tops[0]
    two = compare(ranking(b, "b"), ranking(a, "a"), (0.2,), draws=1).tops[0]
    assert one.percentile_a_in_b == two.percentile_b_in_a
    assert one.percentile_a_in_b != one.percentile_b_in_a
    assert (one.depth_a, one.depth_b) == (two.depth_b, two.depth_a)
    assert (one.heads, one.spearman) == (two.heads, pytest.approx(two.spearman))


def test_the_seed_decides_what_is_drawn_and_no_figure():
    a, b = random_pair(4)
    made = [
        compare(ranking(a, "a"), ranking(b, "b"), (0.2,), seed=seed, draws=5)
        for seed in (0, 0, 1)
    ]
    assert made[0] == made[1]
    one, other = made[0].tops[0], made[2].tops[0]
    assert one.spearman == other.spearman
    assert one.spearman_chance != other.spearman_chance


def test_constant_scores_have_no_rank_correlation_and_the_json_says_null():
    made = compare(
        ranking(np.ones((2, 3)), "a"), ranking(random_pair(0, (2, 3))[0], "b")
    )
    assert np.isnan(made.spearman) and made.notes == ()
    said = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert said["spearman"] is None and said["tops"][0]["spearman"] is None
    assert said["tops"][0]["count"] == 1 and said["shape"] == [2, 3]


def test_rankings_that_cannot_be_compared_are_refused():
    a, b = ranking(np.eye(3), "a"), ranking(np.ones((3, 4)), "b")
    with pytest.raises(UserError, match="a has 3 layers of 3 heads, and b 3 of 4"):
        compare(a, b)
    with pytest.raises(UserError, match="needs two rankings, but both are a of a"):
        compare(a, a)
    for fractions in ((0.1, 0.0), (1.5,), ()):
        with pytest.raises(UserError, match="--fraction takes shares"):
            compare(a, ranking(np.eye(3), "b"), fractions)


def test_other_params_are_noted_and_not_refused():
    a, b = random_pair(5)
    for params, sentence in (("11" * 32, "two checkpoints or mod"), (None, "not say")):
        made = compare(ranking(a, "a"), ranking(b, "b", params), draws=1)
        assert sentence in made.notes[0]


def test_two_scores_of_one_run_are_compared_in_the_terminal(folder, capfd, tmp_path):
    out = tmp_path / "a folder" / "c.json"
    options = ("--score-b", "induction", "--fraction", "0.05", "0.25", "--out", out)
    code, said, _ = jaxheads(capfd, "compare", folder, *options)
    assert code == 0
    for words in ("function_vector of", "induction of", "top 0.25", "all heads 56"):
        assert words in said
    told = json.loads(out.read_text())
    assert [one["fraction"] for one in told["tops"]] == [0.05, 0.25]
    assert (told["a"]["score"], told["b"]["score"]) == ("function_vector", "induction")
    fv, induction = (read_ranking(folder, n) for n in ("function_vector", "induction"))
    made = compare(fv, induction, (0.05, 0.25)).to_dict()
    assert told == json.loads(json.dumps(made))
    one = told["tops"][1]
    assert (
        parse_heads(one["heads"], (8, 7)).sum() == one["shared"] <= one["count"] == 14
    )


def test_checkpoints_and_saved_rankings_are_compared(folder, capfd, tmp_path):
    saved = tmp_path / "later [1].csv"
    write_ranking(saved, read_ranking(folder).scores)
    code, said, _ = jaxheads(capfd, "compare", folder, saved, "--magnitude")
    assert code == 0 and "top heads by magnitude" in said and "later [1].csv" in said
    assert "Spearman 1.00" in said and "note " in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "give a second run or file, or --score-b"),
        (("--score-b", "function_vector"), "needs two rankings"),
        (("--score-b", "x"), "no score 'x'"),
        (("/no/run",), "/no/run"),
        (("--score-b", "induction", "--fraction", "2"), "--fraction"),
        (("--score-b", "induction", "--out", "c.txt"), "must be a .json"),
    ],
)
def test_a_mistake_in_a_comparison_is_one_sentence(folder, capfd, options, sentence):
    code, said, error = jaxheads(capfd, "compare", folder, *options)
    assert code == 2 and not said and sentence in error
    assert error.count("\n") == 1 and error.startswith("jaxheads: ")


def test_a_comparison_starts_no_jax(folder):
    code = (
        "import sys; from jaxheads.__main__ import main\n"
        f"main(['compare', {str(folder)!r}, '--score-b', 'induction'])\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
