"""NBP's and LARP's official files: names and sizes, what a file tells of itself, mistakes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from official_conv import drawn, on_meta
from official_nbp import larp, nbp_tokenizer, nbp_transformer

from mmgen.components import load_component
from mmgen.errors import CheckpointError, ConfigError, UserError
from mmgen.published import larp as larp_files
from mmgen.published import nbp
from mmgen.published import nbp_tokenizer as tokenizer_files
from mmgen.published.importing import import_files
from mmgen.published.larp_options import PRESETS as LARP_PRESETS
from mmgen.published.nbp_options import TransformerOptions
from mmgen.published.systems import Converted, parts
from mmgen.published.ucf101 import class_texts

VOCABULARY = {"ucf": 96016, "k600": 64000}
# Layers, width, and parameters with 5120 positions (specs/nbp.md 3.1).
TOTALS = {
    "ucf-base": (24, 1536, 982_785_024),
    "ucf-xl": (24, 2048, 1_612_369_920),
    "ucf-3b": (32, 3072, 4_230_813_696),
    "k600-base": (24, 1536, 884_431_872),
    "k600-xl": (24, 2048, 1_481_232_384),
    "k600-3b": (32, 3072, 4_034_107_392),
}


def parameters(converted: Converted) -> int:
    return sum(parameter.numel() for parameter in converted.network.parameters())


def published(name: str) -> dict[str, torch.Tensor]:
    layers, width, _ = TOTALS[name]
    data = name.split("-", maxsplit=1)[0]
    words = 8 if data == "ucf" else 0
    return on_meta(nbp_transformer(layers, width, VOCABULARY[data], words))


@pytest.mark.parametrize("name", TOTALS)
def test_every_published_transformer_has_its_names_and_its_size(name: str) -> None:
    tensors = published(name)
    converted = nbp.convert(tensors, {}, name)
    assert parameters(converted) == TOTALS[name][2]
    assert nbp.convert(tensors, nbp.PRESETS[f"NBP-{name}"], name).network.config == (
        converted.network.config
    )
    unit = converted.network.config.units[0]
    assert unit.order == "run:16"
    assert unit.start == ("hybrid" if name.startswith("ucf") else "given")


def test_the_published_tokenizer_has_its_names_and_its_size() -> None:
    shapes = nbp_tokenizer()
    assert len(shapes) == 434
    network = tokenizer_files.convert(on_meta(shapes), {}, "file").network
    assert sum(p.numel() for p in network.parameters()) == 370_372_105
    assert sum(p.numel() for p in network.encoder.parameters()) == 144_886_790
    size = tokenizer_files.PRESETS["NBP-tokenizer"]
    assert tokenizer_files.convert(on_meta(shapes), size, "file").network.config == network.config


def test_larp_has_its_names_and_its_size() -> None:
    converted = larp_files.convert(on_meta(larp()), {}, "file")
    assert parameters(converted) == 172_179_984
    said = larp_files.convert(on_meta(larp()), LARP_PRESETS["LARP-L-long"], "file")
    assert said.network.config == converted.network.config
    assert converted.network.grid_for((16, 128, 128)) == (1, 1, 1024)


@pytest.mark.parametrize(
    ("convert", "tensors"),
    [
        (nbp.convert, nbp_transformer(24, 1536, 64000, 0)),
        (tokenizer_files.convert, nbp_tokenizer()),
        (larp_files.convert, larp()),
    ],
)
def test_a_tensor_too_few_or_too_many_is_named(convert: Any, tensors: Any) -> None:
    whole = on_meta(tensors)
    last = [key for key in whole if "prior" not in key and "pos" not in key][-1]
    with pytest.raises(CheckpointError, match="lacks the tensor"):
        convert({key: t for key, t in whole.items() if key != last}, {}, "file")
    stranger = last.rsplit(".", 1)[0] + ".scale"
    with pytest.raises(CheckpointError, match="has the"):
        convert(whole | {stranger: torch.empty(1, device="meta")}, {}, "file")


@pytest.mark.parametrize("shapes", [larp(), nbp_tokenizer(), nbp_transformer(1, 8, 64000, 0)])
def test_one_part_alone_knows_a_file(shapes: Any) -> None:
    assert len([part for part in parts() if part.recognise(shapes)]) == 1


def lightning(folder: Path, **hyper: Any) -> Path:
    """A tiny published file: a transformer with classes of UCF-101's words, and its tokenizer."""
    torch.manual_seed(0)
    tokenizer = drawn(nbp_tokenizer((4, 4, 8), 1, 3))
    transformer = drawn(nbp_transformer(2, 16, 4 + 32000 + 125, 8, 60))
    nested = {f"first_stage_model.{key}": tensor for key, tensor in tokenizer.items()}
    state = {f"module.{key}": tensor for key, tensor in (transformer | nested).items()}
    known = Namespace(n_head=2, token_number_per_step=4, **hyper)
    path = folder / "ucf.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"args": known}}, path)
    return path


OPTIONS = {
    "transformer": {"first_stage_vocab_size": 125, "latent_grid": [2, 2, 2]},
    "vision": {"fsq_levels": [5, 5, 5], "group_norm_groups": 2, "image_size": 16},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nbp")
    out = place / "pipeline"
    report = import_files("nbp", [lightning(place)], OPTIONS, out)
    assert any("video transformer" in line for line in report)
    return out


def test_one_lightning_file_is_a_pipeline(folder: Path) -> None:
    transformer = load_component(folder / "transformer")
    assert transformer.config.backbone.heads == 2
    assert transformer.config.units[0].order == "run:4"
    assert transformer.config.condition.words_of("ApplyEyeMakeup")[:3] == (1, 3394, 10977)
    assert load_component(folder / "vision").codebook_size == 125


def test_classes_of_ucf101() -> None:
    texts = class_texts(8)
    assert len(texts) == 101
    assert texts["archery"] == (1, 3190, 708, 2, 2, 2, 2, 2)
    assert (next(iter(texts)), next(reversed(texts))) == ("apply eye makeup", "yo yo")
    assert all(len(words) == 8 and max(words) < 32000 for words in texts.values())


def test_options_that_never_ran_are_refused() -> None:
    tensors = published("k600-base")
    with pytest.raises(ConfigError, match="no such model runs"):
        nbp.convert(tensors, {"hybrid": True}, "file")
    with pytest.raises(ConfigError, match="no such model runs"):
        nbp.convert(published("ucf-base"), {"hybrid": False, "starts_with_bov": True}, "file")


def test_what_no_tensor_tells_is_asked_for() -> None:
    tensors = on_meta(nbp_transformer(3, 16, 64000, 0))
    with pytest.raises(ConfigError, match="say n_head="):
        nbp.convert(tensors, {}, "file")
    with pytest.raises(UserError, match="did you mean 'n_head'"):
        nbp.convert(tensors, {"n_heads": 2}, "file")


@pytest.mark.parametrize(
    ("convert", "shapes", "options", "said"),
    [
        (nbp.convert, nbp_transformer(2, 16, 64000, 0), {"n_layer": 7}, "has n_layer 2"),
        (nbp.convert, nbp_transformer(2, 16, 64000, 0), {"n_embd": 32}, "has n_embd 16"),
        (nbp.convert, nbp_transformer(2, 16, 64000, 0), {"block_size": 9}, "has block_size 5120"),
        (nbp.convert, nbp_transformer(2, 16, 96016, 8), {"cond_token_num": 4}, "cond_token_num 8"),
        (tokenizer_files.convert, nbp_tokenizer(), {"codebook_size": 5}, "codebook_size 64000"),
        (tokenizer_files.convert, nbp_tokenizer(), {"channels": [1, 2, 3]}, "has channels"),
        (tokenizer_files.convert, nbp_tokenizer(), {"embed_dim": 5}, "has embed_dim 6"),
        (
            tokenizer_files.convert,
            nbp_tokenizer(),
            {"residual_units_per_stage": 3},
            "has residual_units_per_stage 4",
        ),
    ],
)
def test_options_that_the_tensors_contradict(
    convert: Any, shapes: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        convert(on_meta(shapes), {"n_head": 2, **options} if "n_" in said else options, "file")


@pytest.mark.parametrize(
    "options", [{"latent_grid": [3, 4, 0]}, {"n_head": 0}, {"token_number_per_step": -1}], ids=str
)
def test_sizes_that_nothing_can_have(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must be 1 or more"):
        nbp.convert(published("k600-base"), options, "file")
    with pytest.raises(ConfigError, match="lack a size"):
        nbp.network_config(TransformerOptions())


SMALL = (
    (nbp.convert, nbp_transformer(1, 16, 400, 0, 60), {"n_head": 2, "token_number_per_step": 4}),
    (tokenizer_files.convert, nbp_tokenizer((4, 4, 8), 1, 3), OPTIONS["vision"]),
    (larp_files.convert, larp(16, 1, 12, 32), {"encoder_num_heads": 2, "decoder_num_heads": 2}),
)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("convert", "shapes", "options"), SMALL)
def test_tensors_without_their_axes(convert: Any, shapes: Any, options: Any, rank: int) -> None:
    for key, shape in shapes.items():
        if len(shape) > rank and "prior" not in key and shape[0]:
            flat = on_meta(shapes | {key: shape[:rank]})
            with pytest.raises(UserError) as raised:
                convert(flat, options, "file")
            assert "\n" not in str(raised.value)


def test_larp_tells_its_sizes() -> None:
    tensors = on_meta(larp(16, 2, 12, 32))
    heads = {"encoder_num_heads": 2, "decoder_num_heads": 4}
    config = larp_files.convert(tensors, heads, "file").network.config
    assert (config.encoder.depth, config.decoder.heads, config.tokens) == (2, 4, 12)
    assert (config.quantizer.codebook_size, config.size, config.patch) == (32, 128, (4, 8, 8))
    with pytest.raises(ConfigError, match="tells encoder_num_heads"):
        larp_files.convert(tensors, {}, "file")
    with pytest.raises(ConfigError, match="has decoder_depth 2, not 3"):
        larp_files.convert(tensors, {**heads, "decoder_depth": 3}, "file")
    bottleneck = {"args": {"regularizer": {"args": {"codebook_size": 8192}}}}
    with pytest.raises(ConfigError, match="has codebook_size 32"):
        larp_files.convert(tensors, {**heads, "bottleneck": bottleneck}, "file")


def test_larp_with_its_arguments_beside_the_weights(tmp_path: Path) -> None:
    entropy = {"args": {"regularizer": {"args": {"entropy_loss_weight": 0.1}}}}
    known = {"encoder_num_heads": 2, "decoder_num_heads": 8, "bottleneck": entropy, "seen": 3}
    file = tmp_path / "larp.pth"
    weights = drawn(larp(16, 1, 12, 32))
    torch.save({"model": {"name": "larp_tokenizer", "args": known, "sd": weights}}, file)
    report = import_files("larp", [file], {}, tmp_path / "out")
    assert "entropy loss is left out" in report[0]
    assert load_component(tmp_path / "out" / "vision").config.decoder.heads == 8


def test_labels_count_themselves() -> None:
    tensors = on_meta(nbp_transformer(1, 16, 8 + 7 + 30, 1, 60))
    options = {"n_head": 2, "token_number_per_step": 8, "first_stage_vocab_size": 30}
    condition = nbp.convert(tensors, options, "file").network.config.condition
    assert (condition.words, condition.count, condition.late_word) == (7, 1, None)


@pytest.mark.parametrize(("block", "late"), [(1, 2), (2, 1), (3, 0), (4, None)])
def test_the_mask_meets_another_word_than_the_pad(block: int, late: int | None) -> None:
    tensors = on_meta(nbp_transformer(1, 16, block + 20 + 30, 8, 60))
    options = {"n_head": 2, "text_vocab_size": 20, "first_stage_vocab_size": 30}
    config = nbp.convert(tensors, options, "file").network.config
    assert config.units[0].order == f"run:{block}"
    assert config.condition.late_word == late
    assert config.condition.texts == {}
