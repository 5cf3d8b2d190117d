"""``jaxheads train``: end to end, and mistakes as one sentence."""

import json

import numpy as np
import pytest
from test_cli import jaxheads

import jaxheads as jh
from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.models import gpt_neox, llama, toy
from jaxheads.training.choices import GENERATORS, choose_data, choose_model
from jaxheads.training.config import DataChoice, ModelChoice
from jaxheads.weights.presets import PRESETS

pytestmark = pytest.mark.usefixtures("quick_compilation")

TINY = ["--steps=3", "--batch-size=2", "--eval-every=0", "--width=16", "--heads=2"]
REPEATS = DataChoice(data_settings=("sequence_length=20", "vocab_size=33"))


def test_a_run_by_the_command_line(capfd, tmp_path):
    out = tmp_path / "run"
    arguments = ["train", *TINY, "--seeds=2", "--objective=hapax", "--layers=1"]
    arguments += ["--settings", "smeared_keys=true", "positions=rotary"]
    arguments += ["--data-settings", "sequence_length=40", "--checkpoints", "2"]
    code, said, told = jaxheads(capfd, *arguments, "--out", out)
    assert code == 0
    assert "hapax: 480 tokens" in said and "seed_1/step_00000003" in said
    assert "step 3 of 3" in told and "tokens/s" in told
    run = runs.load(out)
    assert run.arrays["train/loss"].shape == (3, 2)
    np.testing.assert_array_equal(run.arrays["train/checkpoints"], [0, 2, 3])
    model = jh.load(out / "checkpoints" / "seed_0" / "step_00000002")
    assert model.config == toy.Config(
        1, 16, 2, 8, 64, 40, smeared_keys=True, positions="rotary"
    )
    # Told from the config alone: nothing is trained.
    code, _, _ = jaxheads(capfd, *arguments, "--out", out)
    assert code == 0
    code, _, told = jaxheads(capfd, *arguments, "--seed=5", "--out", out)
    assert code == 2 and "config.seed: 0 there, 5 asked for" in told


@pytest.mark.slow
def test_text_is_tokenised_and_kept_with_the_models(capfd, tmp_path):
    pytest.importorskip("grain")
    text = tmp_path / "texts"
    text.mkdir()
    for i in range(30):
        words = " ".join(f"word{(i * j) % 17} of text {j}" for j in range(60))
        (text / f"{i}.txt").write_text(words)
    out = tmp_path / "run"
    code, _, told = jaxheads(
        capfd,
        *("train", *TINY, "--layers=1", "--data", text, "--vocab-size=300"),
        *("--data-settings", "sequence_length=24", "held_out=0.2", "separate=true"),
        *("--eval-every=3", "--out", out),
    )
    assert code == 0, told
    assert (tmp_path / "run-tokens" / "store.json").is_file()
    model = jh.load(out / "checkpoints" / "step_00000003")
    assert model.require_tokenizer().decode(
        model.require_tokenizer().encode("word3 of text 5")
    ) == ("word3 of text 5")
    run = runs.load(out)
    assert run.arrays["evaluation/all_loss"].shape == (2, 1)
    assert run.result["model"]["held_out"]["split"] == "held-out"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nosuch"], "--model takes a family"),
        (["--settings", "mlp=3"], "mlp_width"),
        (["--settings", "mlp_width"], "name=value"),
        (["--settings", "rope=-1"], "theta must be positive"),
        (["--settings", f"rope={10**400}"], "too large"),
        (
            ["--data=function-mixture", "--data-settings", f"text_share={10**400}"],
            "too large",
        ),
        (["--width", "15"], "even"),
        (["--data", "/no/text"], "repeats, successors"),
        (["--data-settings", "vocabulary=3"], "vocab_size"),
        (["--data-settings", "vocab_size=1"], "vocab_size must leave"),
        (["--data", "languages", "--data-settings", "family=3"], "family must be"),
        (["--steps", "0"], "--steps must be 1 or more"),
        (["--steps=1000000", "--checkpoints=every=1"], "of every=1 must be at most"),
        (["--layers=1000000000000"], "--layers must be at most 100,000"),
        (["--seeds=100000", "--batch-size=100000"], "training needs "),
        (["--data-settings=sequence_length=9999999"], "length must be at most 1,000"),
        (["--checkpoints", "often"], "--checkpoints takes powers"),
        (["--mesh", "99"], "99 devices"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, capfd, tmp_path):
    out = tmp_path / "out"
    code, said, told = jaxheads(capfd, "train", *TINY, *arguments, "--out", out)
    assert code == 2 and not said and "Traceback" not in told
    (line,) = [one for one in told.splitlines() if one.startswith("jaxheads: ")]
    assert sentence in line and not out.exists()


def test_every_family_can_be_chosen():
    source = choose_data(REPEATS).source
    for name in ("toy", "gpt2", "gpt_neox", "llama", "qwen3", "olmo2", "gemma2"):
        config = choose_model(ModelChoice(model=name), source)
        assert (config.num_layers, config.width, config.num_heads) == (2, 64, 4)
        assert (config.vocab_size, config.context_length) == (33, 20)
        assert config.mlp_width == (0 if name == "toy" else 256)
        assert config.head_dim == 16
    neox = choose_model(ModelChoice(model="gpt_neox"), source)
    assert isinstance(neox, gpt_neox.Config) and neox.rotary_width == 4
    settings = ("num_kv_heads=2", "mlp_width=100", "tied=true", "rope=500")
    chosen = choose_model(ModelChoice(model="llama", settings=settings), source)
    assert isinstance(chosen, llama.Config) and chosen.tied
    assert (chosen.num_kv_heads, chosen.mlp_width, chosen.rope.theta) == (2, 100, 500)


def test_a_preset_or_a_config_file_gives_the_sizes(tmp_path):
    source = choose_data(REPEATS).source
    name = "pythia-70m-deduped"
    found = choose_model(ModelChoice(model=name, settings=("num_layers=2",)), source)
    assert found.num_layers == 2 and found.width == 512
    settings = dict(PRESETS[name].settings) | {"model_type": "gpt_neox"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    for model in (tmp_path, tmp_path / "config.json"):
        found = choose_model(ModelChoice(model=str(model)), source)
        assert found == PRESETS[name].config()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="bert"):
        choose_model(ModelChoice(model=str(tmp_path)), source)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_can_be_chosen(name):
    data = choose_data(DataChoice(data=name, data_settings=("seed=3",)))
    windows = data.source.batch(0, 2)
    assert windows.tokens.shape == (2, data.source.sequence_length + 1)
    assert windows.tokens.max() < data.source.vocab_size
    assert (data.held_out is not None) == (name == "languages")
