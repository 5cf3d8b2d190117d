"""The models of the papers by name: where they lie on the hub, and their configs.

The configs stand here so that sizes, memory and plans are known before a download.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

BYTES = {"float32": 4, "bfloat16": 2}
"""Bytes of a parameter, by the dtypes that the table of presets shows."""

PYTHIA_STEPS = (0, *(2**i for i in range(10)), *range(1000, 143001, 1000))
"""Training steps of which Pythia has a checkpoint (Biderman et al. 2023, section 2)."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        name: under which ``jaxheads.load`` knows it.
        hub_id: "owner/name".
        model_type: as its config.json has it.
        settings: what of its config.json decides sizes and arithmetic.
        parameters: how many were published, the embedding counted once if it is tied.
        checkpoints: revisions on the hub of the training's checkpoints, in order.
    """

    name: str
    hub_id: str
    model_type: str
    settings: Mapping[str, Any]
    parameters: int
    checkpoints: tuple[str, ...] = ()

    def config(self) -> Any:
        """The family's ``Config``; imports jax."""
        from jaxheads import models

        return models.family(self.model_type).Config.from_hf(self.settings)

    def num_params(self) -> int:
        """How many scalars the model's params hold; imports jax."""
        from jaxheads import models
        from jaxheads.models import parameters

        family = models.family(self.model_type)
        return parameters.num_params(family.abstract(self.config()))


def table() -> "Table":
    """All presets with their dims, sizes and checkpoints, for the terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="L layers, H query heads, G key/value heads, K head width, D residual "
        "width, F MLP width, V vocabulary; GB of params",
        caption_justify="left",
    )
    table.add_column("name", no_wrap=True)
    for name in (*"LHGKDFV", "parameters", *BYTES):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("hub id", "checkpoints"):
        table.add_column(name, overflow="fold")
    for preset in PRESETS.values():
        config, parameters = preset.config(), preset.num_params()
        sizes = (
            config.num_layers,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.width,
            config.mlp_width,
            config.vocab_size,
        )
        table.add_row(
            preset.name,
            *map(str, sizes),
            f"{parameters:,}",
            *(f"{parameters * size / 1e9:.2f}" for size in BYTES.values()),
            preset.hub_id,
            _span(preset.checkpoints),
        )
    return table


def _span(checkpoints: tuple[str, ...]) -> str:
    if not checkpoints:
        return ""
    return f"{len(checkpoints)}: {checkpoints[0]} to {checkpoints[-1]}"


def _pythia(
    size: str,
    layers: int,
    heads: int,
    width: int,
    parameters: int,
    vocabulary: int = 50304,
) -> Preset:
    """Biderman et al. 2023, table 1; the runs on the deduplicated Pile."""
    return Preset(
        f"pythia-{size}-deduped",
        f"EleutherAI/pythia-{size}-deduped",
        "gpt_neox",
        {
            "model_type": "gpt_neox",
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "vocab_size": vocabulary,
            "max_position_embeddings": 2048,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "rotary_pct": 0.25,
            "rotary_emb_base": 10000,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
        },
        parameters,
        tuple(f"step{step}" for step in PYTHIA_STEPS),
    )


def _gpt2(name: str, layers: int, heads: int, width: int, parameters: int) -> Preset:
    """Radford et al. 2019, table 2."""
    return Preset(
        name,
        f"openai-community/{name}",
        "gpt2",
        {
            "model_type": "gpt2",
            "n_layer": layers,
            "n_head": heads,
            "n_embd": width,
            "n_positions": 1024,
            "n_ctx": 1024,
            "vocab_size": 50257,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
        },
        parameters,
    )


def _llama(
    name: str,
    hub_id: str,
    parameters: int,
    *,
    layers: int,
    heads: int,
    kv_heads: int,
    width: int,
    mlp_width: int,
    vocabulary: int,
    context: int,
    model_type: str = "llama",
    **other: Any,
) -> Preset:
    return Preset(
        name,
        hub_id,
        model_type,
        {
            "model_type": model_type,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "hidden_size": width,
            "intermediate_size": mlp_width,
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        }
        | other,
        parameters,
    )


_ALL = (
    _pythia("70m", 6, 8, 512, 70_426_624),
    _pythia("160m", 12, 12, 768, 162_322_944),
    _pythia("410m", 24, 16, 1024, 405_334_016),
    _pythia("1b", 16, 8, 2048, 1_011_781_632),
    _pythia("1.4b", 24, 16, 2048, 1_414_647_808),
    _pythia("2.8b", 32, 32, 2560, 2_775_208_960),
    _pythia("6.9b", 32, 32, 4096, 6_857_302_016, vocabulary=50432),
    _gpt2("gpt2", 12, 12, 768, 124_439_808),
    _gpt2("gpt2-medium", 24, 16, 1024, 354_823_168),
    _gpt2("gpt2-large", 36, 20, 1280, 774_030_080),
    _gpt2("gpt2-xl", 48, 25, 1600, 1_557_611_200),
    _llama(
        "llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        6_738_415_616,
        layers=32,
        heads=32,
        kv_heads=32,
        width=4096,
        mlp_width=11008,
        vocabulary=32000,
        context=4096,
    ),
    _llama(
        "llama-3-8b",
        "meta-llama/Meta-Llama-3-8B",
        8_030_261_248,
        layers=32,
        heads=32,
        kv_heads=8,
        width=4096,
        mlp_width=14336,
        vocabulary=128256,
        context=8192,
        rope_theta=500000.0,
    ),
    _llama(
        "qwen2.5-7b",
        "Qwen/Qwen2.5-7B",
        7_615_616_512,
        model_type="qwen2",
        layers=28,
        heads=28,
        kv_heads=4,
        width=3584,
        mlp_width=18944,
        vocabulary=152064,
        context=131072,
        rope_theta=1000000.0,
        rms_norm_eps=1e-6,
        use_sliding_window=False,
        sliding_window=131072,
        max_window_layers=28,
    ),
    _llama(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        134_515_008,
        layers=30,
        heads=9,
        kv_heads=3,
        width=576,
        mlp_width=1536,
        vocabulary=49152,
        context=8192,
        rope_theta=100000.0,
        tie_word_embeddings=True,
    ),
)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}
"""The 12 models of Yin & Steinhardt 2025, the two of their rebuttal, the default."""
