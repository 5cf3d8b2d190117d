"""Makes the SentencePiece golden files: models, their pieces, texts and their ids.

Run by hand, with the ``sentencepiece`` package (0.2.3 made the committed files):
``python tests/data/make_sentencepiece.py``.
"""

import json
from pathlib import Path

import sentencepiece  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent

WORDS = """attention heads look back at earlier tokens and copy what came after them
a model learns from examples in its context without any change of its weights
the quick brown fox jumps over the lazy dog while the small grey cat sleeps
def forward(self, x): return self.layer(x) + x    # residual
    for i in range(10):  print(i, i ** 2, "value = %d" % i)
paris is the capital of france, rome is the capital of italy: 1234567890
it's what you'd expect, isn't it? yes - we'll see; (maybe) [not] {ever} <b>ok</b>
naïve café über straße señor""".splitlines()

TEXTS = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "the capital of france is paris",
    " the capital  of   france    is     paris",
    "attention heads\n\n\nlook back\n",
    "\n",
    "\n\n\n\n\n",
    "\t\tfor i in range(10):\n        print(i)\n",
    "unseen WORDS With Capitals",
    "Ünïcödé: 漢字 عربى 🙂 é ñ²½",
    "cafe\u0301 caf\u00e9 \u200b\u00a0 zero width",
    "\u2581the\u2581\u2581cat",
    "3.14159, 1 234 and 2026",
    "it's we'll I'D isn't",
    "<0x41><s></s><unk><pad>",
    "<table>the<table> cat <table>",
    "hahahahahahaha aaaaaaaaaaaaa eeee",
    *(" " * count + "the" for count in range(2, 12)),
    *("the" + " " * count for count in range(2, 12)),
    "\x00\x01\x7f control",
    "the lazy dog " * 20,
]

KINDS = {
    "IsUnknown": 2,
    "IsControl": 3,
    "IsUnused": 5,
    "IsByte": 6,
}


def main() -> None:
    """Train a model as Llama's was and one as Gemma's was, and encode the texts."""
    common = {
        "sentence_iterator": None,
        "model_type": "bpe",
        "vocab_size": 560,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "character_coverage": 1.0,
        "minloglevel": 2,
    }
    runs = ["\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "\t\t", "<table>"]
    golden = {}
    for name, settings in {
        "llama": {"add_dummy_prefix": True},
        "gemma": {"add_dummy_prefix": False, "user_defined_symbols": runs},
    }.items():
        model = HERE / f"sentencepiece_{name}.model"
        with open(model, "wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                **common
                | settings
                | {"sentence_iterator": iter(WORDS * 3), "model_writer": file}
            )
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        golden[name] = {
            "prefix": settings["add_dummy_prefix"],
            "bos_id": processor.bos_id(),
            "pieces": [
                (
                    processor.IdToPiece(index),
                    processor.GetScore(index),
                    kind(processor, index, settings.get("user_defined_symbols", [])),
                )
                for index in range(processor.vocab_size())
            ],
            "ids": [processor.encode(text) for text in TEXTS],
            "decoded": [processor.decode(processor.encode(text)) for text in TEXTS],
        }
    text = json.dumps({"texts": TEXTS, **golden}, ensure_ascii=True)
    (HERE / "sentencepiece.json").write_text(text.replace("]], ", "]],\n") + "\n")


def kind(processor, index: int, user_defined: list[str]) -> int:
    """What a piece is, in the numbers that GGUF files use too."""
    if processor.IdToPiece(index) in user_defined:
        return 4
    return next((n for test, n in KINDS.items() if getattr(processor, test)(index)), 1)


if __name__ == "__main__":
    main()
