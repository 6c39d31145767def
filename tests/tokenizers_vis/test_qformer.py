"""The Q-Former: against the one of transformers, and who sees whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmgen.errors import ConfigError
from mmgen.tokenizers_vis.qformer import QFormer, QFormerConfig

CONFIG = QFormerConfig(width=24, depth=3, heads=4, mlp_width=40, memory_width=20)
NAMES = {
    "attention.attention.query": "attention.q",
    "attention.attention.key": "attention.k",
    "attention.attention.value": "attention.v",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "crossattention.attention.query": "cross.q",
    "crossattention.attention.key": "cross.k",
    "crossattention.attention.value": "cross.v",
    "crossattention.output.dense": "cross.out",
    "crossattention.output.LayerNorm": "cross_norm",
    "intermediate_query.dense": "mlp.0",
    "output_query.dense": "mlp.2",
    "output_query.LayerNorm": "mlp_norm",
}


def ours(name: str) -> str:
    if name.startswith("layernorm."):
        return name.replace("layernorm", "norm_in")
    _, _, index, rest = name.split(".", 3)
    inner, _, kind = rest.rpartition(".")
    return f"layers.{index}.{NAMES[inner]}.{kind}"


def test_it_is_the_q_former_of_blip_2() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Blip2QFormerConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        encoder_hidden_size=20,
        cross_attention_frequency=2,
        vocab_size=10,
    )
    oracle = transformers.Blip2QFormerModel(config).eval()
    network = QFormer(CONFIG).eval()
    queries, memory = torch.randn(2, 5, 24), torch.randn(2, 7, 20)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        network.load_state_dict({ours(name): t for name, t in oracle.state_dict().items()})
        expected = oracle(query_embeds=queries, encoder_hidden_states=memory).last_hidden_state
        torch.testing.assert_close(network(queries, memory), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_a_query_sees_those_before_it(causal: bool) -> None:
    network = QFormer(replace(CONFIG, causal=causal)).eval()
    queries, memory = torch.randn(2, 6, 24), torch.randn(2, 7, 20)
    changed = queries.clone()
    changed[:, 3] += torch.randn(24)
    with torch.no_grad():
        before, after = network(queries, memory), network(changed, memory)
        other = network(queries, memory + 0.1 * torch.randn_like(memory))
    assert torch.equal(before[:, :3], after[:, :3]) is causal
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()
    assert (before != other).any(-1).all()  # the whole memory is seen by all


@pytest.mark.parametrize("change", [{"depth": 0}, {"cross_every": 0}, {"heads": 5}])
def test_sizes_that_make_no_network_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Q-Former"):
        replace(CONFIG, **change)
