"""Published convolutional tokenizers: names and counts at the published sizes, options, errors."""

from __future__ import annotations

from typing import Any

import official_conv as keys
import pytest
import torch

from mmgen.errors import CheckpointError, UserError
from mmgen.published import diffusers_kl, emu3, ibq, kl16, llamagen, open_magvit2
from mmgen.published.systems import Converted, Part, parts
from mmgen.published.taming import discriminator

VQGAN = (1, 1, 2, 2, 4)
PUBLISHED: dict[str, tuple[Any, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "VQ-16": (
        llamagen,
        llamagen.PRESETS["VQ-16"],
        keys.llamagen(128, VQGAN, VQGAN, 2, 256, 16384, 8),
    ),
    "VQ-8": (
        llamagen,
        llamagen.PRESETS["VQ-8"],
        keys.llamagen(128, (1, 2, 2, 4), (1, 2, 2, 4), 2, 256, 16384, 8),
    ),
    "KL-16": (kl16, kl16.PRESETS["KL-16"], keys.kl(128, VQGAN, 2, (4,), 16, 16)),
    "Emu3": (
        emu3,
        emu3.PRESETS["Emu3-VisionTokenizer"],
        keys.emu3(256, (1, 2, 2, 4), 2, (3,), 4, 32768, 2),
    ),
    **{
        name: (ibq, options, keys.ibq(128, VQGAN, 4, (4,), 256, options["n_embed"]))
        for name, options in ibq.PRESETS.items()
    },
    **{
        f"LFQ-{name}": (
            open_magvit2,
            options,
            keys.magvit2(128, options["ddconfig"]["ch_mult"], 4, options["embed_dim"]),
        )
        for name, options in open_magvit2.PRESETS.items()
    },
}
SMALL: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "llamagen": (llamagen, keys.llamagen(32, (2, 1, 2), (1, 2, 3), 2, 8, 30, 4)),
    "kl16": (kl16, keys.kl(32, (2, 1), 1, (0,), 3, 5)),
    "ibq": (ibq, keys.ibq(32, (2, 1, 1), 2, (0, 2), 8, 30)),
    "open-magvit2": (open_magvit2, keys.magvit2(32, (2, 1, 2), 2, 5)),
    "emu3": (emu3, keys.emu3(32, (1, 2), 1, (0,), 4, 30, 1)),
}


def on_meta(module: Any, shapes: dict[str, tuple[int, ...]], options: dict[str, Any]) -> Converted:
    with torch.device("meta"):
        return module.convert_tokenizer(keys.on_meta(shapes), options, "file")  # type: ignore[no-any-return]


def small(system: str, **options: Any) -> Converted:
    module, shapes = SMALL[system]
    return module.convert_tokenizer(keys.drawn(shapes), options, "file")  # type: ignore[no-any-return]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_fit_both_ways(name: str) -> None:
    module, options, shapes = PUBLISHED[name]
    network: Any = on_meta(module, shapes, options).network
    unused = {"quantize.codebook_used"}
    assert len(network.state_dict()) == len(shapes.keys() - unused)
    held = sum(torch.Size(shape).numel() for key, shape in shapes.items() if key not in unused)
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == held


@pytest.mark.parametrize("system", SMALL)
def test_a_file_that_lacks_or_has_a_tensor(system: str) -> None:
    module, shapes = SMALL[system]
    needed = [key for key in shapes if key != "quantize.codebook_used"]
    for key in [*needed[::-25], "encoder.conv_in.weight"]:
        with pytest.raises(CheckpointError, match=r"^file (lacks|holds)") as raised:
            on_meta(module, {k: s for k, s in shapes.items() if k != key}, {})
        assert "\n" not in str(raised.value)
    with pytest.raises(CheckpointError, match="file has the"):
        on_meta(module, shapes | {"encoder.strange.weight": (1,)}, {})


@pytest.mark.parametrize("system", SMALL)
@pytest.mark.parametrize("flat", [(8,), (), (8, 0, 3, 3), (1, 2, 3)])
def test_a_tensor_of_other_axes_is_named(system: str, flat: tuple[int, ...]) -> None:
    module, shapes = SMALL[system]
    telling = ("encoder.conv_in.weight", "decoder.conv_in.weight", "quantize.embedding.weight")
    for key in shapes.keys() & {*telling, *(k for k in shapes if k.endswith("0.conv1.weight"))}:
        with pytest.raises(CheckpointError, match=r"^file (holds|has|lacks)") as raised:
            on_meta(module, {**shapes, key: flat}, {})
        assert "\n" not in str(raised.value)


def test_a_discriminator_of_other_axes_is_named() -> None:
    tensors = {"loss.discriminator.main.0.weight": torch.zeros(8)}
    with pytest.raises(CheckpointError, match=r"'main.0.weight' of shape"):
        discriminator(tensors, "file")


@pytest.mark.parametrize(
    ("name", "part", "number", "tensors"),
    [
        ("VQ-16", "", 71_883_403, 344),
        ("VQ-8", "", 70_109_835, 300),
        ("KL-16", "", 66_456_019, 312),
        ("KL-16", "encoder", 28_265_760, None),
        ("KL-16", "decoder", 38_188_931, None),
        ("IBQ-16384", "encoder", 46_752_256, 543),
        ("IBQ-262144", "decoder", 59_903_875, 543),
        ("IBQ-1024", "to_code", 65_792, 543),
    ],
)
def test_published_counts(name: str, part: str, number: int, tensors: int | None) -> None:
    module, options, shapes = PUBLISHED[name]
    network: Any = on_meta(module, shapes, options).network
    assert count(network.get_submodule(part)) == number
    assert tensors in (None, len(shapes))


def test_open_magvit2_is_as_large_as_published() -> None:
    module, options, shapes = PUBLISHED["LFQ-256-262144"]
    network: Any = on_meta(module, shapes, options).network
    assert round(count(network.encoder) / 1e6, 2) == 49.75
    assert round(count(network.decoder) / 1e6, 2) == 65.38


def test_every_file_is_recognised_by_its_own_part_alone() -> None:
    for name, (module, _, shapes) in PUBLISHED.items():
        recognised = [part for part in parts() if part.recognise(shapes)]
        assert recognised == [*module.PARTS], name


@pytest.mark.parametrize("system", SMALL)
def test_an_import_is_a_working_tokenizer(system: str) -> None:
    network: Any = small(system).network
    stride = getattr(network.config, "frames", network.config).stride
    x = torch.rand(2, 3, 2 * stride, 3 * stride) * 2 - 1
    with torch.no_grad():
        codes = network.encode(x)
        assert network.decode(codes).shape == x.shape
    grid = (1, 2, 3)
    if network.codebook_size is None:
        assert codes.latents.shape == (2, *grid, network.channels)
    else:
        assert codes.indices.shape == (2, *grid)


@pytest.mark.parametrize(
    ("system", "options", "said"),
    [
        ("llamagen", {"codebook_sise": 3}, "no option 'codebook_sise'; did you mean"),
        ("llamagen", {"ch": 64}, "has ch 32, not 64"),
        ("llamagen", {"decoder_ch_mult": (1, 1, 1)}, "has decoder_ch_mult"),
        ("llamagen", {"codebook_l2_norm": "yes"}, "codebook_l2_norm must be of type bool"),
        ("kl16", {"embed_dim": 16}, "has embed_dim 5"),
        ("kl16", {"encoder_attn_resolutions": (16,)}, "attention at the encoder's levels"),
        ("kl16", {"decoder_attn_resolutions": (256,)}, "attention at the decoder's levels"),
        ("kl16", {"num_groups": 7}, "channels, which num_groups 7 does not divide; give num_gro"),
        ("ibq", {"n_embed": 1024}, "has n_embed 30"),
        ("ibq", {"ddconfig": {"ch_mult": (1, 1, 1)}}, "has ch_mult"),
        (
            "ibq",
            {"ddconfig": {"resolution": 8, "attn_resolutions": (8,)}},
            "attention at the level",
        ),
        ("ibq", {"ddconfig": {"attn_resolutions": (8,)}}, "sides at a resolution; say it too"),
        ("ibq", {"ddconfig": {"resolution": 0}}, "resolution must be 1 or more, not 0"),
        ("ibq", {"ddconfig": {"chh": 1}}, "no key 'chh'"),
        ("ibq", {"ddconfig": {"in_channels": 4}}, "has in_channels 3, not 4"),
        ("ibq", {"ddconfig": {"out_ch": 1}}, "has out_ch 3, not 1"),
        ("ibq", {"ddconfig": {"double_z": True}}, "has double_z False, not True"),
        ("open-magvit2", {"ddconfig": {"double_z": True}}, "has double_z False, not True"),
        ("open-magvit2", {"embed_dim": 18}, "has embed_dim 5"),
        ("emu3", {"temporal_downsample_factor": 4}, "has temporal_downsample_factor 2"),
        ("emu3", {"attn_resolutions": (1,)}, "has attn_resolutions"),
    ],
    ids=str,
)
def test_options_that_cannot_be(system: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        small(system, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("llamagen", {"encoder_ch_mult": (2, 1, 2), "decoder_ch_mult": (1, 2, 3), "z_channels": 8}),
        ("kl16", {"ch_mult": (2, 1), "resolution": 16, "encoder_attn_resolutions": (16,)}),
        ("ibq", {"ddconfig": {"resolution": 32, "attn_resolutions": (8, 32), "dropout": 0.0}}),
        ("ibq", {"ddconfig": {"in_channels": 3, "out_ch": 3, "double_z": False}}),
        ("open-magvit2", {"n_embed": 32, "factorized_bits": [2, 3]}),
        ("emu3", {"ch_mult": (1, 2), "model_type": "Emu3VisionVQ"}),
    ],
)
def test_options_that_agree(system: str, options: dict[str, Any]) -> None:
    assert small(system, **options).component == "vision"


def test_options_reach_the_network() -> None:
    quantizer = small("llamagen", codebook_l2_norm=False, entropy_loss_ratio=0.2).network.config
    assert not quantizer.quantizer.normalize and quantizer.quantizer.entropy_weight == 0.2
    assert small("kl16").network.config.quantizer.scale == 0.2325
    assert small("kl16", num_groups=16, latent_scale=2.0).network.config.norm_groups == 16
    assert small("ibq", use_entropy_loss=False).network.config.quantizer.entropy_weight == 0
    assert small("ibq", beta=0.5).network.config.quantizer.beta == 0.5
    assert (
        small("open-magvit2", batch_maximization_weight=2).network.config.quantizer.batch_weight
        == 2
    )


def test_the_resolution_is_that_of_the_pipeline() -> None:
    for system in ("ibq", "open-magvit2"):
        assert small(system).image_size == 256
        assert small(system, ddconfig={"resolution": 128}).image_size == 128


def test_averages_are_taken_if_there_are_any() -> None:
    module, shapes = SMALL["ibq"]
    live = keys.drawn(shapes)
    averaged = {f"model_ema.{key.replace('.', '')}": t + 1 for key, t in live.items()}
    both = {**live, **averaged, "model_ema.decay": torch.tensor(0.999)}
    ema, raw = (module.convert_tokenizer(both, {"use_ema": use}, "file") for use in (True, False))
    assert ema.notes == ("EMA weights",) and raw.notes == ()
    name = "encoder.conv_in.weight"
    assert torch.equal(ema.network.state_dict()[name], live[name] + 1)
    assert torch.equal(raw.network.state_dict()[name], live[name])


def test_training_leftovers_are_left_out() -> None:
    module, shapes = SMALL["ibq"]
    extra = {"loss.perceptual_loss.net.slice1.0.weight": torch.zeros(2), "loss.x": torch.zeros(1)}
    module.convert_tokenizer({**keys.drawn(shapes), **extra}, {}, "file")


def test_lists_of_parts() -> None:
    modules = (llamagen, kl16, diffusers_kl, ibq, open_magvit2, emu3)
    own: list[Part] = [part for module in modules for part in module.PARTS]
    assert {part.component for part in own} == {"vision"}
    assert all(part.licence and part.source for part in own)
