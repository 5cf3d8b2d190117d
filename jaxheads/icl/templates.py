"""How a few-shot prompt is written: what stands around its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Template:
    r"""How a prompt is written; the default is the papers' ``Q: x\nA: y\n\n``.

    Attributes:
        input_prefix: Before each input.
        output_prefix: Between an input and its answer's place; ends the prompt.
        answer_prefix: Between ``output_prefix`` and an answer.
        separator: After each demonstration.

    Source: Todd et al. 2024 (arXiv 2310.15213), section 2 and code repository.
    """

    input_prefix: str = "Q: "
    output_prefix: str = "\nA:"
    answer_prefix: str = " "
    separator: str = "\n\n"

    def write(self, shots: Sequence[tuple[str, str]], query: str) -> str:
        """Write demonstrations and a query as one text."""
        before = "".join(
            f"{self.input_prefix}{given}{self.output_prefix}{self.answer_prefix}"
            f"{wanted}{self.separator}"
            for given, wanted in shots
        )
        return f"{before}{self.input_prefix}{query}{self.output_prefix}"


TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "qa": Template(),
        "question_answer": Template("Question: ", "\nAnswer:"),
        "input_output": Template("Input: ", "\nOutput:"),
        "arrow": Template("", " ->", separator="\n"),
        "colon": Template("", ":", separator="\n"),
        "bar": Template("", " |", separator="\n"),
        "lines": Template("", "\n", answer_prefix="", separator="\n\n"),
    }
)
"""Templates by name: the papers' first, then other ways to show the same pairs.

A head that carries a task should carry it however the pairs are written. None of them
ends in a space, which tokenizers join to the word that follows.
"""
