"""What is left of a small model that is never rewarded for copying?

    python examples/train_without_copying.py [FOLDER [STEPS]]

Trains two seeds with and without the loss of targets that complete a pair of tokens
seen before, on data that mix copying with in-context functions, and looks at both at
every evaluation. In minutes on two cores; stopped, it goes on where it was.

Paper: Sahin et al. 2025 (arXiv 2511.05743), In-Context Learning Without Copying.
"""

import sys
from pathlib import Path

from jaxheads.models import toy
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.function_mixture import FunctionMixture
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.trained import open_trained

folder, steps = Path("runs/copying"), 600
if len(sys.argv) > 1:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else steps

source = FunctionMixture()
model = toy.Config(  # smeared keys: induction heads within few steps
    num_layers=2,
    width=64,
    num_heads=4,
    head_dim=16,
    vocab_size=source.vocab_size,
    context_length=source.sequence_length,
    mlp_width=128,
    smeared_keys=True,
)
evidence = make_evidence(EvidenceConfig(), model, source)
figures = {
    "prefix_matching": "top prefix matching",
    "repetition_accuracy": "random repetition",
    "accuracy_answer": "functions carried out",
    "plain_loss": "loss without copies",
}
for objective in ("vanilla", "hapax"):
    config = TrainConfig(objective, steps=steps, seeds=2, eval_every=max(1, steps // 6))
    train(config, model, source, folder / objective, evidence=evidence)
    trained = open_trained(folder / objective)
    print(f"{objective}, means over seeds {trained.seeds}, at steps", end=" ")
    print(*trained.eval_steps)
    for name, title in figures.items():
        values = trained.evaluated(name)  # [E, N, ...], evaluations by seeds
        if name == "prefix_matching":
            values = values.max(axis=(2, 3))  # of [E, N, L, H]
        print(f"{title:>22}", *(f"{value:7.2f}" for value in values.mean(axis=1)))
