"""The papers' protocols by name, and where a paper's code deviates from its text.

``PROTOCOLS["yin2025"]`` is a config like any other: ``dataclasses.replace`` changes it.
It names what a protocol does, not the model, and holds for models of every size.
"""

import dataclasses
from types import MappingProxyType
from typing import Any

from jaxheads.icl.task_names import (
    EXECUTION_TASKS,
    YIN_EVALUATION_FILES,
    YIN_EXECUTION_FILES,
    YIN_SCORING_FILES,
    without_splits,
)
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.token_loss.config import TokenLossConfig

_RANKINGS = ("function_vector", "induction_yin")
_FRACTIONS = (0.01, 0.03, 0.05, 0.07, 0.09, 0.15, 0.20)

_QUICK = StudyConfig(
    execution=ExecutionConfig(tasks=()),
    protocol="quick",
)

_YIN = StudyConfig(
    scores=ScoresConfig(
        tasks=without_splits(YIN_SCORING_FILES),
        clean_prompts=100,
        corrupted_prompts=100,
        sequences=1000,
    ),
    ablation=AblationConfig(
        tasks=without_splits(YIN_EVALUATION_FILES),
        prompts=100,
        rankings=_RANKINGS,
        fractions=_FRACTIONS,
        exclusion=0.02,
        exclusions=(0.01, 0.05),
        exclusions_at=(0.05,),
        zero_shot=True,
        keep_only=(0.02, 0.05, 0.1),
        draws=10,
        draws_elsewhere=2,
        matched_to=("function_vector",),
    ),
    token_loss=TokenLossConfig(
        documents=10_000,
        allow_fewer=True,
        fill_documents=22,
        positions=(50, 500),
        window=1,
        rankings=_RANKINGS,
        fractions=_FRACTIONS,
        draws=8,
        draws_elsewhere=1,
        side_by_side=(0.05,),
        values=("mean", "zero", "mean_by_position", "resample", "bos"),
    ),
    execution=ExecutionConfig(
        tasks=without_splits(YIN_EXECUTION_FILES),
        prompts=6,
        clean_prompts=8,
        mean="task",
        size=0.02,
        layers="third",
        random_sets=3,
    ),
    protocol="yin2025",
    bos=True,
)

_YIN_CODE = StudyConfig(
    scores=ScoresConfig(
        tasks=YIN_SCORING_FILES,
        clean_prompts=100,
        corrupted_prompts=100,
        sequences=1000,
        probe_tokens="retokenized",
        probe_vocabulary="model",
    ),
    ablation=AblationConfig(
        tasks=YIN_EVALUATION_FILES,
        prompts=100,
        rankings=_RANKINGS,
        fractions=_FRACTIONS,
        exclusion=0.02,
        exclusion_least=0,
        zero_shot=True,
        keep_only=(),
        draws=1,
        matched_to=(),
        f1_style="yin2025",
    ),
    token_loss=TokenLossConfig(
        documents=1000,
        allow_fewer=True,
        packing="stream",
        average="published",
        fill_documents=1,
        positions=(51, 501),
        window=1,
        rankings=_RANKINGS,
        fractions=_FRACTIONS,
        exclusion=0.02,
        exclusion_least=0,
        draws=1,
        values=("bos",),
    ),
    execution=ExecutionConfig(
        tasks=YIN_EXECUTION_FILES,
        prompts=25,
        mean="tasks",
        size=0.01,
        sizes=(0.01,),
        layers="third",
        bias="each_head",
        random_sets=1,
    ),
    seed=42,
    protocol="yin2025-code",
    drawing="published",
    targets="published",
    bos=True,
)

_TODD = StudyConfig(
    scores=ScoresConfig(
        tasks=EXECUTION_TASKS,
        clean_prompts=100,
        corrupted_prompts=25,
    ),
    execution=ExecutionConfig(
        tasks=EXECUTION_TASKS,
        prompts=25,
        clean_prompts=100,
        mean="task",
        layers="all",
        random_sets=3,
    ),
    protocol="todd2024",
    bos=True,
)

PROTOCOLS: MappingProxyType[str, StudyConfig] = MappingProxyType(
    {
        "quick": _QUICK,
        "yin2025": _YIN,
        "yin2025-code": _YIN_CODE,
        "todd2024": _TODD,
    }
)
"""Configs by the name of their protocol."""

MEANING: MappingProxyType[str, str] = MappingProxyType(
    {
        "quick": "minutes on two cores: few tasks, few prompts, windows of losses",
        "yin2025": "Yin & Steinhardt 2025, the text; with several random draws, "
        "layer-matched controls, other exclusions and values side by side",
        "yin2025-code": "the same paper's code, with all that it does differently",
        "todd2024": "Todd et al. 2024: function vectors of the six main tasks",
    }
)
"""What a protocol is, in a line."""


@dataclasses.dataclass(frozen=True)
class Deviation:
    """Where the code of Yin & Steinhardt 2025 does not do what the text says.

    Attributes:
        name: what differs, in a few words.
        section: of the paper, or what of the code.
        switch: the option that holds it, such as "scores.probe_tokens".
        text_value: of the switch in "yin2025".
        code_value: of the switch in "yin2025-code".
        effect: what the code's way does to the numbers.
    """

    name: str
    section: str
    switch: str
    text_value: Any
    code_value: Any
    effect: str


def value_of(config: StudyConfig, switch: str) -> Any:
    """The value of an option, such as "scores.probe_tokens", in a config."""
    found = config
    for name in switch.split("."):
        found = getattr(found, name)
    return found


_TEXT, _CODE = PROTOCOLS["yin2025"], PROTOCOLS["yin2025-code"]


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "measure of the induction score",
        "3; find_induction_heads.py",
        "ablation.rankings",
        _RANKINGS,
        _RANKINGS,
        "none on the values: the code asks for another measure (abs), which is not "
        "passed on, so that the share of all attention is in force, as in the text; "
        "its ceiling is about 0.5, not 1",
    ),
    Deviation(
        "induction probe through text",
        "3; find_induction_heads.py",
        "scores.probe_tokens",
        "ids",
        "retokenized",
        "random tokens merge and fall apart, tokens may repeat within a half, and a "
        "second BOS stands in front: sequences of differing lengths, lower scores",
    ),
    Deviation(
        "vocabulary of the induction probe",
        "3; find_induction_heads.py",
        "scores.probe_vocabulary",
        "tokenizer",
        "model",
        "padding rows of the embedding, never trained, are drawn too; they have no "
        "text and vanish, which shortens sequences",
    ),
    Deviation(
        "files of the scoring tasks",
        "A.8; find_fv_heads.py",
        "scores.tasks",
        _TEXT.scores.tasks,
        _CODE.scores.tasks,
        "27 parts of tasks for training, one for validation and one whole file, where "
        "the text has 37 tasks; which ones is not known, so the 29 stand in both",
    ),
    Deviation(
        "split of the scoring tasks",
        "A.8; find_fv_heads.py",
        "drawing",
        "jaxheads",
        "published",
        "queries come from 9 % of a file, 21 % is never used, and queries repeat",
    ),
    Deviation(
        "split of the evaluation tasks",
        "4; ablate.py",
        "drawing",
        "jaxheads",
        "published",
        "demonstrations come from 10 % of a file: as few as 13 different ones; seed "
        "32, prompt i asks item i",
    ),
    Deviation(
        "first token of an answer",
        "3, A.6; find_fv_heads.py, evaluate_function_vector.py",
        "targets",
        "informative",
        "published",
        'where a tokenizer makes of " 5" a space and a digit (Llama 2: yes, GPT-2 and '
        "Pythia: no), all answers in digits have one first token, whose probability "
        "tells nothing; such tasks are in no mean accuracy",
    ),
    Deviation(
        "seed",
        "all scripts",
        "seed",
        0,
        42,
        "no number: every script draws everything once, with this seed",
    ),
    Deviation(
        "files of the evaluation tasks",
        "Table 3; ablate.py",
        "ablation.tasks",
        _TEXT.ablation.tasks,
        _CODE.ablation.tasks,
        "parts for validation, but for capitalize_second_letter, of which the part for "
        "training is used",
    ),
    Deviation(
        "random draws, accuracy",
        "4; ablate.py",
        "ablation.draws",
        10,
        1,
        "one random set a size: its luck is not told from its size",
    ),
    Deviation(
        "random draws, token loss",
        "4; the token-loss script",
        "token_loss.draws",
        8,
        1,
        "one random set a size: its luck is not told from its size",
    ),
    Deviation(
        "layer-matched random sets",
        "4; ablate.py",
        "ablation.matched_to",
        ("function_vector",),
        (),
        "random heads lie in other layers than the top ones; not in the text either",
    ),
    Deviation(
        "rounding of the exclusion",
        "4; utils/ablate_utils.py",
        "ablation.exclusion_least",
        1,
        0,
        "int(0.02 H) heads are dropped: none of 48 (Pythia-70M)",
    ),
    Deviation(
        "rounding of the exclusion, token loss",
        "4; utils/ablate_utils.py",
        "token_loss.exclusion_least",
        1,
        0,
        "as for accuracy",
    ),
    Deviation(
        "further shares of exclusion",
        "4; ablate.py",
        "ablation.exclusions",
        (0.01, 0.05),
        (),
        "how much depends on the 2 % is not shown; not in the text either",
    ),
    Deviation(
        "sets that are kept alone",
        "4; ablate.py",
        "ablation.keep_only",
        (0.02, 0.05, 0.1),
        (),
        "whether heads suffice is not shown; not in the text either",
    ),
    Deviation(
        "parsing of answers",
        "4; utils/eval_utils.py",
        "ablation.f1_style",
        "fixed",
        "yin2025",
        "an answer that normalises to nothing, such as A, always scores 0",
    ),
    Deviation(
        "tokens of the token-loss difference",
        "4, footnote 3; evaluate_icl_score.py",
        "token_loss.positions",
        (50, 500),
        (51, 501),
        "entry i of the losses is that of token i + 1: one token late, at both ends",
    ),
    Deviation(
        "value of replaced heads, token loss",
        "4; utils/ablate_utils.py",
        "token_loss.values",
        ("mean", "zero", "mean_by_position", "resample", "bos"),
        ("bos",),
        "not a mean: an assignment fails, and what is done instead writes the value at "
        "BOS everywhere; with a true mean an audit finds that Pythia-70M needs its "
        "induction heads",
    ),
    Deviation(
        "documents of the token-loss difference",
        "4, footnote 3; evaluate_icl_score.py",
        "token_loss.packing",
        "documents",
        "stream",
        "rows cut from all documents in one stream: token 50 of a row is anywhere in "
        "a document, which lowers the difference",
    ),
    Deviation(
        "number of rows",
        "4, footnote 3; evaluate_icl_score.py",
        "token_loss.documents",
        10_000,
        1000,
        "a larger error of the mean",
    ),
    Deviation(
        "mean over rows",
        "evaluate_icl_score.py",
        "token_loss.average",
        "mean",
        "published",
        "1001 rows are summed and divided by 1000: 0.1 % too large",
    ),
    Deviation(
        "files of the carried-out tasks",
        "A.6; evaluate_function_vector.py",
        "execution.tasks",
        _TEXT.execution.tasks,
        _CODE.execution.tasks,
        "parts for validation, but for verb_v_adjective_5, a whole file",
    ),
    Deviation(
        "mean outputs of a function vector",
        "A.6; evaluate_function_vector.py",
        "execution.mean",
        "task",
        "tasks",
        "one vector for all tasks, the mean over the scoring tasks: it cannot carry a "
        "task of its own",
    ),
    Deviation(
        "heads of a function vector",
        "A.6; evaluate_function_vector.py",
        "execution.size",
        0.02,
        0.01,
        "half as many heads where the script is run without its launcher, which says "
        "2 % as the text does",
    ),
    Deviation(
        "bias of the output projection",
        "A.6; utils/extract_utils.py",
        "execution.bias",
        "none",
        "each_head",
        "added once a head, where one layer adds it once",
    ),
)
"""Every known deviation of the code from the text, by section.

Not here, as no option of a study holds them: weights in float16 (``--dtype float16``),
random tokens that torch's generator draws, and a checkpoint option of the
token-loss script that changes a file name alone.
"""
