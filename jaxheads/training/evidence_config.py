"""What is measured during training; light to import, for the command line."""

import dataclasses
import math

from jaxheads.errors import UserError, check_counts


@dataclasses.dataclass(frozen=True)
class EvidenceConfig:
    """What is measured at every evaluation of a training run."""

    evidence: bool = True
    """Measure heads and in-context learning, besides the held-out loss."""
    evidence_samples: int = 128
    """Held-out windows of losses and accuracies."""
    evidence_positions: tuple[int, int] | None = None
    """Targets of a window, from 1 on, whose losses say how much is learned in context;
    default: 50 and 500, or a tenth and 95 % of windows of fewer than 500."""
    probe_sequences: int = 10
    """Random sequences of the head scores."""
    probe_period: int = 25
    """Random tokens before they repeat; fewer where windows or vocabulary are small."""
    probe_repeats: int = 4
    """How often they stand in a sequence of the head scores."""
    repetitions: int = 100
    """Sequences of the repetition accuracy."""
    evidence_seed: int = 0
    """Of the random sequences and the prompts."""
    evidence_tasks: tuple[str, ...] = ()
    """Of a run on text: few-shot tasks, by the names that `jaxheads tasks` lists; all:
    every one for which windows have room."""
    evidence_shots: int = 10
    """Demonstrations of their prompts; fewer of a task that has no room for them."""
    evidence_prompts: int = 16
    """Prompts of each task."""

    def check(self) -> None:
        """Raise UserError unless the choices make sense, whatever model and data."""
        check_counts(
            ("--evidence-samples", self.evidence_samples, 1),
            ("--probe-sequences", self.probe_sequences, 1),
            ("--probe-period", self.probe_period, 2),
            ("--probe-repeats", self.probe_repeats, 2),
            ("--repetitions", self.repetitions, 1),
            ("--evidence-shots", self.evidence_shots, 1),
            ("--evidence-prompts", self.evidence_prompts, 1),
        )
        check_counts(("--evidence-seed", self.evidence_seed, 0), most=math.inf)
        if self.evidence_tasks and not self.evidence:
            raise UserError(
                "--evidence-tasks is measured with the evidence, but that is turned "
                "off: leave one of the two out"
            )
