"""What checkpoints call the tensors of Llama and its kin."""

Names = dict[str, tuple[str, str]]
"""By leaf of the params: the tensor's name, and the reshape to the leaf."""

_LAYER = "model.layers.{l}."

HF: Names = {
    "embedding": ("model.embed_tokens.weight", "v d -> v d"),
    "layers.attention_norm": (_LAYER + "input_layernorm.weight", "d -> d"),
    "layers.wq": (_LAYER + "self_attn.q_proj.weight", "(h k) d -> d h k"),
    "layers.wk": (_LAYER + "self_attn.k_proj.weight", "(g k) d -> d g k"),
    "layers.wv": (_LAYER + "self_attn.v_proj.weight", "(g k) d -> d g k"),
    "layers.wo": (_LAYER + "self_attn.o_proj.weight", "d (h k) -> h k d"),
    "layers.mlp_norm": (_LAYER + "post_attention_layernorm.weight", "d -> d"),
    "layers.w_gate": (_LAYER + "mlp.gate_proj.weight", "f d -> d f"),
    "layers.w_up": (_LAYER + "mlp.up_proj.weight", "f d -> d f"),
    "layers.w_down": (_LAYER + "mlp.down_proj.weight", "d f -> f d"),
    "layers.bq": (_LAYER + "self_attn.q_proj.bias", "(h k) -> h k"),
    "layers.bk": (_LAYER + "self_attn.k_proj.bias", "(g k) -> g k"),
    "layers.bv": (_LAYER + "self_attn.v_proj.bias", "(g k) -> g k"),
    "layers.bo": (_LAYER + "self_attn.o_proj.bias", "d -> d"),
    "layers.q_norm": (_LAYER + "self_attn.q_norm.weight", "k -> k"),
    "layers.k_norm": (_LAYER + "self_attn.k_norm.weight", "k -> k"),
    "layers.b_gate": (_LAYER + "mlp.gate_proj.bias", "f -> f"),
    "layers.b_up": (_LAYER + "mlp.up_proj.bias", "f -> f"),
    "layers.b_down": (_LAYER + "mlp.down_proj.bias", "d -> d"),
    "final_norm": ("model.norm.weight", "d -> d"),
    "unembedding": ("lm_head.weight", "v d -> d v"),
}
"""On the hub."""

GGUF: Names = {
    "embedding": ("token_embd.weight", "v d -> v d"),
    "layers.attention_norm": ("blk.{l}.attn_norm.weight", "d -> d"),
    "layers.wq": ("blk.{l}.attn_q.weight", "(h k) d -> d h k"),
    "layers.wk": ("blk.{l}.attn_k.weight", "(g k) d -> d g k"),
    "layers.wv": ("blk.{l}.attn_v.weight", "(g k) d -> d g k"),
    "layers.wo": ("blk.{l}.attn_output.weight", "d (h k) -> h k d"),
    "layers.mlp_norm": ("blk.{l}.ffn_norm.weight", "d -> d"),
    "layers.w_gate": ("blk.{l}.ffn_gate.weight", "f d -> d f"),
    "layers.w_up": ("blk.{l}.ffn_up.weight", "f d -> d f"),
    "layers.w_down": ("blk.{l}.ffn_down.weight", "d f -> f d"),
    "layers.bq": ("blk.{l}.attn_q.bias", "(h k) -> h k"),
    "layers.bk": ("blk.{l}.attn_k.bias", "(g k) -> g k"),
    "layers.bv": ("blk.{l}.attn_v.bias", "(g k) -> g k"),
    "layers.bo": ("blk.{l}.attn_output.bias", "d -> d"),
    "layers.q_norm": ("blk.{l}.attn_q_norm.weight", "k -> k"),
    "layers.k_norm": ("blk.{l}.attn_k_norm.weight", "k -> k"),
    "layers.b_gate": ("blk.{l}.ffn_gate.bias", "f -> f"),
    "layers.b_up": ("blk.{l}.ffn_up.bias", "f -> f"),
    "layers.b_down": ("blk.{l}.ffn_down.bias", "d -> d"),
    "final_norm": ("output_norm.weight", "d -> d"),
    "unembedding": ("output.weight", "v d -> d v"),
}
"""In GGUF files, of every architecture but "llama"."""

PERMUTED: Names = {
    "layers.wq": ("blk.{l}.attn_q.weight", "(h j c) d -> d h (c j)"),
    "layers.wk": ("blk.{l}.attn_k.weight", "(g j c) d -> d g (c j)"),
    "layers.bq": ("blk.{l}.attn_q.bias", "(h j c) -> h (c j)"),
    "layers.bk": ("blk.{l}.attn_k.bias", "(g j c) -> g (c j)"),
}
"""In GGUF files of architecture "llama", what lies otherwise: llama.cpp stores the rows
of q and k with each rotary pair side by side, so that row (j, c) of a head there is row
(c, j) here."""

PREFIX = "model."
"""What checkpoints of the bare model, without its unembedding, leave out of names."""

IGNORED = {
    r".*rotary_emb\.inv_freq": "recomputed from the config",
    r"lm_head\.weight": "tied: the embedding is used",
}
"""Tensors that may be left over (full-match patterns), with the reason."""
