"""Writes the small .bin files beside it: ``python make_torch_bins.py``, with torch.

The tests that read them know the values by formula, so that they need no torch.
"""

from collections import OrderedDict
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent


def values(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Quarters between -3.75 and 3.75, which every float type holds exactly."""
    count = torch.arange(rows * columns)
    return ((count * 7 % 31 - 15) / 4).to(dtype).reshape(rows, columns)


def of_kind(dtype: torch.dtype) -> "OrderedDict[str, torch.Tensor]":
    """A state dict with a causal mask, as old checkpoints have one."""
    state = OrderedDict(
        {
            "wte.weight": values(5, 3, dtype),
            "h.0.attn.bias": torch.ones(4, 4).tril().bool()[None, None],
            "h.0.ln.weight": values(1, 3, dtype)[0],
        }
    )
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


def odd() -> dict[str, torch.Tensor]:
    """Views, shared storages and sizes at the edge."""
    base = values(6, 4)
    return {
        "base": base,
        "same": base,
        "transposed": base.T,
        "part": base[1:5:2, 1:3],
        "expanded": base[2:3].expand(3, 4),
        "scalar": torch.tensor(-1.25),
        "empty": torch.empty(0, 7),
        "double": values(2, 2, torch.float64),
        "long": torch.tensor([1, -(2**40)]),
        "parameter": torch.nn.Parameter(base[0].clone()),
    }


def main() -> None:
    """Write every file."""
    for name in ["float32", "float16", "bfloat16"]:
        torch.save(of_kind(getattr(torch, name)), HERE / f"{name}.bin")
    torch.save(of_kind(torch.float32), HERE / "protocol4.bin", pickle_protocol=4)
    torch.save(odd(), HERE / "odd.bin")
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save(of_kind(torch.float16), HERE / "legacy_float16.bin", **legacy)
    torch.save(odd(), HERE / "legacy_odd.bin", **legacy)
    torch.save({"state_dict": of_kind(torch.float16), "epoch": 3}, HERE / "wrapped.bin")


if __name__ == "__main__":
    main()
