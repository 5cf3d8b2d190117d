"""What models are trained on: sources that give windows of tokens by number.

- ``windows``: the contract, ``Source`` and ``Windows``.
- ``text_windows``: text, from a ``token_store`` that a corpus (``corpora``) is
  tokenised into once; ``vocabulary`` trains a tokenizer on it.
- ``repeats``: random tokens with a random period, which induction heads form on.
- ``successors``: the induction toy; tokens that keep their successor.
- ``function_mixture``: copying beside tasks that copying cannot solve.
- ``languages``: strings of random automata (``automata``, ``language_metrics``).
"""
