"""Keys and shapes of NBP's and LARP's official files, written from the specifications.

Independent of the key maps under test: `shared/specs` nbp.md 2.2 and 3.1, nar.md 6.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from official_conv import Shapes, conv, norm


def causal(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return conv(f"{name}.conv", inputs, outputs, kernel, kernel, kernel)


def unit(name: str, inputs: int, outputs: int) -> Shapes:
    """A residual unit."""
    shapes = norm(f"{name}.fn.0", inputs) | norm(f"{name}.fn.3", outputs)
    shapes[f"{name}.fn.1.beta"] = (1, inputs, 1, 1, 1)
    shapes[f"{name}.fn.4.beta"] = (1, outputs, 1, 1, 1)
    shapes |= causal(f"{name}.fn.2", inputs, outputs) | causal(f"{name}.fn.5", outputs, outputs)
    skip = causal(f"{name}.residual_fn.0", inputs, outputs, 1) if inputs != outputs else {}
    return shapes | skip


def nbp_tokenizer(widths: Sequence[int] = (128, 256, 512), units: int = 4, z: int = 6) -> Shapes:
    """A video tokenizer: `encoder_layers` and `decoder_layers`, numbered through."""
    a, b, c = widths
    same = {width: [("unit", width, width)] * units for width in widths}
    up_b, up_c = ("unit", a, b), ("unit", b, c)
    encoder = [("conv", 3, a), *same[a], ("conv", a, a), up_b, *same[b][1:], ("conv", b, b)]
    encoder += [*same[b], ("conv", b, b), up_c, *same[c][1:], *same[c], ("norm", c, c)]
    decoder = [("conv", z, c), *same[c], *same[c], ("conv", c, 8 * c), ("none", 0, 0)]
    decoder += [("unit", c, b), *same[b][1:], ("conv", b, 8 * b), ("none", 0, 0)]
    decoder += [*same[b], ("conv", b, 4 * b), ("none", 0, 0), ("unit", b, a), *same[a][1:]]
    decoder += [("norm", a, a), ("swish", a, a), ("conv", a, 3)]
    shapes = _layers("encoder_layers", [*encoder, ("swish", c, c)])
    shapes |= conv(f"encoder_layers.{len(encoder) + 1}", c, z, 1, 1, 1)
    return shapes | _layers("decoder_layers", decoder)


def _layers(side: str, layers: Sequence[tuple[str, int, int]]) -> Shapes:
    shapes: Shapes = {}
    for i, (kind, inputs, outputs) in enumerate(layers):
        name = f"{side}.{i}"
        match kind:
            case "conv":
                shapes |= causal(name, inputs, outputs)
            case "unit":
                shapes |= unit(name, inputs, outputs)
            case "norm":
                shapes |= norm(name, inputs)
            case "swish":
                shapes[f"{name}.beta"] = (1, inputs, 1, 1, 1)
    return shapes


def nbp_transformer(
    layers: int, width: int, vocabulary: int, words: int, positions: int = 5120
) -> Shapes:
    """A transformer, with its prefix."""
    shapes: Shapes = {
        "pos_emb": (1, positions, width),
        "uncond_embedding": (words, width),
        "tok_emb.weight": (vocabulary, width),
        "head.weight": (vocabulary, width),
    }
    shapes |= norm("ln_f", width)
    for i in range(layers):
        block = f"blocks.{i}"
        shapes |= norm(f"{block}.ln1", width) | norm(f"{block}.ln2", width)
        for name in ("key", "query", "value", "proj"):
            shapes |= conv(f"{block}.attn.{name}", width, width)
        shapes |= conv(f"{block}.mlp.0", width, 4 * width) | conv(
            f"{block}.mlp.2", 4 * width, width
        )
    return {f"transformer.{key}": shape for key, shape in shapes.items()}


def larp(width: int = 768, depth: int = 12, tokens: int = 1024, codes: int = 8192) -> Shapes:
    """LARP-L-long, with a piece of its prior."""
    patches, pixels, code = 4 * 16 * 16, 4 * 8 * 8 * 3, 16
    shapes: Shapes = {
        "encoder_patch_pe": (1, patches, width),
        "encoder_latent_query_embed": (tokens, width),
        "decoder_latent_pe": (1, tokens, width),
        "decoder_patch_query_embed": (1, patches, width),
        "decoder_patch_query_token_type_embed": (1, 1, width),
        "bottleneck.regularizer.embedding.weight": (codes, code),
        "prior_model.head.weight": (code, 384),
    }
    shapes |= conv("x_embedder.proj", 3, width, 4, 8, 8)
    shapes |= conv("bottleneck.in_linear", width, code) | conv("bottleneck.out_linear", code, width)
    shapes |= norm("final_layer.norm_final", width) | conv("final_layer.linear", width, pixels)
    for side in ("encoder", "decoder"):
        for i in range(depth):
            block = f"{side}.blocks.{i}"
            shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            shapes |= conv(f"{block}.attn.qkv", width, 3 * width, bias=False)
            shapes |= conv(f"{block}.attn.proj", width, width)
            shapes |= conv(f"{block}.mlp.fc1", width, 4 * width)
            shapes |= conv(f"{block}.mlp.fc2", 4 * width, width)
    return shapes
