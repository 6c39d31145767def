"""The transformer against a slow one in loops, and the laws of its positions, keys and cache."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.models.backbone import (
    Backbone,
    BackboneConfig,
    attend,
    make_norm,
    parameter_count,
)
from mmgen.models.cache import KVCache
from mmgen.models.rope import axis_pairs, rope_table, rotate
from mmgen.models.rows import Rows, concatenate, row_mask

SMALL = {"width": 32, "depth": 2, "heads": 2}
KINDS = [
    {},
    {"kv_heads": 1},
    {"mlp": "geglu", "norm": "layer", "qk_norm": False},
    {"mlp": "gelu", "bias": True, "mlp_width": 40, "norm_eps": 0.1},
    {"heads": 1, "norm": "layer", "bias": True, "norm_eps": 0.5},
]


def backbone(**changes: object) -> Backbone:
    """Random weights everywhere, norms and biases too."""
    torch.manual_seed(0)
    model = Backbone(BackboneConfig(**(SMALL | changes)))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def rope_of(coords: Tensor, head_dim: int = 16) -> tuple[Tensor, Tensor]:
    return rope_table(coords, axis_pairs(head_dim), 100.0)


def spread(rows: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, rows, 3, generator=torch.Generator().manual_seed(3)) * 9


# -- positions ---------------------------------------------------------------------------------


COORDS = st.lists(st.tuples(*[st.integers(-40, 40)] * 3), min_size=2, max_size=5)


@settings(max_examples=40, deadline=None)
@given(COORDS, st.tuples(*[st.integers(-50, 50)] * 3), st.sampled_from([16, 32, 48]))
def test_only_differences_of_coordinates_reach_the_scores(places, shift, head_dim) -> None:
    coords = torch.tensor(places).double()[None]
    q, k = torch.randn(2, 1, 2, len(places), head_dim, dtype=torch.float64)

    def scores(at: Tensor) -> Tensor:
        rope = rope_of(at, head_dim)
        return rotate(q, rope) @ rotate(k, rope).transpose(-1, -2)

    moved = scores(coords + torch.tensor(shift))
    assert torch.allclose(scores(coords), moved, atol=1e-3)
    assert torch.allclose(rotate(q, rope_of(coords, head_dim)).norm(dim=-1), q.norm(dim=-1))


def test_each_axis_alone_changes_the_scores() -> None:
    q, k = torch.randn(2, 1, 1, 2, 16)
    seen = []
    for axis in (None, 0, 1, 2):
        coords = torch.zeros(1, 2, 3)
        if axis is not None:
            coords[0, 1, axis] = 1
        rope = rope_of(coords)
        seen.append((rotate(q, rope) @ rotate(k, rope).transpose(-1, -2))[0, 0, 0, 1])
    assert torch.isclose(seen[0], q[0, 0, 0] @ k[0, 0, 1])  # at the same place nothing turns
    assert min(abs(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 1e-3


def test_rotation_is_that_of_complex_numbers() -> None:
    """RoFormer (arXiv 2104.09864), with pairs (i, i + D/2) and the axes one after the other."""
    coords, pairs, base = spread(4), axis_pairs(32), 100.0
    assert pairs == (4, 6, 6)
    x = torch.randn(2, 3, 4, 32)
    turned = rotate(x, rope_table(coords, pairs, base))
    for b, h, r in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        i = 0
        for axis, count in enumerate(pairs):
            for j in range(count):
                angle = float(coords[b, r, axis]) * base ** (-j / count)
                z = complex(x[b, h, r, i], x[b, h, r, i + 16])
                z *= complex(math.cos(angle), math.sin(angle))
                assert abs(complex(turned[b, h, r, i], turned[b, h, r, i + 16]) - z) < 1e-5
                i += 1
        assert i == 16


def test_tables_are_float32_and_heads_keep_their_type() -> None:
    coords = torch.full((1, 1, 3), 1000.0)
    cos, sin = rope_of(coords.to(torch.bfloat16))
    assert cos.dtype == sin.dtype == torch.float32
    assert (
        rotate(torch.randn(1, 1, 1, 16, dtype=torch.bfloat16), (cos, sin)).dtype == torch.bfloat16
    )


@pytest.mark.parametrize("head_dim", [8, 24, 40])
def test_heads_that_cannot_carry_three_axes(head_dim: int) -> None:
    with pytest.raises(ConfigError, match=f"Heads of {head_dim} channels"):
        axis_pairs(head_dim)


# -- against loops -----------------------------------------------------------------------------


def slow_norm(
    config: BackboneConfig, x: list[float], weight: Tensor, bias: Tensor | None
) -> Tensor:
    v = torch.tensor(x, dtype=torch.float64)
    if bias is not None:
        v = v - v.mean()
    v = v / ((v * v).mean() + config.norm_eps) ** 0.5 * weight.double()
    return v if bias is None else v + bias.double()


def slow_linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = state[f"{name}.weight"].double() @ x
    return y + state[f"{name}.bias"].double() if f"{name}.bias" in state else y


def slow_turn(head: Tensor, place: Tensor) -> Tensor:
    half, i, out = len(head) // 2, 0, head.clone()
    for axis, count in enumerate(axis_pairs(len(head))):
        for j in range(count):
            angle = float(place[axis]) * 100.0 ** (-j / count)
            a, b = float(head[i]), float(head[i + half])
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + half] = b * math.cos(angle) + a * math.sin(angle)
            i += 1
    return out


def slow_backbone(model: Backbone, x: Tensor, coords: Tensor, mask: Tensor) -> Tensor:
    """One sequence (R, W) in float64, row by row and head by head."""
    config, state = model.config, model.state_dict()
    dim, kv = config.head_dim, config.kv_heads or config.heads
    act = {"swiglu": F.silu, "geglu": F.gelu, "gelu": F.gelu}[config.mlp]
    stream = list(x.double())
    for n in range(config.depth):
        at = f"blocks.{n}"

        def norm(name: str, v: Tensor, at: str = at) -> Tensor:
            weight, bias = state[f"{at}.{name}.weight"], state.get(f"{at}.{name}.bias")
            return slow_norm(config, v.tolist(), weight, bias)

        rows = []
        for v in stream:
            parts = slow_linear(state, f"{at}.attention.qkv", norm("attention_norm", v))
            heads = list(parts.split(dim))
            rows.append((heads[: config.heads], heads[config.heads : -kv], heads[-kv:]))
        mixed = []
        for r in range(len(stream)):
            seen = [c for c in range(len(stream)) if mask[r, c]]
            told = []
            for h in range(config.heads):
                group = h // (config.heads // kv)

                def placed(kind: int, row: int, head: int, name: str, at: str = at) -> Tensor:
                    v = rows[row][kind][head]  # noqa: B023
                    if config.qk_norm:
                        weight = state[f"{at}.attention.{name}.weight"]
                        v = slow_norm(config, v.tolist(), weight, None)
                    return slow_turn(v, coords[row])

                q = placed(0, r, h, "q_norm")
                scores = [float(q @ placed(1, c, group, "k_norm")) / dim**0.5 for c in seen]
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                told.append(sum(w * rows[c][2][group] for w, c in zip(weights, seen)))
            mixed.append(stream[r] + slow_linear(state, f"{at}.attention.out", torch.cat(told)))  # type: ignore[arg-type]
        stream = []
        for v in mixed:
            inner = slow_linear(state, f"{at}.mlp.inner", norm("mlp_norm", v))
            if config.mlp == "gelu":
                inner = act(inner)
            else:
                half = len(inner) // 2
                inner = act(inner[:half]) * inner[half:]
            stream.append(v + slow_linear(state, f"{at}.mlp.out", inner))
    return torch.stack(stream)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_forward_equals_loops(changes: dict[str, object]) -> None:
    model = backbone(**changes)
    x, coords = torch.randn(1, 5, 32), spread(5, 1)
    mask = torch.tensor([[r >= c or (r, c) == (1, 3) for c in range(5)] for r in range(5)])
    with torch.no_grad():
        fast = model(x, rope_of(coords, model.config.head_dim), mask[None])
    slow = slow_backbone(model, x[0], coords[0], mask)
    assert (fast[0].double() - slow).abs().max() < 1e-4
    assert slow.std() > 0.5


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (4, 1), (6, 3)])
def test_grouped_keys_are_repeated_keys(heads: int, kv_heads: int) -> None:
    width, dim = heads * 16, 16
    few = backbone(width=width, heads=heads, kv_heads=kv_heads)
    all_of_them = backbone(width=width, heads=heads)
    state = few.state_dict()
    for name, weight in state.items():
        if name.endswith("qkv.weight"):
            q, k, v = weight.split([width, kv_heads * dim, kv_heads * dim])
            each = [
                t.view(kv_heads, dim, width).repeat_interleave(heads // kv_heads, 0) for t in (k, v)
            ]
            state[name] = torch.cat([q, *(t.reshape(width, width) for t in each)])
    all_of_them.load_state_dict(state)
    x, rope, mask = torch.randn(2, 6, width), rope_of(spread(6)), torch.ones(6, 6).tril().bool()
    with torch.no_grad():
        one, two = few(x, rope, mask[None]), all_of_them(x, rope, mask[None])
    assert torch.allclose(one, two, atol=1e-5)
    assert few.new_cache(1, 3).data.shape == (2, 2, 1, kv_heads, 3, dim)


def test_a_row_is_untouched_by_what_it_does_not_see() -> None:
    model, x, rope = backbone(), torch.randn(2, 7, 32), rope_of(spread(7))
    mask = torch.ones(7, 7).tril().bool()[None]
    with torch.no_grad():
        before = model(x, rope, mask)
        for row in range(7):
            changed = x.clone()
            changed[:, row] += 1
            after = model(changed, rope, mask)
            assert torch.equal(after[:, :row], before[:, :row])
            assert ((after - before)[:, row:].abs().amax(-1) > 1e-4).all()


def test_residual_branches_do_not_swell_with_depth() -> None:
    spreads = []
    for depth in (1, 16):
        model = Backbone(BackboneConfig(width=64, depth=depth, heads=4))
        out = model(torch.randn(2, 12, 64), rope_of(spread(12)), None)
        spreads.append(float(out.detach().std()))
    assert 0.9 < spreads[0] < 1.6 and 0.9 < spreads[1] < 1.6


def test_dropout_is_for_training_only() -> None:
    model, x, rope = backbone(dropout=0.5), torch.randn(2, 5, 32), rope_of(spread(5))
    with torch.no_grad():
        assert torch.equal(model(x, rope, None), model(x, rope, None))
        model.train()
        assert not torch.equal(model(x, rope, None), model(x, rope, None))
        assert torch.equal(backbone(dropout=1.0).train()(x, rope, None), x)  # on every branch


# -- configuration -----------------------------------------------------------------------------


def test_sizes() -> None:
    config = BackboneConfig(width=256, heads=8)
    assert (config.head_dim, config.kv_head_count, config.hidden) == (32, 8, 704)
    assert BackboneConfig(mlp_width=100).hidden == 100
    model = Backbone(BackboneConfig(width=64, depth=1, heads=4, kv_heads=2, mlp_width=96))
    sizes = 64 * (4 + 2 * 2) * 16 + 64 * 64 + 64 * 2 * 96 + 96 * 64 + 2 * 64 + 2 * 16
    assert parameter_count(model) == sizes
    model.blocks[0].mlp.requires_grad_(False)
    assert parameter_count(model) == sizes - 3 * 64 * 96


@pytest.mark.parametrize("bad", [{"heads": 7}, {"kv_heads": 3}, {"heads": 3, "width": 64}])
def test_heads_that_do_not_divide_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"backbone\.{next(iter(bad))}"):
        BackboneConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_norms(norm) -> None:  # type: ignore[no-untyped-def]
    layer = make_norm(BackboneConfig(width=32, norm=norm))
    x = 5 * torch.randn(3, 32) + 7
    y = layer(x)
    assert torch.allclose(y.square().mean(-1), torch.ones(3), atol=1e-3)
    assert bool((y.mean(-1).abs() < 1e-3).all()) == (norm == "layer")


# -- cache and masks ---------------------------------------------------------------------------


def rows_of(count: int, block: list[int], lane: list[int], valid: Tensor | None = None) -> Rows:
    return Rows(
        x=torch.randn(2, count, 32),
        coords=spread(count),
        block=torch.tensor(block),
        lane=torch.tensor(lane),
        valid=torch.ones(2, count).bool() if valid is None else valid,
    )


def test_cached_feeding_equals_one_pass_with_queries_and_padding() -> None:
    """Queries (lane 1) are fed with the rows before them and overwritten by the next feed."""
    model = backbone(kv_heads=1)
    valid = torch.ones(2, 4).bool()
    valid[1, 2:] = False
    parts = [
        rows_of(4, [0, 1, 2, 3], [0] * 4, valid),
        rows_of(3, [4, 4, 5], [0, 0, 1]),
        rows_of(4, [5, 5, 6, 6], [0, 0, 1, 1]),
        rows_of(1, [6], [0]),
    ]
    whole = concatenate(parts)
    with torch.no_grad():
        expected = model(whole.x, rope_of(whole.coords), row_mask(whole))
        cache = model.new_cache(2, 12)
        told = []
        for part in parts:
            told.append(model(part.x, rope_of(part.coords), row_mask(part, cache), cache))
            kept = int((part.lane == 0).sum())
            cache.keep(part.block[:kept], part.valid[:, :kept])
    real = whole.valid[..., None]
    assert cache.length == 9 and cache.capacity == 12
    assert cache.block[:9].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6]
    assert ((torch.cat(told, 1) - expected) * real).abs().max() < 1e-5
    assert bool(torch.isfinite(torch.cat(told, 1)).all())


def test_a_full_cache_says_so() -> None:
    model, cache = backbone(), backbone().new_cache(2, 5)
    first, second = rows_of(4, [0] * 4, [0] * 4), rows_of(2, [1] * 2, [0] * 2)
    with torch.no_grad():
        model(first.x, rope_of(first.coords), None, cache)
        cache.keep(first.block, first.valid)
        with pytest.raises(ConfigError, match="KV cache holds 5 rows; 6 were fed"):
            model(second.x, rope_of(second.coords), None, cache)


def test_the_cache_has_the_type_of_the_weights() -> None:
    assert backbone().to(torch.bfloat16).new_cache(1, 2).data.dtype == torch.bfloat16
    cache = KVCache(1, 2, 3, 1, 16)
    assert (cache.data.dtype, cache.length, cache.capacity) == (torch.float32, 0, 3)


def test_no_mask_where_every_row_sees_everything() -> None:
    assert row_mask(rows_of(3, [4, 4, 4], [0, 0, 0])) is None
    mask = row_mask(rows_of(3, [0, 1, 1], [0, 0, 1]))
    assert mask is not None
    assert mask[0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_nobody_sees_padding_and_padding_sees_itself() -> None:
    valid = torch.tensor([[True, True, True], [True, False, True]])
    mask = row_mask(rows_of(3, [0, 1, 2], [0, 0, 0], valid))
    assert mask is not None
    assert mask[0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask[1].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


def test_mixed_precision_on_a_cpu_attends_in_float32() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16).bfloat16().unbind(0)
    mask = torch.rand(2, 1, 9, 9) > 0.5
    mask |= torch.eye(9, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = attend(q, k, v, mask, grouped=False)
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, exact)
    assert attend(q, k, v, mask, grouped=False).dtype == torch.bfloat16
