"""Write tests/golden: what transformers gives for every variant, for tests without it.

Run by ``make goldens``; the files are committed. Made again on the same machine they
are the same; elsewhere float32 rounding may differ in the last digits.
"""

# pyright: reportMissingImports=false

import tempfile
from pathlib import Path

import torch
import transformers
from measure import draw, measure
from reference import random_model, save
from safetensors.numpy import load_file
from variants import VARIANTS

LENGTH = 20
FULL_LENGTHS = (17, 8, 1)
PROMPTS = 50
GOLDEN = Path(__file__).parents[1] / "golden"


def main() -> None:
    """Write one file a variant; files of variants that are no more are removed."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    GOLDEN.mkdir(exist_ok=True)
    for name, variant in VARIANTS.items():
        model = random_model(variant)
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder))
            inputs = draw(model.config, LENGTH, FULL_LENGTHS, PROMPTS)
            case = measure(model, Path(folder), inputs)
            tensors = load_file(Path(folder) / "model.safetensors")
        case.write(GOLDEN / f"{name}.npz", tensors)
        print(f"{name}: {(GOLDEN / f'{name}.npz').stat().st_size / 1000:.0f} kB")
    for path in GOLDEN.glob("*.npz"):
        if path.stem not in VARIANTS:
            path.unlink()


if __name__ == "__main__":
    main()
