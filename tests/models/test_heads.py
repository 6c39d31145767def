"""Code tables and the categorical head: shared vectors, averaged directions, affine logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmgen.models.backbone import BackboneConfig
from mmgen.models.heads import CategoricalHead, CodeTable, resolve_prefix
from mmgen.models.plan import NONE, PREFIX

W, K, C, E = 32, 11, 3, 16
BACKBONE = BackboneConfig(width=W, heads=2)


def head_of(*directions: str, norm: str = "rms") -> CategoricalHead:
    torch.manual_seed(1)
    config = BackboneConfig(width=W, heads=2, norm=norm)  # type: ignore[arg-type]
    head = CategoricalHead(config, directions, K, C, E)
    with torch.no_grad():
        head.bias.copy_(torch.randn(K))
        for norms in head.norms.values():
            norms.weight.add_(0.3 * torch.randn(W))
    return head


def slow_gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def slow_table(table: CodeTable, vectors: Tensor) -> Tensor:
    """Row by row in float64."""
    first, _, second = table.mlp
    rows = []
    for vector, free in zip(vectors.double(), table.free.weight.double()):
        hidden = first.weight.double() @ vector + first.bias.double()
        hidden = torch.tensor([slow_gelu(float(x)) for x in hidden], dtype=torch.float64)
        out = second.weight.double() @ hidden + second.bias.double()
        rows.append(table.scale * out / (out.square().mean() + 1e-7).sqrt() + free)
    return torch.stack(rows)


def slow_queries(
    head: CategoricalHead, hidden: Tensor, names: tuple[str, ...], reads: Tensor
) -> Tensor:
    out = torch.zeros(len(hidden), reads.shape[1], E, dtype=torch.float64)
    for b in range(len(hidden)):
        for slot in range(reads.shape[1]):
            told = []
            for name, row in zip(names, reads[:, slot].tolist()):
                if row != NONE:
                    x = hidden[b, row].double()
                    x = x / (x.square().mean() + 1e-5).sqrt() * head.norms[name].weight.double()
                    told.append(head.outs[name].weight.double() @ x + head.outs[name].bias.double())
            if told:
                out[b, slot] = torch.stack(told).mean(0)
    return out


def test_a_code_is_an_mlp_of_its_vector_plus_a_free_part() -> None:
    table = CodeTable(K, C, W, scale=0.5)
    vectors = torch.randn(K, C)
    with torch.no_grad():
        assert (table(vectors).double() - slow_table(table, vectors)).abs().max() < 1e-5


def test_codes_that_look_alike_start_alike_and_learn_together() -> None:
    table = CodeTable(3, C, W, scale=0.5)
    vectors = torch.randn(3, C)
    vectors[1] = vectors[0]
    with torch.no_grad():
        start = table(vectors) - table.free.weight
        assert torch.allclose(start[0], start[1], atol=1e-6)
        assert not torch.allclose(start[0], start[2], atol=0.1)
    target = torch.randn(W)
    with torch.no_grad():
        before = [(row - target).norm() for row in table(vectors)]
    for _ in range(20):  # code 1 is never seen
        table.zero_grad()
        (table(vectors)[0] - target).square().mean().backward()
        with torch.no_grad():
            for parameter in table.parameters():
                parameter -= 0.1 * parameter.grad
    with torch.no_grad():
        after = [(row - target).norm() for row in table(vectors)]
    assert after[1] < before[1] - 0.5 * (before[0] - after[0])


def test_the_scale_is_that_of_the_rows() -> None:
    for scale in (0.5, E**-0.5):
        table = CodeTable(200, C, E, scale=scale)
        with torch.no_grad():
            spread = table(torch.randn(200, C)).square().mean().sqrt()
        assert abs(float(spread) / scale - 1) < 0.05


def test_queries_are_averages_over_the_heads_that_speak() -> None:
    head = head_of("t", "x", "y")
    hidden = torch.randn(2, 6, W)
    reads = torch.tensor([[NONE, 3, 3, NONE, 0], [2, 5, NONE, NONE, 0], [NONE, 1, 4, NONE, 0]])
    names = ("y", "x", "t")  # a plan's order, not the head's
    with torch.no_grad():
        fast = head.queries(hidden, names, reads)
        slow = slow_queries(head, hidden, names, reads)
    assert fast.shape == (2, 5, E)
    assert (fast.double() - slow).abs().max() < 1e-5
    assert torch.equal(fast[:, 3], torch.zeros(2, E))  # nobody speaks


def test_logits_are_averaged_before_the_codebook_product() -> None:
    head, vectors = head_of("x", "y"), torch.randn(K, C)
    hidden, table = torch.randn(2, 4, W), head.table(vectors)
    reads = torch.tensor([[0, 1, NONE], [3, NONE, 2]])
    with torch.no_grad():
        mixed = head.logits(head.queries(hidden, ("x", "y"), reads), table)
        alone = {
            name: head.logits(head.queries(hidden, (name,), row[None]), table)
            for name, row in zip(("x", "y"), reads)
        }
    assert mixed.shape == (2, 3, K)
    assert torch.allclose(mixed[:, 0], (alone["x"][:, 0] + alone["y"][:, 0]) / 2, atol=1e-5)
    assert torch.allclose(mixed[:, 1], alone["x"][:, 1], atol=1e-6)
    assert torch.allclose(mixed[:, 2], alone["y"][:, 2], atol=1e-6)


def test_logits_are_products_with_the_table_plus_a_bias() -> None:
    head, queries = head_of("x").requires_grad_(False), torch.randn(1, 2, E)
    table = head.table(torch.randn(K, C))
    with torch.no_grad():
        logits = head.logits(queries, table)
    for slot in range(2):
        for code in range(K):
            expected = float(queries[0, slot] @ table[code] + head.bias[code])
            assert abs(float(logits[0, slot, code]) - expected) < 1e-5


def test_guidance_may_mix_queries_instead_of_logits() -> None:
    head = head_of("x")
    table = head.table(torch.randn(K, C)).detach()
    one, two = torch.randn(2, 1, 3, E)
    with torch.no_grad():
        mixed = head.logits(two + 3.5 * (one - two), table)
        apart = head.logits(two, table) + 3.5 * (head.logits(one, table) - head.logits(two, table))
    assert torch.allclose(mixed, apart, atol=1e-4)


def test_a_silent_head_gets_no_gradient() -> None:
    head = head_of("x", "y")
    reads = torch.tensor([[0, 1], [NONE, NONE]])
    queries = head.queries(torch.randn(1, 2, W), ("x", "y"), reads)
    head.logits(queries, head.table(torch.randn(K, C))).sum().backward()
    assert head.outs["y"].weight.grad is None and head.outs["x"].weight.grad is not None


@pytest.mark.parametrize("first", [1, 5])
def test_rows_of_a_plan_in_a_sequence(first: int) -> None:
    reads = torch.tensor([[PREFIX, 0, 7, NONE]])
    assert resolve_prefix(reads, first).tolist() == [[first - 1, first, first + 7, NONE]]
    assert reads.tolist() == [[PREFIX, 0, 7, NONE]]  # left as it was


def test_logits_are_float32_in_half_precision() -> None:
    head = head_of("x", norm="layer").to(torch.bfloat16)
    hidden = torch.randn(1, 2, W, dtype=torch.bfloat16)
    queries = head.queries(hidden, ("x",), torch.tensor([[1]]))
    logits = head.logits(queries, head.table(torch.randn(K, C, dtype=torch.bfloat16)))
    assert queries.dtype == torch.bfloat16 and logits.dtype == torch.float32
