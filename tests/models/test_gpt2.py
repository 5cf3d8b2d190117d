"""GPT-2: its arithmetic, its configs of every age, its checkpoints' layout."""

import dataclasses
import math

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import Tiny, random_params

from jaxheads.errors import UserError
from jaxheads.models import family, gpt2
from jaxheads.models.forward import forward, generate, prefill
from jaxheads.models.gpt2 import Config
from jaxheads.models.layers import ACTIVATIONS, activation, activation_name
from jaxheads.models.parameters import num_params
from jaxheads.weights.convert import from_params, to_params
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.model import load

CONFIGS = {
    "published": Config(3, 40, 4, 34, 43, 64),
    "untied": Config(2, 42, 3, 34, 41, 64, activation="relu", tied=False),
    "unscaled": Config(2, 30, 5, 34, 37, 64, activation="silu", scaled=False),
}


@pytest.fixture(params=CONFIGS, scope="module")
def tiny(request) -> Tiny:
    """Each tiny GPT-2 in turn."""
    return Tiny(CONFIGS[request.param])


# --- arithmetic ------------------------------------------------------------------

PLAIN = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: (
        x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    ),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def plain_gpt2(params, tokens, config):
    """GPT-2 in float64 numpy, one head and one position at a time: [T] -> [T, V]."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    activate = np.vectorize(PLAIN[config.activation], otypes=[float])
    divisor = np.sqrt(config.head_dim) if config.scaled else 1

    def norm(x, scale, bias):
        return (x - x.mean()) / np.sqrt(x.var() + config.norm_epsilon) * scale + bias

    stream = [p.embedding[token] + p.positions[t] for t, token in enumerate(tokens)]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p.layers)
        normed = [
            norm(x, layer.attention_norm, layer.attention_norm_bias) for x in stream
        ]
        stream = [x + layer.bo for x in stream]
        for h in range(config.num_heads):
            q = [x @ layer.wq[:, h] + layer.bq[h] for x in normed]
            k = [x @ layer.wk[:, h] + layer.bk[h] for x in normed]
            v = [x @ layer.wv[:, h] + layer.bv[h] for x in normed]
            for t in range(len(tokens)):
                scores = np.array([q[t] @ k[s] for s in range(t + 1)]) / divisor
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                z = sum(w * x for w, x in zip(weights, v, strict=False))
                stream[t] = stream[t] + z @ layer.wo[h]
        for t, x in enumerate(stream):
            read = norm(x, layer.mlp_norm, layer.mlp_norm_bias)
            hidden = activate(read @ layer.w_up + layer.b_up)
            stream[t] = x + hidden @ layer.w_down + layer.b_down
    table = p.embedding.T if p.unembedding is None else p.unembedding
    final = [norm(x, p.final_norm, p.final_norm_bias) for x in stream]
    return np.stack([x @ table for x in final])


def test_logits_equal_a_plain_model_written_out_in_numpy(tiny):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tiny.params)
        out = forward(params, tiny.tokens, tiny.config, lengths=tiny.lengths)
    assert out.logits.dtype == jnp.float64
    for row, length in enumerate(tiny.lengths):
        expected = plain_gpt2(tiny.params, tiny.tokens[row, :length], tiny.config)
        np.testing.assert_allclose(out.logits[row, :length], expected, atol=1e-9)


def test_bfloat16_keeps_logits_in_float32():
    tiny = Tiny(CONFIGS["unscaled"])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tiny.params)
    out = forward(params, tiny.tokens, tiny.config, capture=("residual",))
    assert out.residual is not None and out.residual.dtype == jnp.bfloat16
    assert out.logits.dtype == jnp.float32
    assert np.isfinite(out.logits).all()


def test_a_position_beyond_the_context_is_not_the_last_one_again():
    config = dataclasses.replace(CONFIGS["published"], context_length=7)
    params = random_params(config, 0)
    tokens, positions = jnp.array([[3, 3, 3]]), jnp.array([[0, 6, 7]])
    x = gpt2.embed(params, tokens, positions, config)
    expected = params.embedding[3] + params.positions[6]
    np.testing.assert_array_equal(x[0, 1], expected)
    assert np.isfinite(x[0, :2]).all() and np.isnan(x[0, 2]).all()


def test_generation_walks_on_along_the_positions():
    config = CONFIGS["published"]
    params = random_params(config, 0)
    tokens, lengths = jnp.array([[5, 9, 2, 7, 1], [8, 6, 0, 0, 0]]), jnp.array([5, 2])
    made = generate(params, prefill(params, tokens, lengths, config), config, 3)
    for row, length in enumerate(lengths):
        sequence = [*tokens[row, :length].tolist()]
        for _ in range(3):
            sequence.append(int(plain_gpt2(params, sequence, config)[-1].argmax()))
        assert made[row].tolist() == sequence[length:]


@pytest.mark.parametrize("name", [n for names in ACTIVATIONS.values() for n in names])
def test_activations_are_what_their_names_say(name):
    x = np.array([-20.0, -3.0, -0.5, 0.0, 1e-3, 0.7, 4.0, 30.0])
    expected = [PLAIN[activation_name(name)](v) for v in x]
    with jax.enable_x64(True):
        wide = activation(name)(jnp.asarray(x))
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, rtol=1e-12, atol=1e-15)
    narrow = activation(name)(jnp.asarray(x, jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(float), expected, rtol=2**-7, atol=1e-3)


# --- configs ---------------------------------------------------------------------

GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "vocab_size": 50257,
}


def test_the_old_config_of_gpt2_is_read():
    config = Config.from_hf(GPT2)
    assert config == Config(12, 768, 12, 3072, 50257, 1024)
    assert (config.head_dim, config.num_kv_heads, config.windows) == (64, 12, None)
    assert config.activation == "gelu_tanh" and config.tied and config.scaled
    assert family("gpt2") is gpt2


def test_new_spellings_are_read():
    settings = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "max_position_embeddings": 1024,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu_new",
        "vocab_size": 50257,
    }
    assert Config.from_hf(settings) == Config.from_hf(GPT2)
    wider = Config.from_hf(settings | {"intermediate_size": 1000})
    assert wider.mlp_width == 1000
    only_context = {k: v for k, v in GPT2.items() if k != "n_positions"}
    assert Config.from_hf(only_context | {"n_ctx": 512}).context_length == 512


def test_what_varies_between_members_is_read():
    changes = {
        "n_inner": 100,
        "activation_function": "gelu",
        "scale_attn_weights": False,
        "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
        "reorder_and_upcast_attn": True,
        "scale_attn_by_inverse_layer_idx": False,
    }
    config = Config.from_hf(GPT2 | changes)
    assert (config.mlp_width, config.activation) == (100, "gelu")
    assert not config.scaled and not config.tied
    assert config.norm_epsilon == 1e-3
    assert Config.from_hf(GPT2 | {"n_inner": None}) == Config.from_hf(GPT2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "mish"}, "activation .* 'mish'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention = True"),
        ({"num_hidden_layers": 11}, "'n_layer': 12, 'num_hidden_layers': 11"),
        ({"num_attention_heads": 6}, "'n_head': 12, 'num_attention_heads': 6"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu', .* gives 'gelu_new'"),
        ({"layer_norm_eps": 0.1}, r"layer_norm_eps = 0\.1, .* gives 1e-05"),
        ({"sliding_window": 7}, "= 7, but .* 'gpt2' has no attention window"),
        ({"is_causal": False}, "is_causal = False"),
        ({"quantization_config": {"quant_method": "gptq"}}, "config = 'gptq'"),
        ({"tie_word_embeddings": None}, "'tie_word_embeddings' must be true or false"),
        ({"n_head": 11}, "num_heads must divide"),
        ({"n_head": 0}, "num_heads must be positive"),
        ({"n_embd": None}, "'n_embd'"),
        ({"n_inner": 3072.5}, "'n_inner' must be a whole number"),
    ],
)
def test_what_is_not_built_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.from_hf(GPT2 | changes)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "count"),
    [
        (12, 768, 12, 124_439_808),
        (24, 1024, 16, 354_823_168),
        (36, 1280, 20, 774_030_080),
        (48, 1600, 25, 1_557_611_200),
    ],
)
def test_gpt2s_have_their_published_sizes(layers, width, heads, count):
    sizes = {"n_layer": layers, "n_embd": width, "n_head": heads}
    assert num_params(gpt2.abstract(Config.from_hf(GPT2 | sizes))) == count


# --- checkpoints -----------------------------------------------------------------


def test_the_fused_columns_go_by_q_k_v_then_head_then_width():
    config = CONFIGS["published"]
    params = random_params(config, 3)
    tensors = from_params(params, gpt2, config, "hf")
    for l in range(config.num_layers):
        name = f"transformer.h.{l}.attn.c_attn"
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        assert (weight.shape, bias.shape) == ((40, 120), (120,))
        for part, leaf in enumerate("qkv"):
            matrix = np.asarray(getattr(params.layers, f"w{leaf}"))
            vector = np.asarray(getattr(params.layers, f"b{leaf}"))
            for h in range(4):
                for k in range(10):
                    column = part * 40 + h * 10 + k
                    assert bias[column] == vector[l, h, k]
                    assert [*weight[:, column]] == [*matrix[l, :, h, k]]


@pytest.mark.parametrize("layout", ["hf", "gguf"])
def test_from_params_is_the_inverse_of_to_params(tiny, layout):
    tensors = from_params(tiny.params, gpt2, tiny.config, layout)
    again = to_params(tensors, gpt2, tiny.config, layout)
    assert params_sha256(again) == params_sha256(tiny.params)
    assert jax.tree.structure(again) == jax.tree.structure(tiny.params)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_old_buffers_are_ignored_with_and_without_the_prefix(tiny, prefix):
    tensors = from_params(tiny.params, gpt2, tiny.config, "hf")
    head = tensors.pop("lm_head.weight", None)
    assert (head is None) == tiny.config.tied
    tensors = {prefix + n.removeprefix("transformer."): v for n, v in tensors.items()}
    # Where it is tied, files may hold the unembedding as well.
    unused = np.zeros((tiny.config.vocab_size, tiny.config.width), np.float32)
    tensors["lm_head.weight"] = unused if head is None else head
    for l in range(tiny.config.num_layers):
        for name in ("bias", "masked_bias"):
            tensors[f"{prefix}h.{l}.attn.{name}"] = np.zeros(3, np.float32)
    again = to_params(tensors, gpt2, tiny.config, "hf")
    assert params_sha256(again) == params_sha256(tiny.params)


def test_other_leftovers_and_gaps_are_told():
    config = CONFIGS["untied"]
    tensors = from_params(random_params(config, 0), gpt2, config, "hf")
    stray = "transformer.h.1.crossattention.q_attn.weight"
    with pytest.raises(UserError, match=f"'{stray}' is unexpected"):
        to_params(tensors | {stray: np.zeros(3)}, gpt2, config, "hf")
    del tensors["lm_head.weight"]
    with pytest.raises(UserError, match=r"'lm_head\.weight' is missing"):
        to_params(tensors, gpt2, config, "hf")


# --- GGUF ------------------------------------------------------------------------

GGUF_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def write_gguf(path, config, tensors):
    """A GGUF file as llama.cpp's converter writes it, from tensors in hub layout."""
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_layer_norm_eps(config.norm_epsilon)
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    for name, values in tensors.items():
        stem, _, kind = name.rpartition(".")
        gguf_name = GGUF_NAMES.get(stem)
        if gguf_name is None:
            _, _, layer, stem = stem.split(".", 3)
            gguf_name = f"blk.{layer}.{GGUF_NAMES[stem]}"
            values = values.T  # of vectors: themselves
        writer.add_tensor(f"{gguf_name}.{kind}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_loads(tmp_path, tied):
    config = dataclasses.replace(CONFIGS["published"], tied=tied)
    params = random_params(config, 0)
    tensors = from_params(params, gpt2, config, "hf")
    write_gguf(tmp_path / "tiny.gguf", config, tensors)
    model = load(tmp_path / "tiny.gguf")
    epsilon = model.config.norm_epsilon  # a float32 in the file
    assert epsilon == pytest.approx(config.norm_epsilon, rel=1e-6)
    assert dataclasses.replace(model.config, norm_epsilon=1e-5) == config
    assert params_sha256(model.params) == params_sha256(params)


GGUF_METADATA = {
    "gpt2.context_length": 1024,
    "gpt2.embedding_length": 768,
    "gpt2.block_count": 12,
    "gpt2.feed_forward_length": 3072,
    "gpt2.attention.head_count": 12,
    "gpt2.attention.layer_norm_epsilon": 1e-5,
    "gpt2.vocab_size": 50257,
    "tied": True,
}


def test_gguf_metadata_describe_the_same_model_as_the_config():
    assert Config.from_gguf(GGUF_METADATA) == Config.from_hf(GPT2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gpt2.attention.head_count_kv", 2), ("gpt2.block_count", None)],
)
def test_gguf_metadata_that_are_not_built_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        Config.from_gguf(GGUF_METADATA | {name: value})
