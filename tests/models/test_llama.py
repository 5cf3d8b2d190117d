"""Llama and its kin: published configs, refusals, checkpoints' layouts."""

import dataclasses
import re

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny

from jaxheads.errors import UserError
from jaxheads.models import family, gemma2, llama, olmo2, qwen
from jaxheads.models.forward import forward
from jaxheads.models.parameters import num_params
from jaxheads.models.rope import Rope
from jaxheads.weights.convert import from_params, to_params
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.inspection import RecordedSettings

# --- published configs -----------------------------------------------------------


def hub(
    kind: str,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    mlp: int,
    vocabulary: int,
    context: int,
    **more,
) -> dict:
    """A config.json in the spelling of its time."""
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **more,
    }


def llama3(factor: float) -> dict:
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }


LLAMA_1 = {
    "architectures": ["LLaMAForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "initializer_range": 0.02,
    "max_sequence_length": 2048,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": -1,
    "rms_norm_eps": 1e-06,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 32000,
}
QWEN = {
    "attention_dropout": 0.0,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
}
QWEN3 = {
    **QWEN,
    "attention_bias": False,
    "head_dim": 128,
    "rope_scaling": None,
    "sliding_window": None,
}
GEMMA_2_2B = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "num_attention_heads": 8,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}

PUBLISHED = {
    # name: its config.json, how many parameters it has, fields that it must give
    "llama-7b": (
        LLAMA_1,
        6_738_415_616,
        {"num_kv_heads": 32, "context_length": 2048, "norm_epsilon": 1e-6},
    ),
    "Llama-2-7b-hf": (
        hub(
            "llama",
            *(32, 4096, 32, 32, 11008, 32000, 4096),
            pretraining_tp=1,
            rope_scaling=None,
        ),
        6_738_415_616,
        {"head_dim": 128, "rope": Rope(), "tied": False, "windows": None},
    ),
    "Llama-2-70b-hf": (
        hub("llama", 80, 8192, 64, 8, 28672, 32000, 4096, pretraining_tp=4),
        68_976_648_192,
        {"num_kv_heads": 8},
    ),
    "Meta-Llama-3-8B": (
        hub(
            "llama",
            *(32, 4096, 32, 8, 14336, 128256, 8192),
            attention_bias=False,
            attention_dropout=0.0,
            pretraining_tp=1,
            rope_scaling=None,
            rope_theta=500000.0,
        ),
        8_030_261_248,
        {"rope": Rope(500000.0), "qkv_bias": False, "mlp_bias": False},
    ),
    "Llama-3.1-8B": (
        hub(
            "llama",
            *(32, 4096, 32, 8, 14336, 128256, 131072),
            mlp_bias=False,
            rope_scaling=llama3(8.0),
            rope_theta=500000.0,
        ),
        8_030_261_248,
        {"rope": Rope(500000.0, "llama3", 8.0, 8192), "context_length": 131072},
    ),
    "Llama-3.2-1B": (
        hub(
            "llama",
            *(16, 2048, 32, 8, 8192, 128256, 131072),
            head_dim=64,
            mlp_bias=False,
            rope_scaling=llama3(32.0),
            rope_theta=500000.0,
            tie_word_embeddings=True,
        ),
        1_235_814_400,
        {"rope": Rope(500000.0, "llama3", 32.0, 8192), "tied": True},
    ),
    "Mistral-7B-v0.1": (
        hub(
            "mistral",
            *(32, 4096, 32, 8, 14336, 32000, 32768),
            rope_theta=10000.0,
            sliding_window=4096,
        ),
        7_241_732_096,
        {"windows": (4096,) * 32, "model_type": "mistral"},
    ),
    "Mistral-7B-v0.3": (
        hub(
            "mistral",
            *(32, 4096, 32, 8, 14336, 32768, 32768),
            attention_dropout=0.0,
            rope_theta=1000000.0,
            sliding_window=None,
        ),
        7_248_023_552,
        {"windows": None, "rope": Rope(1000000.0)},
    ),
    "Qwen2.5-7B": (
        hub(
            "qwen2",
            *(28, 3584, 28, 4, 18944, 152064, 131072),
            **QWEN,
            sliding_window=131072,
            use_mrope=False,
        ),
        7_615_616_512,
        {"qkv_bias": True, "output_bias": False, "qk_norm": False, "windows": None},
    ),
    "Qwen3-0.6B": (
        hub(
            "qwen3",
            *(28, 1024, 16, 8, 3072, 151936, 40960),
            **QWEN3 | {"tie_word_embeddings": True},
        ),
        596_049_920,
        {"head_dim": 128, "qkv_bias": False, "qk_norm": True, "tied": True},
    ),
    "Qwen3-8B": (
        hub("qwen3", 36, 4096, 32, 8, 12288, 151936, 40960, **QWEN3),
        8_190_735_360,
        {"rope": Rope(1000000.0), "tied": False},
    ),
    "OLMo-2-0425-1B": (
        hub(
            "olmo2",
            *(16, 2048, 16, 16, 8192, 100352, 4096),
            attention_bias=False,
            rms_norm_eps=1e-06,
            rope_theta=500000,
        ),
        1_484_916_736,
        {"rope": Rope(500000.0), "norm_epsilon": 1e-6},
    ),
    "OLMo-2-1124-7B": (
        hub(
            "olmo2",
            *(32, 4096, 32, 32, 11008, 100352, 4096),
            attention_bias=False,
            rms_norm_eps=1e-06,
            rope_theta=500000,
            rope_scaling=None,
        ),
        7_298_617_344,
        {"model_type": "olmo2", "windows": None},
    ),
    "gemma-2-2b": (
        GEMMA_2_2B,
        2_614_341_888,
        {
            "windows": (4096, None) * 13,
            "tied": True,
            "query_scalar": 256.0,
            "score_cap": 50.0,
            "logit_cap": 30.0,
            "norm_offset": 1.0,
        },
    ),
    "gemma-2-27b": (
        GEMMA_2_2B
        | {
            "num_hidden_layers": 46,
            "hidden_size": 4608,
            "intermediate_size": 36864,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "query_pre_attn_scalar": 144,
        },
        27_227_128_320,
        {"query_scalar": 144.0, "head_dim": 128},
    ),
    "SmolLM2-135M": (
        hub(
            "llama",
            *(30, 576, 9, 3, 1536, 49152, 8192),
            attention_bias=False,
            is_llama_config=True,
            mlp_bias=False,
            pretraining_tp=1,
            rope_interleaved=False,
            rope_scaling=None,
            rope_theta=100000,
            tie_word_embeddings=True,
        ),
        134_515_008,
        {"head_dim": 64, "rope": Rope(100000.0)},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_have_the_published_number_of_parameters(name):
    settings, parameters, fields = PUBLISHED[name]
    model = family(settings["model_type"])
    config = model.Config.from_hf(settings)
    assert num_params(model.abstract(config)) == parameters
    assert config.model_type == settings["model_type"]
    assert {field: getattr(config, field) for field in fields} == fields


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen2.5-7B", "gemma-2-2b"])
def test_the_nested_spelling_of_rotary_settings_means_the_same(name):
    settings = dict(PUBLISHED[name][0])
    rope = dict(settings.pop("rope_scaling", None) or {"rope_type": "default"})
    rope["rope_theta"] = settings.pop("rope_theta")
    read = family(settings["model_type"]).Config.from_hf
    assert read({**settings, "rope_parameters": rope}) == read(PUBLISHED[name][0])


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen3-8B", "gemma-2-2b"])
def test_only_what_is_read_counts_as_read(name):
    settings = RecordedSettings({**PUBLISHED[name][0], "bos_token_id": 1, "flavour": 2})
    family(settings["model_type"]).Config.from_hf(settings)
    assert {"hidden_size", "rms_norm_eps", "rope_theta"} <= settings.read
    assert not {"bos_token_id", "flavour", "torch_dtype"} & settings.read


# --- windows ---------------------------------------------------------------------

TINY = hub("?", 4, 22, 6, 2, 34, 41, 64, head_dim=10)
KINDS = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("kind", "changes", "windows"),
    [
        ("llama", {}, None),
        ("mistral", {}, (4096,) * 4),  # left out: transformers' default; null: none
        ("mistral", {"sliding_window": None}, None),
        ("mistral", {"sliding_window": 7}, (7, 7, 7, 7)),
        ("qwen2", {"sliding_window": 7, "max_window_layers": 1}, None),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 4}, None),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
            (None, 7, 7, 7),
        ),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 7, "layer_types": KINDS},
            (7, None, None, 7),
        ),
        ("qwen3", {"layer_types": ["full_attention"] * 4}, None),
        ("gemma2", {"sliding_window": 7}, (7, None, 7, None)),
        ("gemma2", {"sliding_window": 7, "layer_types": KINDS}, (7, None, None, 7)),
        ("gemma2", {"sliding_window": None}, None),
    ],
)
def test_windows_by_layer(kind, changes, windows):
    settings = {**TINY, "model_type": kind, **changes}
    assert family(kind).Config.from_hf(settings).windows == windows


def test_a_query_sees_its_window_and_no_further():
    config = dataclasses.replace(CONFIGS["mistral"], windows=(5, None))
    tiny = Tiny(config)
    out = forward(tiny.params, tiny.tokens, config, capture=("patterns",))
    assert out.patterns is not None
    distance = np.arange(13)[:, None] - np.arange(13)[None]
    for layer, window in enumerate((5, 13)):
        seen = np.asarray(out.patterns[layer] > 0).all(axis=(0, 1))
        np.testing.assert_array_equal(seen, (distance >= 0) & (distance < window))


# --- refusals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("llama", {"sliding_window": 4096}, "= 4096, but .* 'llama' has no attention"),
        ("olmo2", {"sliding_window": 4096}, "= 4096, but .* 'olmo2' has no attention"),
        ("llama", {"rotary_emb_base": 500}, r"rotary_emb_base = 500, .* 10000\.0"),
        ("llama", {"rotary_pct": 0.5}, r"rotary_pct = 0\.5, .* gives 1"),
        ("llama", {"tie_word_embeddings": None}, "'tie_word_embeddings' must be true"),
        ("gemma2", {"tie_word_embeddings": None}, "'tie_word_embeddings' must be true"),
        ("llama", {"attention_bias": 1}, "'attention_bias' must be true or false"),
        ("llama", {"is_causal": False}, "is_causal = False"),
        ("qwen3", {"is_causal": False}, "is_causal = False"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 4}, "there is none"),
        ("llama", {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5"),
        (
            "llama",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            r"partial_rotary_factor = 0\.5",
        ),
        ("llama", {"rope_interleaved": True}, "rope_interleaved = True"),
        ("llama", {"num_local_experts": 8}, "num_local_experts = 8"),
        (
            "llama",
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "quantization_config = 'gptq'",
        ),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"rope_scaling": {"type": "longrope", "factor": 2}}, "longrope"),
        ("llama", {"hidden_size": None}, "'hidden_size'"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads must be positive"),
        ("llama", {"num_key_value_heads": 4}, "num_kv_heads must divide"),
        ("llama", {"head_dim": 9}, "head_dim must be even"),
        ("mistral", {"attention_bias": True}, "attention_bias = True"),
        ("mistral", {"layer_types": KINDS}, "layer_types"),
        ("mistral", {"sliding_window": 0}, "a window must be positive"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias = True"),
        (
            "qwen3",
            {"layer_types": ["chunked_attention"] * 4},
            "layer_types = 'chunked_attention'",
        ),
        (
            "qwen3",
            {"use_sliding_window": True, "layer_types": ["sliding_attention"]},
            "windows must be 4",
        ),
        ("olmo2", {"attention_bias": True}, "attention_bias = True"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv"),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation = 'gelu'"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "score_cap must be positive"),
    ],
)
def test_what_is_not_built_is_refused_by_name(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        family(kind).Config.from_hf({**TINY, "model_type": kind, **changes})


# --- tensors ---------------------------------------------------------------------

TENSOR_CONFIGS = {
    "llama": CONFIGS["llama-mqa"],
    "llama-biased": dataclasses.replace(
        CONFIGS["llama-gqa"], qkv_bias=True, output_bias=True, mlp_bias=True
    ),
    "qwen2": CONFIGS["qwen2"],
    "qwen3": CONFIGS["qwen3"],
    "olmo2": CONFIGS["olmo2"],
    "gemma2": CONFIGS["gemma2"],
}


@pytest.fixture(params=TENSOR_CONFIGS, scope="module")
def tiny(request) -> Tiny:
    """A tiny model of each way that tensors are named."""
    return Tiny(TENSOR_CONFIGS[request.param])


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_from_params_is_the_inverse_of_to_params(tiny, layout):
    model = family(tiny.config.model_type)
    tensors = from_params(tiny.params, model, tiny.config, layout)
    again = to_params(tensors, model, tiny.config, layout)
    assert params_sha256(again) == params_sha256(tiny.params)


def converted(tensors: dict, kind: str, config) -> dict:
    """What llama.cpp's converter makes of a hub checkpoint, by the library's names."""
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    names = gguf.get_tensor_name_map(arch, config.num_layers)
    made = {}
    for name, values in tensors.items():
        if kind == "llama" and re.search(r"\.[qk]_proj\.", name):
            heads = config.num_heads if ".q_proj" in name else config.num_kv_heads
            pairs = values.reshape(heads, 2, config.head_dim // 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        if kind == "gemma2" and name.endswith("norm.weight"):
            values = values + 1
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        made[stored] = values
    return made


def test_gguf_tensors_are_those_of_the_converter(tiny):
    config, kind = tiny.config, tiny.config.model_type
    model = family(kind)
    tensors = from_params(tiny.params, model, config, "hf")
    stored = converted(tensors, kind, config)
    if kind == "gemma2":
        config = dataclasses.replace(config, norm_offset=0.0)
    params = to_params(stored, model, config, "gguf")
    if kind != "gemma2":
        assert params_sha256(params) == params_sha256(tiny.params)
    out = forward(params, tiny.tokens, config)
    expected = forward(tiny.params, tiny.tokens, tiny.config)
    np.testing.assert_allclose(out.logits, expected.logits, atol=2e-5)


# --- GGUF metadata ---------------------------------------------------------------


def metadata(kind: str, **more) -> dict:
    """What a GGUF file says of ``TINY``."""
    keys = {
        "block_count": 4,
        "context_length": 64,
        "embedding_length": 22,
        "feed_forward_length": 34,
        "attention.head_count": 6,
        "attention.head_count_kv": 2,
        "attention.key_length": 10,
        "attention.value_length": 10,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500.0,
        **more,
    }
    return {
        "general.architecture": kind,
        "tokenizer.ggml.tokens": ["a"] * 41,
        "tied": False,
        **{f"{kind}.{name}": value for name, value in keys.items()},
    }


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "olmo2", "gemma2"])
def test_gguf_metadata_say_what_the_hubs_config_says(kind):
    settings = {**TINY, "model_type": kind, "rope_theta": 500.0}
    config = family(kind).Config.from_gguf(metadata(kind))
    expected = family(kind).Config.from_hf(settings)
    if kind == "gemma2":
        expected = dataclasses.replace(expected, norm_offset=0.0, query_scalar=10.0)
    assert config == expected


def test_gguf_scalings_and_windows_are_read():
    freqs = np.linspace(1, 8, 5).astype(np.float32)
    config = llama.Config.from_gguf({**metadata("llama"), "rope_freqs": freqs})
    assert config.rope == Rope(500.0, factors=tuple(float(f) for f in freqs))
    keys = metadata("llama", **{"attention.sliding_window": 7})
    assert llama.Config.from_gguf(keys).windows == (7, 7, 7, 7)
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    rope = qwen.Config.from_gguf(metadata("qwen2", **yarn)).rope
    assert (rope.scaling, rope.factor, rope.original_context) == ("yarn", 4.0, 64)


def test_gguf_has_no_key_for_the_query_scalar_of_gemma():
    sizes = {"attention.key_length": 128, "attention.value_length": 128}
    largest = {"block_count": 46, "embedding_length": 864}
    config = gemma2.Config.from_gguf(metadata("gemma2", **sizes, **largest))
    assert config.query_scalar == 144.0
    caps = {"attn_logit_softcapping": 9.0, "final_logit_softcapping": 8.0}
    config = gemma2.Config.from_gguf(metadata("gemma2", **caps))
    assert (config.score_cap, config.logit_cap, config.query_scalar) == (9, 8, 10)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("llama", "expert_count", 8),
        ("llama", "rope.dimension_count", 6),
        ("llama", "attention.value_length", 6),
        ("qwen2", "attention.causal", False),
        ("qwen3", "attention.sliding_window", 7),
        ("olmo2", "attention.sliding_window", 7),  # OLMo-3
        ("gemma2", "attention.sliding_window_pattern", 6),
    ],
)
def test_gguf_metadata_that_are_not_built_are_refused_by_name(kind, key, value):
    with pytest.raises(ValueError, match=re.escape(f"{kind}.{key} = {value}")):
        family(kind).Config.from_gguf(metadata(kind, **{key: value}))


def test_factors_that_nobody_read_are_an_unexpected_tensor():
    tiny = Tiny(CONFIGS["llama-mqa"])
    tensors = from_params(tiny.params, llama, tiny.config, "gguf")
    tensors["rope_freqs.weight"] = np.ones(6, np.float32)
    with pytest.raises(UserError, match=r"'rope_freqs\.weight' is unexpected"):
        to_params(tensors, llama, tiny.config, "gguf")


# --- arithmetic ------------------------------------------------------------------


def test_olmo2_norms_queries_over_all_heads_together():
    config = CONFIGS["olmo2"]
    tiny = Tiny(config)
    x = jax.random.normal(jax.random.key(3), (2, 5, config.width))
    layer = jax.tree.map(lambda leaf: leaf[0], tiny.params.layers)
    seen = {}

    def attend(q, k, v):
        seen.update(q=q, k=k)
        return jnp.zeros_like(q)

    olmo2.block(layer, x, jnp.zeros((2, 5), int), attend, config)  # no rotation
    for name, weight in (("q", layer.wq), ("k", layer.wk)):
        flat = np.asarray(x) @ np.asarray(weight).reshape(config.width, -1)
        flat /= np.sqrt((flat**2).mean(-1, keepdims=True) + config.norm_epsilon)
        flat *= np.asarray(getattr(layer, f"{name}_norm")).reshape(-1)
        np.testing.assert_allclose(seen[name].reshape(2, 5, -1), flat, atol=1e-5)


def test_gemma_caps_its_logits_and_scales_its_embeddings():
    tiny = Tiny(CONFIGS["gemma2"])
    config = tiny.config
    out = forward(tiny.params, tiny.tokens, config)
    assert 0.5 * config.logit_cap < np.abs(out.logits).max() <= config.logit_cap
    bare = dataclasses.replace(config, logit_cap=None)
    raw = forward(tiny.params, tiny.tokens, bare).logits
    capped = config.logit_cap * np.tanh(np.asarray(raw) / config.logit_cap)
    np.testing.assert_allclose(out.logits, capped, atol=2e-5)
    narrow = jnp.asarray(tiny.params.embedding, jnp.bfloat16)
    positions = jnp.zeros_like(tiny.tokens)
    x = gemma2.embed(
        tiny.params.replace(embedding=narrow), tiny.tokens, positions, config
    )
    scale = jnp.asarray(np.sqrt(config.width), jnp.bfloat16)
    np.testing.assert_array_equal(x, narrow[tiny.tokens] * scale)
