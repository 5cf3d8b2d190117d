"""Presets: published sizes, without a byte of weights."""

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxheads.__main__ import main
from jaxheads.models import family
from jaxheads.models.forward import forward
from jaxheads.models.parameters import is_leaf
from jaxheads.weights.presets import PRESETS, table

PUBLISHED = {
    "pythia-70m-deduped": (6, 8, 70_426_624),
    "pythia-160m-deduped": (12, 12, 162_322_944),
    "pythia-410m-deduped": (24, 16, 405_334_016),
    "pythia-1b-deduped": (16, 8, 1_011_781_632),
    "pythia-1.4b-deduped": (24, 16, 1_414_647_808),
    "pythia-2.8b-deduped": (32, 32, 2_775_208_960),
    "pythia-6.9b-deduped": (32, 32, 6_857_302_016),
    "gpt2": (12, 12, 124_439_808),
    "gpt2-medium": (24, 16, 354_823_168),
    "gpt2-large": (36, 20, 774_030_080),
    "gpt2-xl": (48, 25, 1_557_611_200),
    "llama-2-7b": (32, 32, 6_738_415_616),
    "llama-3-8b": (32, 32, 8_030_261_248),
    "qwen2.5-7b": (28, 28, 7_615_616_512),
    "smollm2-135m-instruct": (30, 9, 134_515_008),
}
"""Layers, heads a layer, parameters: of the papers and the hub."""


def test_the_papers_models_are_there():
    assert list(PRESETS) == list(PUBLISHED)
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.settings["model_type"] == preset.model_type


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_sizes_are_the_published_ones(name):
    preset, (layers, heads, parameters) = PRESETS[name], PUBLISHED[name]
    config = preset.config()
    assert (config.num_layers, config.num_heads) == (layers, heads)
    assert preset.parameters == preset.num_params() == parameters


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_forward_gives_logits(name):
    preset = PRESETS[name]
    config = preset.config()
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16),
        family(preset.model_type).abstract(config),
        is_leaf=is_leaf,
    )
    tokens = jax.ShapeDtypeStruct((2, 9), jnp.int32)
    out = jax.eval_shape(lambda p, t: forward(p, t, config).logits, params, tokens)
    assert out.shape == (2, 9, config.vocab_size)
    assert out.dtype == jnp.float32


def test_pythias_checkpoints_are_the_154_branches():
    for name, preset in PRESETS.items():
        if not name.startswith("pythia"):
            assert preset.checkpoints == ()
            continue
        steps = [int(step.removeprefix("step")) for step in preset.checkpoints]
        assert len(steps) == 154 and steps == sorted(set(steps))
        assert steps[:11] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
        assert set(steps[11:]) == set(range(1000, 144000, 1000))


def test_the_table_is_whole_in_a_pipe(capfd):
    main(["models"])
    lines = capfd.readouterr().out.splitlines()
    (row,) = [line for line in lines if "pythia-6.9b" in line]
    assert row.split()[1:11] == [
        *("32", "32", "32", "128", "4096", "16384", "50432"),
        *("6,857,302,016", "27.43", "13.71"),
    ]
    assert row.split()[11:] == [
        "EleutherAI/pythia-6.9b-deduped",
        *("154:", "step0", "to", "step143000"),
    ]
    for name, preset in PRESETS.items():
        assert any(name in line and preset.hub_id in line for line in lines)


def test_the_table_cuts_no_number_in_a_narrow_terminal():
    console = Console(width=110)
    with console.capture() as capture:
        console.print(table())
    assert "…" not in capture.get()
    assert "7,615,616,512" in capture.get()
