"""Where a task's answers begin to differ, in the tokens of a tokenizer.

With some tokenizers " 5" is a space and a digit: all answers of a task in digits begin
with one token, which says nothing of the answer. So what all answers of a task share
goes to the prompt, and the target is the token that follows. With w(y) the tokens of
answer y as they go on from a prompt, of n answers y_1 to y_n that differ::

    k = min(length of the longest common beginning of w(y_1) ... w(y_n),
            length of the shortest w(y_i) - 1),     k = 0 for n = 1
    prompt: its own tokens, then w(y)[:k]
    target: w(y)[k]

That is "informative". In scores, ablations and all else the last position is that of
the k-th shared token, the same for clean and corrupted prompts and for the query alone.
"published" is the papers' k = 0: the first token of the answer with its leading space.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from jaxheads.errors import UserError
from jaxheads.icl.encoding import Tokenizer
from jaxheads.icl.templates import Template

TARGETS = ("informative", "published")
_INPUT = "x"  # what stands for a query where the answers of all are compared


def answer_tokens(
    text: str, ids: Sequence[int], answer: str, tokenizer: Tokenizer
) -> list[int]:
    """Turn an answer into ids, as it goes on from a text.

    Args:
        text: A prompt.
        ids: Its ids, without BOS.
        answer: With what stands between the two, such as a space.
        tokenizer: That made them.

    Returns:
        The ids that follow ``ids`` in those of both together; where the tokenizer
        merges across the border, those of ``answer`` alone.

    Raises:
        UserError: The answer has no token.
    """
    whole = tokenizer.encode(text + answer)
    if len(whole) > len(ids) and whole[: len(ids)] == list(ids):
        return whole[len(ids) :]
    alone = tokenizer.encode(answer)
    if not alone:
        raise UserError(
            f"the answer {answer!r} after {text[-30:]!r} has no token in this "
            "tokenizer: leave the item out."
        )
    return alone


class Answers:
    """The answers of a task as tokens.

    Args:
        answers: Of the task; those that are equal count once.
        template: How its prompts are written.
        tokenizer: The model's.
        targets: "informative" or "published" (see the module).

    Attributes:
        shared: Ids that go to the prompt, k of them.

    Raises:
        UserError: An answer has no token, or ``targets`` is unknown.
    """

    def __init__(
        self,
        answers: Sequence[str],
        template: Template,
        tokenizer: Tokenizer,
        targets: str = "informative",
    ):
        if targets not in TARGETS:
            raise UserError(
                f"the targets are one of {', '.join(TARGETS)}, not {targets!r}."
            )
        self._template, self._tokenizer = template, tokenizer
        self._answers = list(dict.fromkeys(answers))
        self._text = template.write((), _INPUT)
        self._ids = tokenizer.encode(self._text)
        self.shared = self._common() if targets == "informative" else []

    def _common(self) -> list[int]:
        if len(self._answers) < 2:
            return []
        common = self._tokens(self._answers[0])[:-1]
        for answer in self._answers[1:]:
            if not common:
                break
            # The last token of every answer stays its own.
            pairs = zip(common, self._tokens(answer)[:-1], strict=False)
            common = [one for one, _ in takewhile(lambda two: two[0] == two[1], pairs)]
        return common

    def _tokens(self, answer: str) -> list[int]:
        written = self._template.answer_prefix + answer
        return answer_tokens(self._text, self._ids, written, self._tokenizer)

    def after(self, text: str, ids: Sequence[int], answer: str) -> list[int]:
        """Turn one of the answers into ids, as it goes on from a prompt.

        Args:
            text: The prompt.
            ids: Its ids, without BOS.
            answer: The answer.

        Returns:
            All its ids: ``shared``, then one or more of its own. Where those after this
            prompt do not begin so, the ids after another prompt, by which ``shared``
            was found.
        """
        written = self._template.answer_prefix + answer
        found = answer_tokens(text, ids, written, self._tokenizer)
        count = len(self.shared)
        if len(found) > count and found[:count] == self.shared:
            return found
        return self._tokens(answer)

    def collisions(self) -> float:
        """Give the share of pairs of different answers whose targets are one token.

        Returns:
            From 0, where the target tells every answer, to 1, where it tells none. A
            task of one answer has 1.
        """
        count, at = len(self._answers), len(self.shared)
        if count < 2:
            return 1.0
        targets = Counter(self._tokens(answer)[at] for answer in self._answers)
        same = sum(number * (number - 1) for number in targets.values())
        return same / (count * (count - 1))
