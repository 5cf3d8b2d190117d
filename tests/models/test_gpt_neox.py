"""GPT-NeoX: its arithmetic, its configs of every age, its checkpoints' layout."""

import dataclasses
import math

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import Tiny, random_params

from jaxheads.errors import UserError
from jaxheads.models import family, gpt_neox
from jaxheads.models.forward import forward
from jaxheads.models.gpt_neox import Config
from jaxheads.models.parameters import num_params
from jaxheads.models.rope import Rope
from jaxheads.weights.convert import from_params, to_params
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.model import load

CONFIGS = {
    "parallel": Config(3, 40, 4, 34, 43, 64, rotary_width=4),
    "sequential": Config(2, 42, 3, 34, 41, 64, rotary_width=6, parallel=False),
    "no biases": Config(2, 36, 3, 30, 37, 64, 12, Rope(500.0), attention_bias=False),
    "tied": Config(2, 30, 5, 34, 37, 64, 2, activation="gelu_tanh", tied=True),
}


@pytest.fixture(params=CONFIGS, scope="module")
def tiny(request) -> Tiny:
    """Each tiny GPT-NeoX in turn."""
    return Tiny(CONFIGS[request.param])


# --- arithmetic ------------------------------------------------------------------

GELUS = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: (
        x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    ),
}


def plain_neox(params, tokens, config):
    """GPT-NeoX in float64 numpy, one head and one position at a time: [T] -> [T, V]."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    half, gelu = config.rotary_width // 2, np.vectorize(GELUS[config.activation])

    def norm(x, scale, bias):
        return (x - x.mean()) / np.sqrt(x.var() + config.norm_epsilon) * scale + bias

    def rotate(x, t):
        angle = t / config.rope.theta ** (np.arange(half) / half)
        pairs = (x[:half] + 1j * x[half : 2 * half]) * np.exp(1j * angle)
        return np.concatenate([pairs.real, pairs.imag, x[2 * half :]])

    stream = [p.embedding[token] for token in tokens]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p.layers)
        normed = [
            norm(x, layer.attention_norm, layer.attention_norm_bias) for x in stream
        ]
        attended = [np.zeros(config.width) for _ in tokens]
        for h in range(config.num_heads):
            biases = (layer.bq, layer.bk, layer.bv)
            bq, bk, bv = (0 if b is None else b[h] for b in biases)
            q = [rotate(x @ layer.wq[:, h] + bq, t) for t, x in enumerate(normed)]
            k = [rotate(x @ layer.wk[:, h] + bk, t) for t, x in enumerate(normed)]
            v = [x @ layer.wv[:, h] + bv for x in normed]
            for t in range(len(tokens)):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)])
                weights = np.exp(scores / np.sqrt(config.head_dim))
                weights /= weights.sum()
                z = sum(w * x for w, x in zip(weights, v, strict=False))
                attended[t] += z @ layer.wo[h]
        for t, x in enumerate(stream):
            out = attended[t] + (0 if layer.bo is None else layer.bo)
            read = x if config.parallel else x + out
            read = norm(read, layer.mlp_norm, layer.mlp_norm_bias)
            hidden = gelu(read @ layer.w_up + layer.b_up)
            stream[t] = x + out + hidden @ layer.w_down + layer.b_down
    table = p.embedding.T if p.unembedding is None else p.unembedding
    final = [norm(x, p.final_norm, p.final_norm_bias) for x in stream]
    return np.stack([x @ table for x in final])


def test_logits_equal_a_plain_model_written_out_in_numpy(tiny):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tiny.params)
        out = forward(params, tiny.tokens, tiny.config, lengths=tiny.lengths)
    assert out.logits.dtype == jnp.float64
    for row, length in enumerate(tiny.lengths):
        expected = plain_neox(tiny.params, tiny.tokens[row, :length], tiny.config)
        np.testing.assert_allclose(out.logits[row, :length], expected, atol=1e-9)


def test_bfloat16_keeps_logits_in_float32():
    tiny = Tiny(CONFIGS["sequential"])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.params)
    out = forward(params, tiny.tokens, tiny.config, capture=("residual",))
    assert out.residual is not None and out.residual.dtype == jnp.bfloat16
    assert out.logits.dtype == jnp.float32
    assert np.isfinite(out.logits).all()


# --- configs ---------------------------------------------------------------------

PYTHIA_70M = {
    "architectures": ["GPTNeoXForCausalLM"],
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}


def test_the_old_config_of_pythia_is_read():
    config = Config.from_hf(PYTHIA_70M)
    assert config == Config(6, 512, 8, 2048, 50304, 2048, rotary_width=16)
    assert (config.head_dim, config.num_kv_heads, config.windows) == (64, 8, None)
    assert family("gpt_neox") is family("gptneox") is gpt_neox


def respelled(**changes) -> dict:
    """Pythia's config without its rotary settings, and with others."""
    old = ("rotary_pct", "rotary_emb_base")
    return {k: v for k, v in PYTHIA_70M.items() if k not in old} | changes


@pytest.mark.parametrize(
    ("settings", "width", "rope"),
    [
        (respelled(), 16, Rope()),
        (respelled(rope_parameters=None, rope_scaling=None), 16, Rope()),
        (respelled(rotary_pct=1.0, rotary_emb_base=500), 64, Rope(500.0)),
        (respelled(rotary_pct=0.0), 0, Rope()),
        # As transformers writes them: names that are read, and the same under others.
        (
            respelled(
                rotary_pct=0.5,
                partial_rotary_factor=0.5,
                rotary_dim=32,
                rotary_emb_base=500,
                rope_theta=500,
            ),
            32,
            Rope(500.0),
        ),
        (
            respelled(
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 700.0,
                    "partial_rotary_factor": 0.75,
                },
                rotary_emb_base=500,
            ),
            48,
            Rope(700.0),
        ),
        (
            respelled(rope_scaling={"type": "linear", "factor": 2.0}, rotary_pct=0.5),
            32,
            dataclasses.replace(Rope(), scaling="linear", factor=2.0),
        ),
    ],
)
def test_rotary_settings_of_every_age_are_read(settings, width, rope):
    config = Config.from_hf(settings)
    assert (config.rotary_width, config.rope) == (width, rope)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_fast", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("relu", "relu"),
        ("swish", "silu"),
    ],
)
def test_activations_go_by_one_name(name, canonical):
    assert Config.from_hf(PYTHIA_70M | {"hidden_act": name}).activation == canonical


def test_what_varies_between_members_is_read():
    changes = {
        "use_parallel_residual": False,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "layer_norm_eps": 1e-3,
    }
    config = Config.from_hf(PYTHIA_70M | changes)
    assert not config.parallel and not config.attention_bias and config.tied
    assert config.norm_epsilon == 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "quick_gelu"}, "activation .* 'quick_gelu'"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"head_dim": 80}, "head_dim = 80"),
        ({"num_attention_heads": 9}, "num_heads must divide"),
        ({"num_attention_heads": 0}, "num_attention_heads must be positive"),
        ({"rotary_pct": 1.5}, "rotary_width .* 64, but is 96"),
        ({"rotary_pct": 0.21}, "rotary_width must be even .* but is 13"),
        ({"rope_theta": 500}, r"rope_theta = 500, .* gives 10000\.0"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5, .* 0\.25"),
        ({"rotary_dim": 24}, "rotary_dim = 24, .* gives 16"),
        ({"sliding_window": 7}, "sliding_window = 7, but .* 'gpt_neox' has no"),
        ({"is_causal": False}, "is_causal = False"),
        ({"quantization_config": {"quant_method": "fp8"}}, "config = 'fp8'"),
        ({"tie_word_embeddings": None}, "'tie_word_embeddings' must be true or false"),
        ({"use_parallel_residual": 1}, "must be true or false, but is 1"),
        ({"vocab_size": None}, "'vocab_size'"),
        ({"hidden_size": 512.5}, "'hidden_size' must be a whole number"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.from_hf(PYTHIA_70M | changes)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "vocabulary", "count"),
    [
        (6, 512, 8, 50304, 70_426_624),
        (12, 768, 12, 50304, 162_322_944),
        (24, 1024, 16, 50304, 405_334_016),
        (16, 2048, 8, 50304, 1_011_781_632),
        (24, 2048, 16, 50304, 1_414_647_808),
        (32, 2560, 32, 50304, 2_775_208_960),
        (32, 4096, 32, 50432, 6_857_302_016),
    ],
)
def test_pythias_have_their_published_sizes(layers, width, heads, vocabulary, count):
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": vocabulary,
    }
    config = Config.from_hf(PYTHIA_70M | sizes)
    assert num_params(gpt_neox.abstract(config)) == count


# --- checkpoints -----------------------------------------------------------------


def test_the_fused_rows_go_by_head_then_q_k_v_then_width():
    config = CONFIGS["parallel"]
    params = random_params(config, 3)
    tensors = from_params(params, gpt_neox, config, "hf")
    h_k = [(h, k) for h in range(4) for k in range(10)]
    for l in range(config.num_layers):
        name = f"gpt_neox.layers.{l}.attention.query_key_value"
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        assert (weight.shape, bias.shape) == ((120, 40), (120,))
        for part, leaf in enumerate("qkv"):
            matrix = np.asarray(getattr(params.layers, f"w{leaf}"))
            vector = np.asarray(getattr(params.layers, f"b{leaf}"))
            for h, k in h_k:
                row = h * 30 + part * 10 + k
                assert bias[row] == vector[l, h, k]
                assert [*weight[row]] == [*matrix[l, :, h, k]]


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_from_params_is_the_inverse_of_to_params(tiny, layout):
    tensors = from_params(tiny.params, gpt_neox, tiny.config, layout)
    again = to_params(tensors, gpt_neox, tiny.config, layout)
    assert params_sha256(again) == params_sha256(tiny.params)
    assert jax.tree.structure(again) == jax.tree.structure(tiny.params)


@pytest.mark.parametrize("prefix", ["gpt_neox.", ""])
def test_old_buffers_are_ignored_with_and_without_the_prefix(tiny, prefix):
    tensors = from_params(tiny.params, gpt_neox, tiny.config, "hf")
    tensors = {prefix + n.removeprefix("gpt_neox."): v for n, v in tensors.items()}
    if "gpt_neox.embed_out.weight" in tensors:
        tensors["embed_out.weight"] = tensors.pop("gpt_neox.embed_out.weight")
    for l in range(tiny.config.num_layers):
        for name in ("bias", "masked_bias", "rotary_emb.inv_freq"):
            tensors[f"{prefix}layers.{l}.attention.{name}"] = np.zeros(3, np.float32)
    tensors[f"{prefix}rotary_emb.inv_freq"] = np.zeros(3, np.float32)
    again = to_params(tensors, gpt_neox, tiny.config, "hf")
    assert params_sha256(again) == params_sha256(tiny.params)


def test_other_leftovers_are_not_ignored():
    config = CONFIGS["no biases"]
    tensors = from_params(random_params(config, 0), gpt_neox, config, "hf")
    bias = "gpt_neox.layers.1.attention.query_key_value.bias"
    with pytest.raises(UserError, match=f"'{bias}' is unexpected"):
        to_params(tensors | {bias: np.zeros(108)}, gpt_neox, config, "hf")
    del tensors["embed_out.weight"]
    with pytest.raises(UserError, match=r"'embed_out\.weight' is missing"):
        to_params(tensors, gpt_neox, config, "hf")


# --- GGUF ------------------------------------------------------------------------

GGUF_NAMES = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    "input_layernorm": "attn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}


def write_gguf(path, config, tensors):
    """A GGUF file as llama.cpp's converter writes it, from tensors in hub layout."""
    writer = gguf.GGUFWriter(path, "gptneox")
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_rope_dimension_count(config.rotary_width)
    writer.add_head_count(config.num_heads)
    writer.add_parallel_residual(config.parallel)
    writer.add_layer_norm_eps(config.norm_epsilon)
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    k = config.head_dim
    for name, values in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("gpt_neox.layers."):
            _, _, layer, stem = stem.split(".", 3)
            gguf_name = f"blk.{layer}.{GGUF_NAMES[stem]}.{kind}"
        else:
            gguf_name = f"{GGUF_NAMES[stem]}.{kind}"
        if stem == "attention.query_key_value":  # all queries, all keys, all values
            heads = range(0, 3 * config.width, 3 * k)
            parts = [values[h + p * k :][:k] for p in range(3) for h in heads]
            values = np.concatenate(parts)
        writer.add_tensor(gguf_name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", ["parallel", "sequential"])
def test_a_gguf_file_loads(tmp_path, name):
    tiny = Tiny(CONFIGS[name])
    tensors = from_params(tiny.params, gpt_neox, tiny.config, "hf")
    write_gguf(tmp_path / "tiny.gguf", tiny.config, tensors)
    model = load(tmp_path / "tiny.gguf")
    epsilon = model.config.norm_epsilon  # a float32 in the file
    assert epsilon == pytest.approx(tiny.config.norm_epsilon, rel=1e-6)
    assert dataclasses.replace(model.config, norm_epsilon=1e-5) == tiny.config
    assert params_sha256(model.params) == params_sha256(tiny.params)


GGUF_METADATA = {
    "gptneox.context_length": 2048,
    "gptneox.embedding_length": 512,
    "gptneox.block_count": 6,
    "gptneox.feed_forward_length": 2048,
    "gptneox.rope.dimension_count": 16,
    "gptneox.attention.head_count": 8,
    "gptneox.use_parallel_residual": True,
    "gptneox.attention.layer_norm_epsilon": 1e-5,
    "gptneox.vocab_size": 50304,
}


def test_gguf_metadata_describe_the_same_model_as_the_config():
    assert Config.from_gguf(GGUF_METADATA) == Config.from_hf(PYTHIA_70M)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gptneox.rope.scaling.type", "yarn"),
        ("gptneox.attention.head_count_kv", 2),
        ("gptneox.attention.key_length", 80),
        ("gptneox.attention.head_count", None),
    ],
)
def test_gguf_metadata_that_are_not_built_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        Config.from_gguf(GGUF_METADATA | {name: value})
