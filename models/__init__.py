"""Functional model definitions: one family a file, imported as ``jaxheads.models``.

The letters of every shape comment, docstring and einsum string:

    N  subsets of heads      T  query position      H  query heads      F  MLP width
    L  layers                S  key position        G  key/value heads  V  vocabulary
    B  batch (prompts)       D  residual width      K  head width       P  positions
    M  new tokens            R  rows: runs of one prompt that share its prefix

A family's file gives

- ``Config``: frozen, static; with ``num_layers``, ``width``, ``num_heads``,
  ``num_kv_heads``, ``head_dim``, ``mlp_width``, ``vocab_size``, ``context_length``,
  ``windows`` (how far each layer looks back, None: all of it), ``model_type``,
  ``dims()``, ``from_hf`` and ``from_gguf``;
- ``Params``, and ``abstract(config)``, the tree of its leaves before they have values;
  in every family ``embedding`` [V, D], ``unembedding`` [D, V] (None: the embedding,
  transposed), and ``layers`` with ``wq`` [L, D, H, K], ``wk``, ``wv`` [L, D, G, K] and
  ``wo`` [L, H, K, D];
- ``embed``, ``block`` and ``unembed``. ``embed`` is given whole rows, with positions
  from 0 on in each document. A family where it reads earlier tokens, too, also gives
  ``remember``, what it reads of a prompt, and ``embed_next``, the same for one token
  behind it, see ``toy.py``; where the first is None, tokens are embedded alone. A block
  hands q, k, v, positions applied, to
  ``attend(q, k, v, *, softcap=None, mix=None)``, which the code that runs layers gives
  and where mask, cache, capture and ablation live; scores are divided by sqrt(K) there.
  ``mix(k, v, previous_k, previous_v) -> (k, v)`` is for families whose keys or values
  take up the previous position's (zeros before the first);
- ``attention_input(layer, x, config, whole=None)``, the stream as queries, keys and
  values are projected from it, and ``contributions(layer, z, config, whole=None)``,
  what each head alone adds to the stream: z [..., H, K] -> [..., H, D]. The sum over
  heads and the output's bias is all that attention adds. These and ``unembed`` are
  linear once their norms' denominators are fixed: with ``whole`` (the stream, or for
  ``contributions`` the attention's output [..., D] before a norm behind it) those are
  its, biases and a cap on logits are left out, and the results of parts add up;
- ``OUTPUT``, names of the leaves of ``layers`` that take z to the stream: ``wo``, a
  bias (None where a checkpoint has none) and the norm behind the attention, if any.
  What the MLP adds ends in a product by ``w_down`` [L, F, D] and a bias ``b_down``:
  where those are zeros, or not there, a block is its attention alone;
- ``TENSORS``, ``PREFIX`` and ``IGNORED``, how checkpoints name all this.

See ``llama.py``. A new family is a new file and a line in ``FAMILIES``. Layers are run
by ``execution.py`` (whole sequences, for ``forward.py``), ``last_position.py``,
``patching.py``, ``removal.py`` and ``resuming.py``, and nowhere else.
"""

import importlib
from types import ModuleType

if __name__ == "models":
    raise ImportError(
        "this folder is jaxheads.models; a plain `import models` would make a second "
        "copy of every class: write `from jaxheads import models` instead"
    )

FAMILIES = {
    "gemma2": "gemma2",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "gptneox": "gpt_neox",
    "llama": "llama",
    "mistral": "llama",
    "olmo2": "olmo2",
    "qwen2": "qwen",
    "qwen3": "qwen",
    "toy": "toy",
}
"""Model type, as checkpoints name it, to the file of its family."""


def family(model_type: str) -> ModuleType:
    """The module that defines the family of a model type.

    Args:
        model_type: the name that the checkpoint gives, such as "llama".

    Raises:
        ValueError: no family in the table reads this model type.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ValueError(
            f"the model type must be one of {known}; this one is {model_type!r}"
        )
    return importlib.import_module(f"{__name__}.{FAMILIES[model_type]}")
