"""SEED's official files: every key at the published sizes, files in parts, and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmgen.components import load_component
from mmgen.config import from_dict
from mmgen.errors import UserError
from mmgen.published import seed_unclip
from mmgen.published.importing import import_files
from mmgen.published.keymap import load, meta, rename
from mmgen.published.seed import PRESETS, SeedOptions, configuration
from mmgen.published.seed_keys import Target, rules
from mmgen.tokenizers_vis.seed import MLPHeadConfig, SeedTokenizer

Shapes = dict[str, tuple[int, ...]]
TARGETS: dict[str, Target] = {"v1": "text", "v2": "image"}


def linear(key: str, out: int, inner: int, bias: bool = True) -> Shapes:
    return {f"{key}.weight": (out, inner)} | ({f"{key}.bias": (out,)} if bias else {})


def norm(key: str, width: int) -> Shapes:
    return {f"{key}.weight": (width,), f"{key}.bias": (width,)}


def qformer(name: str, depth: int, width: int, hidden: int, memory: int) -> Shapes:
    found = norm(f"{name}.bert.embeddings.LayerNorm", width)
    found[f"{name}.bert.embeddings.position_ids"] = (1, 512)
    for i in range(depth):
        layer = f"{name}.bert.encoder.layer.{i}"
        for kind, inner in (("attention", width), ("crossattention", memory)):
            if kind == "crossattention" and i % 2:
                continue
            found |= linear(f"{layer}.{kind}.self.query", width, width)
            found |= linear(f"{layer}.{kind}.self.key", width, inner)
            found |= linear(f"{layer}.{kind}.self.value", width, inner)
            found |= linear(f"{layer}.{kind}.output.dense", width, width)
            found |= norm(f"{layer}.{kind}.output.LayerNorm", width)
        found |= linear(f"{layer}.intermediate_query.dense", hidden, width)
        found |= linear(f"{layer}.output_query.dense", width, hidden)
        found |= norm(f"{layer}.output_query.LayerNorm", width)
    return found


def blocks(name: str, depth: int, width: int, hidden: int, tower: bool = False) -> Shapes:
    found: Shapes = {}
    for i in range(depth):
        found |= norm(f"{name}.{i}.norm1", width) | norm(f"{name}.{i}.norm2", width)
        found |= linear(f"{name}.{i}.attn.qkv", 3 * width, width, bias=not tower)
        if tower:
            found |= {f"{name}.{i}.attn.{q}_bias": (width,) for q in "qv"}
        found |= linear(f"{name}.{i}.attn.proj", width, width)
        found |= linear(f"{name}.{i}.mlp.fc1", hidden, width)
        found |= linear(f"{name}.{i}.mlp.fc2", width, hidden)
    return found


def tower_keys(vit: dict[str, Any], depth: int | None = None) -> Shapes:
    width, patch = vit["embed_dim"], vit["patch_size"]
    found: Shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (vit["img_size"] // patch) ** 2, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    hidden = int(width * vit["mlp_ratio"])
    return found | blocks("blocks", depth or vit["depth"], width, hidden, tower=True)


def qformer_keys(o: dict[str, Any]) -> Shapes:
    width, tokens, vision = o["hidden_size"], o["num_query_token"], o["vision_width"]
    found = {"query_tokens": (1, tokens, width)} | norm("ln_vision", vision)
    return found | qformer("Qformer", o["qformer_layers"], width, o["intermediate_size"], vision)


def code_keys(o: dict[str, Any], target: Target) -> Shapes:
    width, tokens, code = o["hidden_size"], o["num_query_token"], o["codebook_embed_dim"]
    found: Shapes = {"quantize.embedding.weight": (o["n_embed"], code)}
    found |= linear("encode_task_layer.0", width, width) | linear(
        "encode_task_layer.2", code, width
    )
    found |= linear("decode_task_layer.0", code, code) | linear("decode_task_layer.2", width, code)
    for end in ("", f"_{target}"):
        found[f"pos_embed{end}"] = (1, tokens, width)
        found |= blocks(f"blocks{end}", o["decode_depth"], width, 4 * width)
    reads, out = width, o[f"{target}_features_dim"]
    if target == "text" or o["use_qformer_image"]:
        found["reverse_tokens"] = (1, o["num_reverse_token"], width)
        found |= qformer(
            "Reverse_Qformer", o["reverse_qformer_layers"], width, o["intermediate_size"], width
        )
    else:
        found |= {"image_down.0.weight": (256, width), "image_down.2.weight": (128, 256)}
        found |= {"image_down.4.weight": (32, 128)}
        reads = tokens * 32
    return found | linear(f"distill_{target}_proj", out, reads)


def official_keys(version: str, options: dict[str, Any]) -> Shapes:
    tower = {f"visual_encoder.{k}": v for k, v in tower_keys(options["vit"]).items()}
    return tower | qformer_keys(options) | code_keys(options, TARGETS[version])


@pytest.mark.parametrize(("version", "millions"), [("v1", 196.6), ("v2", 164.1)])
def test_every_published_key_has_its_place(version: str, millions: float) -> None:
    options, target = PRESETS[version], TARGETS[version]
    keys = official_keys(version, options)
    config = configuration(from_dict(SeedOptions, options), target, reconstructs=True)
    network = meta(lambda: SeedTokenizer(config))
    tensors = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
    load(network, rename(tensors, rules(target, version == "v1", 39), version), version)
    own = {name: p.numel() for name, p in network.named_parameters()}
    tower = sum(n for name, n in own.items() if name.startswith("vision."))
    assert round(tower / 1e6) == 986  # as the specification says
    assert round((sum(own.values()) - tower) / 1e6, 1) == millions


# -- small files ---------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "num_query_token": 32,
    "vision_width": 16,
    "hidden_size": 24,
    "qformer_layers": 3,
    "reverse_qformer_layers": 2,
    "num_reverse_token": 5,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "codebook_embed_dim": 4,
    "n_embed": 30,
    "decode_depth": 1,
    "use_qformer_image": False,
    "image_features_dim": 10,
    "text_features_dim": 10,
    "vit": {
        "img_size": 28,
        "patch_size": 14,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 4,
        "mlp_ratio": 4.3637,
    },
}


def tensors_of(shapes: Shapes) -> dict[str, Tensor]:
    return {
        key: torch.randn(shape) if "position_ids" not in key else torch.arange(shape[1])[None]
        for key, shape in shapes.items()
    }


def saved(path: Path, tensors: dict[str, Tensor], wrapper: str = "") -> Path:
    torch.save({wrapper: tensors} if wrapper else tensors, path)
    return path


def v1_files(folder: Path) -> list[Path]:
    vit = SMALL["vit"]
    return [
        saved(folder / "seed_tokenizer.pth", tensors_of(code_keys(SMALL, "text")), "model"),
        saved(folder / "causal_qformer.pth", tensors_of(qformer_keys(SMALL)), "model"),
        saved(folder / "eva_vit_g.pth", tensors_of(tower_keys(vit))),
    ]


def test_v1_is_joined_from_its_files(tmp_path: Path) -> None:
    files = v1_files(tmp_path)
    lines = import_files("seed", files, SMALL, tmp_path / "out")
    assert "tokenizer v1" in lines[0]
    network = load_component(tmp_path / "out" / "vision")
    for file, name, key in (
        (0, "decoder.position", "pos_embed_text"),
        (1, "queries", "query_tokens"),
        (2, "vision.pos_embed", "pos_embed"),  # not the tokenizer's tensor of that name
    ):
        held = torch.load(files[file], weights_only=True)
        assert torch.equal(network.get_parameter(name), held.get("model", held)[key])
    codes = network.encode(torch.zeros(1, 3, 28, 28))
    assert network.to_embedding(codes).shape == (1, 5, 10)
    info = json.loads((tmp_path / "out" / "pipeline.json").read_text())
    assert info["image_size"] == 28
    assert info["sources"][0]["licence"] == "Apache-2.0"


def test_a_share_of_v1_is_not_enough(tmp_path: Path) -> None:
    for file in v1_files(tmp_path):
        with pytest.raises(UserError, match=rf"{file.name} is only a share of"):
            import_files("seed", [file], {}, tmp_path / "out")


def test_v2_with_the_tower_of_forty_blocks(tmp_path: Path) -> None:
    vit = {**SMALL["vit"], "depth": 39}
    tower = tensors_of(tower_keys(vit, depth=40))
    tower |= {"norm.weight": torch.ones(16), "norm.bias": torch.ones(16)}
    tower |= {"head.weight": torch.ones(9, 16), "head.bias": torch.ones(9)}
    half = {key: tensor.half() for key, tensor in tower.items()}
    main = tensors_of(qformer_keys(SMALL) | code_keys(SMALL, "image"))
    files = [saved(tmp_path / "seed_quantizer.pt", main), saved(tmp_path / "eva_vit_g.pth", half)]
    options = {"num_attention_heads": 3, "vit": {"num_heads": 4}}
    import_files("seed", files, options, tmp_path / "out")
    network = load_component(tmp_path / "out" / "vision")
    assert network.config.vision.depth == 39
    assert network.vision(torch.zeros(1, 3, 28, 28)).dtype == torch.float32


def test_what_inference_does_not_need_is_left_out(tmp_path: Path) -> None:
    main = tensors_of(qformer_keys(SMALL) | code_keys(SMALL, "image"))
    for key in [
        key for key in main if key.startswith(("blocks.", "pos_embed.")) or key == "pos_embed"
    ]:
        del main[key]
    reverse = tensors_of(code_keys({**SMALL, "use_qformer_image": True}, "image"))
    main |= {k: t for k, t in reverse.items() if k.startswith(("Reverse_", "reverse_"))}
    main |= {"Qformer.bert.embeddings.word_embeddings.weight": torch.ones(9, 24)}
    main |= {"Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(20, 24)}
    file = saved(tmp_path / "seed_quantizer.pt", main)
    lines = import_files("seed", [file], {"num_attention_heads": 3}, tmp_path / "out")
    assert "left out" in lines[0] and "no image tower" in lines[0]
    network = load_component(tmp_path / "out" / "vision")
    assert isinstance(network.config.head, MLPHeadConfig)  # files with both heads use the MLP
    assert network.reconstructor is None


@pytest.mark.parametrize(
    ("gone", "options", "message"),
    [
        ("encode_task_layer.2.bias", {}, "lacks"),
        ("blocks_image.0.norm1.bias", {}, "lacks"),
        ("ln_vision.bias", {}, "lacks"),
        ("", {"hidden_size": 48}, "hidden_size 24, not 48"),
        ("", {"hiden_size": 24}, "did you mean 'hidden_size'"),
        ("", {"num_attention_heads": 5}, "do not divide"),
        ("", {"use_qformer_image": True}, "lacks"),
        ("", {"vit": {"drop": 1}}, "no key 'drop'"),
    ],
)
def test_wrong_files_and_options(
    gone: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    main = tensors_of(qformer_keys(SMALL) | code_keys(SMALL, "image"))
    main.pop(gone, None)
    file = saved(tmp_path / "seed_quantizer.pt", main)
    with pytest.raises(UserError, match=message):
        import_files("seed", [file], {"num_attention_heads": 3, **options}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["query_tokens", "quantize.embedding.weight", "reverse_tokens"])
def test_tensors_of_another_kind(key: str, tmp_path: Path) -> None:
    main = tensors_of(qformer_keys(SMALL) | code_keys(SMALL, "text"))
    main[key] = torch.zeros(3)
    file = saved(tmp_path / "seed_tokenizer.pth", main)
    with pytest.raises(UserError):
        import_files("seed", [file], {"num_attention_heads": 3}, tmp_path / "out")


def test_the_normalizer_of_unclip(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({"mean": torch.randn(1, 12), "std": torch.rand(1, 12) + 1}, file)
    import_files("seed", [file], {}, tmp_path / "out")
    network = load_component(tmp_path / "out" / "image_normalizer")
    assert network(torch.zeros(2, 12), torch.zeros(2, 12)).shape == (2, 24)
    with pytest.raises(UserError, match=r"must lie in 0 \.\. 999, not 1000"):
        network(torch.zeros(2, 12), torch.zeros(2, 12), 1000)
    with pytest.raises(UserError, match="beta_schedule"):
        import_files("seed", [file], {"beta_schedule": "cosine"}, tmp_path / "other")


def test_the_schedule_of_unclip() -> None:
    tensors = {"mean": torch.zeros(1, 12), "std": torch.ones(1, 12)}
    said = {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.5}
    plain = {"prediction_type": "epsilon", "clip_sample": True, "trained_betas": None}
    network = seed_unclip.convert(tensors, {**said, **plain, "num_train_timesteps": 5}, "f").network
    betas = torch.linspace(0.001, 0.5, 5, dtype=torch.float64)
    expected = (1 - betas).cumprod(0)
    torch.testing.assert_close(network.config.kept_signal().double(), expected, atol=1e-6, rtol=0)
    for wrong, message in (
        ({"beta_start": 0.5, "beta_end": 0.1}, "must rise between 0 and 1"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"embedding_dim": 8}, "has embedding_dim 12, not 8"),
        ({"beta_begin": 0.1}, "no option 'beta_begin'"),
    ):
        with pytest.raises(UserError, match=message):
            seed_unclip.convert(tensors, wrong, "f")
    with pytest.raises(UserError, match="not with 2 axes"):
        seed_unclip.convert({"mean": torch.zeros(12), "std": torch.ones(12)}, {}, "f")
