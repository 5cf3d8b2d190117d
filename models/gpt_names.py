"""What checkpoints call the tensors of GPT-2 and GPT-NeoX.

Both keep queries, keys and values of a layer in one tensor, in orders of their own: of
its axis, GPT-2's goes by p (q, k or v), head, width, and GPT-NeoX's by head, p, width.
"""

Names = dict[str, tuple[str, str] | tuple[str, str, int]]
"""By leaf of the params: the tensor's name, the reshape to the leaf, and, of a tensor
that holds several leaves, which part of axis p this one is."""


def fused(tensor: str, weight: str, bias: str) -> Names:
    """Queries, keys and values that a checkpoint keeps in one tensor."""
    names: Names = {}
    for part, leaf in enumerate("qkv"):
        names[f"layers.w{leaf}"] = (f"{tensor}.weight", weight, part)
        names[f"layers.b{leaf}"] = (f"{tensor}.bias", bias, part)
    return names


_H = "transformer.h.{l}."

GPT2: Names = {
    "embedding": ("transformer.wte.weight", "v d -> v d"),
    "positions": ("transformer.wpe.weight", "t d -> t d"),
    "layers.attention_norm": (_H + "ln_1.weight", "d -> d"),
    "layers.attention_norm_bias": (_H + "ln_1.bias", "d -> d"),
    **fused(_H + "attn.c_attn", "d (p h k) -> p d h k", "(p h k) -> p h k"),
    "layers.wo": (_H + "attn.c_proj.weight", "(h k) d -> h k d"),
    "layers.bo": (_H + "attn.c_proj.bias", "d -> d"),
    "layers.mlp_norm": (_H + "ln_2.weight", "d -> d"),
    "layers.mlp_norm_bias": (_H + "ln_2.bias", "d -> d"),
    "layers.w_up": (_H + "mlp.c_fc.weight", "d f -> d f"),
    "layers.b_up": (_H + "mlp.c_fc.bias", "f -> f"),
    "layers.w_down": (_H + "mlp.c_proj.weight", "f d -> f d"),
    "layers.b_down": (_H + "mlp.c_proj.bias", "d -> d"),
    "final_norm": ("transformer.ln_f.weight", "d -> d"),
    "final_norm_bias": ("transformer.ln_f.bias", "d -> d"),
    "unembedding": ("lm_head.weight", "v d -> d v"),
}
"""GPT-2 on the hub: matrices are [in, out]."""

_LAYER = "gpt_neox.layers.{l}."
_QKV = _LAYER + "attention.query_key_value"

GPT_NEOX: Names = {
    "embedding": ("gpt_neox.embed_in.weight", "v d -> v d"),
    "layers.attention_norm": (_LAYER + "input_layernorm.weight", "d -> d"),
    "layers.attention_norm_bias": (_LAYER + "input_layernorm.bias", "d -> d"),
    **fused(_QKV, "(h p k) d -> p d h k", "(h p k) -> p h k"),
    "layers.wo": (_LAYER + "attention.dense.weight", "d (h k) -> h k d"),
    "layers.bo": (_LAYER + "attention.dense.bias", "d -> d"),
    "layers.mlp_norm": (_LAYER + "post_attention_layernorm.weight", "d -> d"),
    "layers.mlp_norm_bias": (_LAYER + "post_attention_layernorm.bias", "d -> d"),
    "layers.w_up": (_LAYER + "mlp.dense_h_to_4h.weight", "f d -> d f"),
    "layers.b_up": (_LAYER + "mlp.dense_h_to_4h.bias", "f -> f"),
    "layers.w_down": (_LAYER + "mlp.dense_4h_to_h.weight", "d f -> f d"),
    "layers.b_down": (_LAYER + "mlp.dense_4h_to_h.bias", "d -> d"),
    "final_norm": ("gpt_neox.final_layer_norm.weight", "d -> d"),
    "final_norm_bias": ("gpt_neox.final_layer_norm.bias", "d -> d"),
    "unembedding": ("embed_out.weight", "v d -> d v"),
}
"""GPT-NeoX on the hub."""

GGUF: Names = {
    "embedding": ("token_embd.weight", "v d -> v d"),
    "positions": ("position_embd.weight", "t d -> t d"),
    "layers.attention_norm": ("blk.{l}.attn_norm.weight", "d -> d"),
    "layers.attention_norm_bias": ("blk.{l}.attn_norm.bias", "d -> d"),
    **fused("blk.{l}.attn_qkv", "(p h k) d -> p d h k", "(p h k) -> p h k"),
    "layers.wo": ("blk.{l}.attn_output.weight", "d (h k) -> h k d"),
    "layers.bo": ("blk.{l}.attn_output.bias", "d -> d"),
    "layers.mlp_norm": ("blk.{l}.ffn_norm.weight", "d -> d"),
    "layers.mlp_norm_bias": ("blk.{l}.ffn_norm.bias", "d -> d"),
    "layers.w_up": ("blk.{l}.ffn_up.weight", "f d -> d f"),
    "layers.b_up": ("blk.{l}.ffn_up.bias", "f -> f"),
    "layers.w_down": ("blk.{l}.ffn_down.weight", "d f -> f d"),
    "layers.b_down": ("blk.{l}.ffn_down.bias", "d -> d"),
    "final_norm": ("output_norm.weight", "d -> d"),
    "final_norm_bias": ("output_norm.bias", "d -> d"),
    "unembedding": ("output.weight", "v d -> d v"),
}
"""Both in GGUF files: llama.cpp turns GPT-2's matrices to [out, in], sorts GPT-NeoX's
rows as GPT-2 has them, and permutes no rotary pairs."""
