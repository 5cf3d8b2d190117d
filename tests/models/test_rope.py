"""Rotary scalings against numbers written out of transformers 5.23, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.models.rope import Rope, rotary

NONE = [1.0, 0.3162278, 0.1, 0.03162278, 0.01, 0.003162278, 0.001, 0.0003162278]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}
YARN_AT_40 = [
    *(1.0, 0.3162278, 0.1, 0.02391472),
    *(0.005125, 0.0008498621, 2.5e-05, 7.905694e-06),
]
YARN_AT_16 = [
    *(1.0, 0.3162278, 0.1, 0.02421119),
    *(0.0053125, 0.0009388012, 6.25e-05, 1.976424e-05),
]

CASES = {
    # name: base, context, scaling, frequencies of a head of width 16, attention factor
    "none": (1e4, 64, None, NONE, 1.0),
    "default": (1e4, 64, {"rope_type": "default"}, NONE, 1.0),
    "linear": (1e4, 64, {"type": "linear", "factor": 4.0}, [f / 4 for f in NONE], 1.0),
    "dynamic": (1e4, 64, {"type": "dynamic", "factor": 4.0}, NONE, 1.0),
    "llama3": (
        5e5,
        131072,
        LLAMA3,
        [
            *(1.0, 0.1939227, 0.03760603, 0.007292665),
            *(0.0005248462, 3.428102e-05, 6.64787e-06, 1.289173e-06),
        ],
        1.0,
    ),
    "yarn of Qwen2.5": (
        1e6,
        32768,
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        [
            *(1.0, 0.1778279, 0.03162278, 0.00421756),
            *(0.0005, 4.445699e-05, 7.905694e-06, 1.405853e-06),
        ],
        1.138629436111989,
    ),
    "yarn, other borders": (
        1e4,
        64,
        YARN | {"factor": 16.0, "truncate": False, "beta_fast": 8.0, "beta_slow": 2.0},
        [
            *(1.0, 0.3162278, 0.1, 0.03162278),
            *(0.008615537, 0.0002623957, 6.25e-05, 1.976424e-05),
        ],
        1.2772588722239782,
    ),
    "yarn, two mscales": (
        1e4,
        64,
        YARN | {"mscale": 1.0, "mscale_all_dim": 0.7},
        YARN_AT_40,
        1.0879546075066122,
    ),
    "yarn, attention factor": (
        1e4,
        64,
        YARN | {"attention_factor": 1.25},
        YARN_AT_40,
        1.25,
    ),
    "yarn, factor from the contexts": (
        1e4,
        65536,
        YARN | {"factor": None},
        YARN_AT_16,
        1.2772588722239782,
    ),
    "yarn, no original context": (
        1e4,
        4096,
        {"rope_type": "yarn", "factor": 4.0},
        [
            *(1.0, 0.3162278, 0.1, 0.02569351),
            *(0.00625, 0.001383496, 0.00025, 7.905694e-05),
        ],
        1.138629436111989,
    ),
    "yarn, a context of 4": (
        1e4,
        64,
        YARN | {"factor": 4.0, "original_max_position_embeddings": 4},
        [1.0, *(f / 4 for f in NONE[1:])],
        1.138629436111989,
    ),
}


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_those_of_transformers(name, spelling):
    theta, context, scaling, expected, attention_factor = CASES[name]
    settings = {"rope_theta": theta, "rope_scaling": scaling}
    if spelling == "new":
        scaling = dict(scaling or {})
        kind = scaling.pop("type", scaling.pop("rope_type", "default"))
        scaling |= {"rope_type": kind, "rope_theta": theta}
        settings = {"rope_parameters": scaling}
    rope = Rope.from_hf(settings, context)
    np.testing.assert_allclose(rope.frequencies(16), expected, rtol=2e-6)
    assert rope.attention_factor == pytest.approx(attention_factor, rel=1e-12)


def test_llama_3_2_at_its_own_width():
    scaling = LLAMA3 | {"factor": 32.0}
    rope = Rope.from_hf({"rope_theta": 5e5, "rope_scaling": scaling}, 131072)
    some = rope.frequencies(128)[[1, 28, 29, 31, 34, 35, 63]]
    expected = [
        *(0.8146172, 0.003211446, 0.002118407, 0.0007625412),
        *(9.708288e-05, 2.389053e-05, 7.672315e-08),
    ]
    np.testing.assert_allclose(some, expected, rtol=2e-6)


def test_bases_have_names_of_every_age():
    assert Rope.from_hf({}, 64) == Rope(10000.0)
    assert Rope.from_hf({"rope_theta": 500, "rope_scaling": None}, 64) == Rope(500.0)
    nested = {"rope_theta": 500, "rope_type": "default"}
    assert Rope.from_hf({"rope_parameters": nested, "rope_theta": 7}, 64) == Rope(500.0)


def test_the_older_name_stands_for_the_whole_of_the_newer_one():
    linear = {"rope_type": "linear", "factor": 4.0}
    both: dict[str, dict | None] = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}
    }
    both["rope_scaling"] = linear
    assert Rope.from_hf(both, 64) == Rope(10000.0, "linear", 4.0)
    both["rope_scaling"] = {"rope_theta": 300.0}
    both["rope_parameters"] = linear | {"rope_theta": 500.0}
    assert Rope.from_hf(both, 64) == Rope(300.0)
    for empty in ({}, None):
        both["rope_scaling"] = empty
        assert Rope.from_hf(both, 64) == Rope(500.0, "linear", 4.0)


def test_the_outer_original_context_goes_first():
    settings = {"rope_scaling": YARN, "original_max_position_embeddings": 1024}
    assert Rope.from_hf(settings, 64).original_context == 1024


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "longrope", "short_factor": [1.0]}, "longrope"),
        ({"type": "su", "factor": 2.0}, "su"),
        ({"rope_type": "linear"}, "'linear' must give factor"),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0},
            "'llama3' must give high_freq_factor",
        ),
        (["linear"], "must be an object"),
        ({"rope_type": "default", "rotary_pct": 0.5}, "also gives rotary_pct"),
        ({"rope_type": "linear", "factor": 0.5}, "1 or more, but is 0.5"),
        ({"rope_type": "dynamic", "factor": 2.0, "alpha": 1e3}, "also gives alpha"),
        ({"rope_type": "default", "mrope_section": [1]}, "mrope_section"),
        ({"sliding_attention": {"rope_theta": 1e4}}, "sliding_attention"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "low_freq_factor"),
        ({"rope_type": "default", "rope_theta": 1.0}, r"exceed 1, but is 1\.0"),
    ],
)
def test_what_is_not_built_is_named(scaling, message):
    with pytest.raises(ValueError, match=message):
        Rope.from_hf({"rope_scaling": scaling}, 64)


# --- GGUF ------------------------------------------------------------------------


def from_gguf(**keys) -> Rope:
    metadata = {f"qwen2.rope.{name}": value for name, value in keys.items()}
    return Rope.from_gguf(metadata, "qwen2", 32768)


def test_gguf_scalings_are_those_of_the_hub():
    assert from_gguf() == Rope()
    assert from_gguf(freq_base=5e5) == Rope(5e5)
    scaling = {"scaling.type": "linear", "scaling.factor": 4.0}
    linear = Rope.from_hf({"rope_scaling": {"type": "linear", "factor": 4.0}}, 32768)
    assert from_gguf(**scaling) == linear
    assert from_gguf(scale_linear=4.0) == linear  # older files
    yarn = {
        "freq_base": 1e6,
        "scaling.type": "yarn",
        "scaling.factor": 40.0,
        "scaling.original_context_length": 4096,
    }
    hub = Rope.from_hf({"rope_theta": 1e6, "rope_scaling": YARN}, 32768)
    assert from_gguf(**yarn) == hub


def test_gguf_states_llama3_as_a_tensor_of_factors():
    hub = Rope.from_hf({"rope_theta": 5e5, "rope_scaling": LLAMA3}, 131072)
    stored = (Rope(5e5).frequencies(16) / hub.frequencies(16)).astype(np.float32)
    metadata = {"llama.rope.freq_base": 5e5, "rope_freqs": stored}
    rope = Rope.from_gguf(metadata, "llama", 131072)
    assert hash(rope) == hash(Rope.from_gguf(metadata, "llama", 131072))
    np.testing.assert_allclose(rope.frequencies(16), hub.frequencies(16), rtol=1e-6)
    with pytest.raises(ValueError, match="must be 16, one for each pair"):
        rope.frequencies(32)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("scaling.type", "longrope", "'longrope'"),
        ("scaling.factor", 0.5, r"but is 0\.5"),
        ("scaling.yarn_log_multiplier", 0.1, r"yarn_log_multiplier = 0\.1"),
        ("scaling.attn_factor", 1.2, r"attn_factor = 1\.2"),
        ("dimension_sections", [1, 2], "dimension_sections"),
    ],
)
def test_gguf_scalings_that_are_not_built_are_named(key, value, message):
    with pytest.raises(ValueError, match=message):
        from_gguf(**{key: value})


# --- rotation --------------------------------------------------------------------


def test_rotation_multiplies_complex_pairs():
    rope = Rope(500.0, "linear", 4.0, attention_factor=1.3)
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 10))
    positions = jnp.array([[0, 1, 2, 3, 4], [9, 300, 7, 7, 60000]])
    got = rotary(x, positions, rope, width=6)
    wide = np.asarray(x, np.float64)
    pairs = wide[..., :3] + 1j * wide[..., 3:6]
    angle = np.asarray(positions)[:, :, None, None] * rope.frequencies(6)
    turned = 1.3 * pairs * np.exp(1j * angle)
    expected = np.concatenate([turned.real, turned.imag, wide[..., 6:]], axis=-1)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(got[1], expected[1], atol=2e-2)  # phases are float32
    with jax.enable_x64(True):
        exact = rotary(jnp.asarray(wide), positions, rope, width=6)
        assert exact.dtype == jnp.float64
    np.testing.assert_allclose(exact, expected, atol=1e-10)


def test_bfloat16_is_rotated_in_float32():
    x = jnp.ones((1, 2, 1, 8), jnp.bfloat16)
    positions = jnp.array([[256, 257]])  # one number in bfloat16
    got = rotary(x, positions, Rope())
    assert got.dtype == jnp.bfloat16
    wide = rotary(x.astype(jnp.float32), positions, Rope())
    np.testing.assert_array_equal(got, wide.astype(jnp.bfloat16))
    assert not np.allclose(got[0, 0], got[0, 1], atol=0.1)
