"""Official options of NBP's transformers: what a file tells of itself, and the published sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, Literal

from mmgen.errors import ConfigError
from mmgen.published.options import refuse_contradictions
from mmgen.published.ucf101 import WORDS

Shapes = Mapping[str, tuple[int, ...]]

GRID = (5, 16, 16)  # 17 frames of 128 x 128, which all published models draw
CODES = 64000
HEADS = {(24, 1536): 16, (24, 2048): 32, (32, 3072): 32}  # by (layers, width)
TOLD = ("block_size", "cond_token_num", "n_embd", "n_layer")  # by the tensors
SIZES = (
    *("block_size", "first_stage_vocab_size", "n_embd", "n_head", "n_layer"),
    *("text_vocab_size", "token_number_per_step"),
)
ASSUMED = ("n_head", "token_number_per_step", "first_stage_vocab_size")
TRAINING = ("semi_ar", "transformer_dropout", "p_drop_cond", "pkeep")


@dataclass(frozen=True)
class TransformerOptions:
    """Official options; None where the tensors or the published sizes tell.

    `latent_grid` (t, h, w) is ours: no official file says what grid it was trained on.
    """

    unconditional: bool | None = None
    hybrid: bool | None = None
    starts_with_bov: bool | None = None
    bov_token: Literal[0] = 0
    cond_stage_key: Literal["text", "label"] | None = None
    class_cond_dim: int | None = None
    text_vocab_size: int = WORDS
    text_pad_id: int = 2
    cond_token_num: int | None = None
    first_stage_vocab_size: int = CODES
    token_number_per_step: int | None = None
    block_size: int | None = None
    n_layer: int | None = None
    n_head: int | None = None
    n_embd: int | None = None
    latent_grid: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that nothing can have."""
        sizes = {name: (getattr(self, name),) for name in SIZES}
        for name, values in {**sizes, "latent_grid": self.latent_grid or ()}.items():
            if any(value is not None and value < 1 for value in values):
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}.")


def _preset(layers: int, heads: int, width: int, ucf: bool) -> dict[str, Any]:
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": width, "block_size": 5120}
    start = {"unconditional": not ucf, "hybrid": ucf, "starts_with_bov": ucf}
    condition = {"cond_stage_key": "text", "cond_token_num": 8} if ucf else {"cond_token_num": 0}
    return {**sizes, **start, **condition, "token_number_per_step": 16}


PRESETS: dict[str, dict[str, Any]] = {
    f"NBP-{data}-{name}": _preset(*sizes, ucf=data == "ucf")
    for data in ("ucf", "k600")
    for name, sizes in {
        "base": (24, 16, 1536),
        "xl": (24, 32, 2048),
        "3b": (32, 32, 3072),
    }.items()
}


def complete(options: TransformerOptions, shapes: Shapes, where: str) -> TransformerOptions:
    """Fill in what the shapes tell.

    Raises:
        UserError: something is known to nobody, an option contradicts the shapes, or these options
            never ran.
    """
    vocabulary, width = shapes.get("tok_emb.weight", (0, 0))
    rows = shapes.get("uncond_embedding", (0,))[0]
    layers = sum(key.startswith("blocks.") and key.endswith(".ln1.weight") for key in shapes)
    told: dict[str, Any] = {
        "block_size": shapes.get("pos_emb", (1, 1))[1],
        "cond_token_num": rows,
        "n_embd": width,
        "n_layer": layers,
    }
    refuse_contradictions(options, told, where)
    plain = rows == 0 if options.unconditional is None else options.unconditional
    key = options.cond_stage_key or ("label" if rows == 1 else "text")
    hybrid = not plain if options.hybrid is None else options.hybrid
    if hybrid is plain and (plain or options.starts_with_bov):
        raise ConfigError(
            f"{where} cannot be hybrid={hybrid}, unconditional={plain}, starts_with_bov="
            f"{options.starts_with_bov}: no such model runs; see hyper_parameters of the file."
        )
    if not plain and key == "label" and rows != 1:
        raise ConfigError(
            f"{where} has {rows} rows of a condition, and a class label (cond_stage_key) is one; "
            "leave cond_stage_key out."
        )
    words = 0 if plain else _words(options, key, vocabulary)
    block = options.token_number_per_step
    if block is None and hybrid:
        block = max(0, vocabulary - options.first_stage_vocab_size - words)
    heads = options.n_head or HEADS.get((layers, width))
    if heads is None or (block is None and options.first_stage_vocab_size != CODES):
        name = "n_head" if heads is None else "token_number_per_step"
        raise ConfigError(f"No tensor of {where} tells {name}; say {name}=... .")
    block = 16 if block is None else block
    specials = 0 if plain else max(1, block) if hybrid else 1
    codes = options.first_stage_vocab_size
    if specials + words + codes != vocabulary:
        raise ConfigError(
            f"{where} has {vocabulary} ids, and {specials} special ones, {words} of the condition "
            f"and first_stage_vocab_size={codes} do not make them up; say other sizes."
        )
    positions = rows + (0 if hybrid else -block)  # that are fed beside the tokens of the grid
    _refuse_grid(options.latent_grid, block, told["block_size"] - positions, where)
    return replace(
        options,
        unconditional=plain,
        hybrid=hybrid,
        starts_with_bov=hybrid,
        cond_stage_key=key,
        class_cond_dim=words,
        token_number_per_step=block,
        n_head=heads,
        **told,
    )


def grid_notes(options: TransformerOptions) -> tuple[str, ...]:
    """What to say of a grid that nobody told."""
    if options.latent_grid:
        return ()
    return (f"latent_grid {'x'.join(map(str, GRID))} assumed; say latent_grid= if it is another",)


def _refuse_grid(grid: tuple[int, int, int] | None, block: int, longest: int, where: str) -> None:
    """Refuse a grid that is not made of blocks, or has more tokens than there are positions."""
    tokens = prod(grid or ())
    if grid and tokens % block:
        raise ConfigError(
            f"latent_grid {grid} has {tokens} tokens, which is no multiple of "
            f"token_number_per_step={block}; say another one."
        )
    if grid and tokens > longest:
        raise ConfigError(
            f"latent_grid {grid} has {tokens} tokens, and {where} has positions (block_size) for "
            f"{longest}; say a smaller one."
        )


def recorded(extras: Mapping[str, Any]) -> Mapping[str, Any]:
    """Official options in Lightning's hyper-parameters, with or without their namespace `args`.

    What the tensors tell is left to them.
    """
    found = extras.get("hyper_parameters") or {}
    inner = found.get("args")
    known = [field.name for field in fields(TransformerOptions) if field.name not in TOLD]
    merged = {**(inner if isinstance(inner, Mapping) else {}), **found}
    return {name: merged[name] for name in known if merged.get(name) is not None}


def _words(options: TransformerOptions, key: str, vocabulary: int) -> int:
    if key == "text":
        return options.text_vocab_size
    specials = 1 if options.hybrid is False else options.token_number_per_step
    if options.class_cond_dim is None and specials is None:
        raise ConfigError("No tensor tells the number of classes; say class_cond_dim=... .")
    return options.class_cond_dim or vocabulary - options.first_stage_vocab_size - (specials or 0)
