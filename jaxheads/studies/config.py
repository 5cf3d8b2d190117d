"""Everything that decides a study's numbers; light to import, for the command line."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxheads.errors import UserError, check_counts
from jaxheads.icl.task_names import TemplateName
from jaxheads.scores.registry import USUAL_SCORES
from jaxheads.studies import registry


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all studies of a model share: how their inputs are made."""

    shots: int = 10
    """Demonstrations a prompt."""
    seed: int = 0
    """Of every random choice."""
    drawing: Literal["jaxheads", "published"] = "jaxheads"
    """How items are split and drawn for scores and few-shot accuracy; published: as the
    reference study's code does, item for item."""
    targets: Literal["informative", "published"] = "informative"
    """What counts as an answer's first token: the first after those that all answers of
    its task begin with, which go to the prompt; published: the first of the answer,
    though in some tokenizers all answers begin with it (what the reference studies'
    code does). Tasks whose first token is always the same are in no mean then."""
    template: TemplateName = "qa"
    """How prompts are written; qa is the papers' (Q: x, A: y)."""
    no_label_overlap: bool = False
    """When accuracy is measured, leave out demonstrations whose label is the query's
    answer; prompts that heads are scored by stay."""
    tasks: Path | None = None
    """Folder with the reference studies' JSON task files; default: built-in tasks."""
    text: Path | None = None
    """Documents: .txt, a folder of them, .jsonl or .parquet; default: Python's own
    manual, pydoc_data.topics."""
    bos: bool | None = None
    """Put the token that begins a sequence first; default: as the model's tokenizer."""


_SHARED = tuple(field.name for field in dataclasses.fields(Shared))


@dataclasses.dataclass(frozen=True, init=False)
class StudyConfig(Shared):
    """Everything that decides a run's numbers, but the model.

    The config of each study of a model is an attribute under the study's name, given by
    it or left as the study has it::

        config = StudyConfig(ablation=AblationConfig(draws=3), shots=5)
        config.ablation.draws

    Attributes:
        protocol: name of the protocol that the options began from; the options decide.
        studies: configs by the names of studies.
    """

    protocol: str | None
    studies: Mapping[str, Any]

    def __init__(
        self,
        *,
        protocol: str | None = None,
        studies: Mapping[str, Any] | None = None,
        **given: Any,
    ):
        """Check what is given, whatever the model.

        Args:
            protocol: see the attributes.
            studies: configs by the names of studies; one that is given by name
                replaces that of ``dataclasses.replace``.
            **given: what all share, and configs of studies.

        Raises:
            TypeError: an option that there is not, or of another kind.
            UserError: an option that makes no sense.
        """
        shared = {name: given.pop(name) for name in _SHARED if name in given}
        super().__init__(**shared)
        known, chosen = registry.of_models(), {**(studies or {}), **given}
        if unknown := set(chosen) - set(known):
            raise TypeError(
                f"StudyConfig takes {', '.join((*_SHARED, 'protocol', *known))}, not "
                f"{min(unknown)!r}"
            )
        for name, config in chosen.items():
            if not isinstance(config, known[name]):
                raise TypeError(
                    f"{name} must be of {known[name].__name__}, but is "
                    f"{type(config).__name__}"
                )
        configs = {name: chosen.get(name, kind()) for name, kind in known.items()}
        object.__setattr__(self, "protocol", protocol)
        object.__setattr__(self, "studies", configs)
        self._check()

    def __getattr__(self, name: str) -> Any:
        """The config of a study."""
        if name in (studies := self.__dict__.get("studies", {})):
            return studies[name]
        raise AttributeError(f"StudyConfig has no {name!r}")

    def _check(self) -> None:
        """Raise UserError unless the config makes sense."""
        if self.drawing == "published" and self.no_label_overlap:
            raise UserError(
                "--no-label-overlap leaves out demonstrations, which --drawing "
                "published draws as they come: give one of the two"
            )
        check_counts(("--shots", self.shots, 0))
        check_counts(("--seed", self.seed, 0), most=math.inf)
        for config in self.studies.values():
            config.check(self)

    @property
    def score_names(self) -> tuple[str, ...]:
        """All scores that are computed, the usual ones first."""
        return (*USUAL_SCORES, *self.scores.names)

    def options(self) -> dict[str, Any]:
        """Everything by name: the studies' configs, then what all share."""
        shared = {name: getattr(self, name) for name in _SHARED}
        return {**self.studies, **shared, "protocol": self.protocol}

    def to_dict(self) -> dict[str, Any]:
        """The options, nested, ready for JSON."""
        from jaxheads.runs.finite import plain  # NumPy, which no help needs

        return plain(self.options())
