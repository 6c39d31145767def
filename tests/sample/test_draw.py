"""Draws: exact against a slow oracle with integer sums, right in distribution, batch-invariant."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from mmgen.config import from_dict
from mmgen.errors import ConfigError
from mmgen.noise import Purpose, gumbel, picture_seeds
from mmgen.portable import pexp
from mmgen.sample import draw as module
from mmgen.sample.draw import DrawSettings, draw, filter_logits

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MMGEN_SHARED", ROOT.parent / "shared"))
INF = math.inf


# -- the oracle: one row, Python integers, an explicit sort ---------------------------------------


def oracle_kept(z: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    order = [i for i in sorted(range(len(z)), key=lambda i: (-z[i], i)) if z[i] > -INF]
    if 0 < top_k < len(order):
        order = [i for i in order if z[i] >= z[order[top_k - 1]]]
    row = torch.tensor(z, dtype=torch.float32)
    weight = pexp(row - row.max())
    if top_p < 1.0:
        mass = [math.floor(w * 2**31) for w in weight.tolist()]
        limit = sum(mass[i] for i in order) * math.floor(top_p * 2**32) // 2**32
        before, kept = 0, []
        for i in order:
            if before <= limit:
                kept.append(i)
            before += mass[i]
        order = kept
    return {i for i in order if min_p == 0 or weight[i].item() >= np.float32(min_p)}


def kept_of(filtered: Tensor) -> set[int]:
    return set((filtered > -INF).nonzero()[:, 0].tolist())


def random_logits(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


# -- filters --------------------------------------------------------------------------------------

tied_rows = st.lists(
    st.sampled_from([-INF, -30.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 2.0, 2.0000002]),
    min_size=1,
    max_size=40,
).filter(lambda row: max(row) > -INF)
tops = st.sampled_from([1e-12, 1e-6, 0.05, 0.25, 0.3, 0.5, 0.75, 0.9, 0.999, 1 - 2**-40, 1.0])
ks = st.sampled_from([0, 1, 2, 3, 7, 39, 40, 1000])


@given(row=tied_rows, top_k=ks, top_p=tops, min_p=st.sampled_from([0.0, 0.02, 0.5, 0.99]))
@settings(max_examples=300, deadline=None)
def test_filters_equal_the_oracle_with_heavy_ties(
    row: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    logits = torch.tensor(row)
    out = filter_logits(logits, top_k, top_p, min_p)
    kept = kept_of(out)
    assert kept == oracle_kept(row, top_k, top_p, min_p)
    assert all(out[i] == logits[i] for i in kept)


@pytest.mark.parametrize("vocab", [1, 5, 37, 1000, 16384])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.9), (0, 0.3), (50, 1.0), (50, 0.9), (999, 0.5)])
def test_filters_equal_the_oracle_on_larger_rows(vocab: int, top_k: int, top_p: float) -> None:
    rows = random_logits(3, vocab, seed=vocab)
    rows[1] = (rows[1] * 2).round() / 2  # ties
    rows[2, :] = 1.5  # all equal
    out = filter_logits(rows, top_k, top_p)
    for row, filtered in zip(rows, out):
        assert kept_of(filtered) == oracle_kept(row.tolist(), top_k, top_p, 0.0)


def test_filters_do_not_mix_rows_of_a_batch() -> None:
    z = (random_logits(4, 6, 200) * 2).round() / 2
    out = filter_logits(z, 20, 0.8, 0.01)
    for i in range(4):
        for j in range(6):
            assert torch.equal(out[i, j], filter_logits(z[i, j], 20, 0.8, 0.01))


def test_a_tied_nucleus_is_cut_by_index() -> None:
    # Four equal masses: 0 before the first, one quarter before the second ... p = 0.5 keeps three.
    assert kept_of(filter_logits(torch.tensor([0.0, 9, 0, 9, 9, 9, 0]), top_p=0.5)) == {1, 3, 4}
    assert kept_of(filter_logits(torch.tensor([0.0, 0, 0, 0]), top_p=0.49)) == {0, 1}
    assert kept_of(filter_logits(torch.tensor([0.0, -0.0, 0.0, -0.0]), top_p=0.5)) == {0, 1, 2}


def test_top_k_keeps_ties_and_ignores_a_k_beyond_the_vocabulary() -> None:
    z = torch.tensor([1.0, 3, 2, 2, 2, 0])
    assert kept_of(filter_logits(z, top_k=2)) == {1, 2, 3, 4}
    assert torch.equal(filter_logits(z, top_k=6), z)
    assert torch.equal(filter_logits(z, top_k=10_000), z)


def test_top_p_renormalises_what_top_k_left() -> None:
    z = torch.tensor([0.5, 0.3, 0.2]).log()
    assert kept_of(filter_logits(z, top_p=0.6)) == {0, 1}
    assert kept_of(filter_logits(z, top_k=2, top_p=0.6)) == {0}  # 0.5 / 0.8 exceeds 0.6


def test_min_p_is_relative_to_the_most_likely_token() -> None:
    z = torch.tensor([0.5, 0.26, 0.14, 0.1]).log()
    assert kept_of(filter_logits(z, min_p=0.5)) == {0, 1}
    assert kept_of(filter_logits(z, min_p=0.25)) == {0, 1, 2}
    assert kept_of(filter_logits(z, top_k=2, min_p=0.1)) == {0, 1}
    assert kept_of(filter_logits(torch.zeros(3), min_p=0.999)) == {0, 1, 2}
    z = torch.tensor([1.0, 0.0, -0.0, -1e-6])
    equal = pexp(torch.tensor(-1.0)).item()
    assert kept_of(filter_logits(z, min_p=equal)) == {0, 1, 2}  # at least: equal is enough


@given(
    total=st.integers(0, 2**49),
    part=st.integers(0, 2**32 - 1) | st.just(2**32 - 1) | st.just(2**31),
)
@settings(max_examples=100, deadline=None)
def test_share_is_exact_where_int64_overflows(total: int, part: int) -> None:
    assert module._share(torch.tensor([total]), part).item() == total * part // 2**32


def test_a_large_flat_row_has_an_exact_nucleus() -> None:
    vocab = 2**18
    kept = filter_logits(torch.zeros(vocab), top_p=0.7) > -INF
    count = int(kept.sum())
    assert count == math.floor(vocab * math.floor(0.7 * 2**32) / 2**32) + 1
    assert bool(kept[:count].all())


def test_the_generic_sort_agrees_with_the_cpu_one() -> None:
    z = (random_logits(5, 300) * 4).round() / 4
    z[0, :50] = -INF
    assert torch.equal(module._descending(z), z.sort(dim=-1, descending=True).values)


@pytest.mark.parametrize("case", ["llamagen-c2i-tiny", "nar-c2i-tiny"])
def test_filters_equal_the_official_ones(case: str) -> None:
    folder = SHARED / "goldens" / case
    if not folder.is_dir():
        pytest.skip(f"there is no golden case {case} in {SHARED}; set MMGEN_SHARED")
    tensors = load_file(folder / "tensors.safetensors")
    chosen = json.loads((folder / "case.json").read_text())["settings"]["filter"]
    z = tensors["gen_guided_logits"][:, 1] / chosen["temperature"]
    for name, top_k in (("filtered_probs", chosen["top_k"]), ("filtered_probs_top_p_only", 0)):
        ours = filter_logits(z, top_k, chosen["top_p"]).softmax(-1)
        torch.testing.assert_close(ours, tensors[name], atol=1e-5, rtol=1e-4)


# -- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        DrawSettings(),
        DrawSettings(temperature=0.7),
        DrawSettings(temperature=1e-7),
        DrawSettings(top_k=3),
        DrawSettings(top_p=0.8),
        DrawSettings(temperature=1.3, top_k=40, top_p=0.95, min_p=0.02),
    ],
)
@pytest.mark.parametrize("vocab", [1, 37, 400])
def test_draw_equals_the_oracle(chosen: DrawSettings, vocab: int) -> None:
    logits = (random_logits(3, 8, vocab, seed=vocab) * 2).round() / 2
    logits[1, 2, : vocab // 2] = -INF
    seeds, positions = picture_seeds(100, 3), torch.arange(8) + 30
    options = {"purpose": Purpose.TEXT, "visit": 4, "segment": 2, "level": 1}
    tokens = draw(logits, seeds, positions, chosen, **options)  # type: ignore[arg-type]
    noise = gumbel(seeds, positions, vocab, **options).numpy()  # type: ignore[arg-type]
    z = logits.numpy() / np.float32(max(chosen.temperature, 1e-5))
    for b in range(3):
        for p in range(8):
            row = z[b, p].tolist()
            kept = sorted(oracle_kept(row, chosen.top_k, chosen.top_p, chosen.min_p))
            keys = [z[b, p, i] + noise[b, p, i] for i in kept]
            assert tokens[b, p] == kept[keys.index(max(keys))]


def test_noise_for_the_kept_alone_gives_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, seeds = random_logits(2, 9, 500), picture_seeds(3, 2)
    drawn = {}
    for share in (-1.0, 2.0):  # always for all tokens, always for the kept
        monkeypatch.setattr(module, "_DENSE_SHARE", share)
        drawn[share] = draw(logits, seeds, torch.arange(9), DrawSettings(top_p=0.9))
    assert torch.equal(drawn[-1.0], drawn[2.0])


def chi_square(counts: Tensor, p: Tensor) -> float:
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected)[p > 0].sum())


def below(freedom: int) -> float:
    return freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    "chosen",
    [
        DrawSettings(),
        DrawSettings(temperature=0.6),
        DrawSettings(top_k=20),
        DrawSettings(top_p=0.9),
        DrawSettings(top_k=50, top_p=0.95, min_p=0.05),
    ],
)
def test_draws_follow_the_softmax(chosen: DrawSettings) -> None:
    count = 100_000
    logits = random_logits(64, seed=8, spread=1.0)
    z = logits.double() / chosen.temperature
    p = filter_logits(z.float(), chosen.top_k, chosen.top_p, chosen.min_p).double().softmax(-1)
    rows = logits.expand(1, count, 64)
    tokens = draw(rows, torch.tensor([12345]), torch.arange(count), chosen)
    counts = torch.bincount(tokens[0], minlength=64).double()
    assert counts[p == 0].sum() == 0
    assert chi_square(counts, p) < below(int((p > 0).sum()) - 1)


def test_draws_of_neighbouring_positions_and_seeds_are_independent() -> None:
    rows = random_logits(6, seed=9, spread=0.7).expand(2, 50_000, 6)
    tokens = draw(rows, torch.tensor([77, 78]), torch.arange(50_000))
    p = rows[0, 0].double().softmax(-1)
    for a, b in ((tokens[0, :-1], tokens[0, 1:]), (tokens[0], tokens[1])):
        counts = torch.bincount(a * 6 + b, minlength=36).double()
        assert chi_square(counts, torch.outer(p, p).view(-1)) < below(35)


@given(
    batch=st.integers(1, 5),
    slot=st.integers(0, 4),
    seed=st.integers(0, 2**63 - 1),
    top_k=st.sampled_from([0, 4]),
    top_p=st.sampled_from([1.0, 0.8]),
)
@settings(max_examples=40, deadline=None)
def test_a_token_does_not_depend_on_the_batch(
    batch: int, slot: int, seed: int, top_k: int, top_p: float
) -> None:
    slot %= batch
    chosen = DrawSettings(top_k=top_k, top_p=top_p)
    logits, positions = random_logits(1, 4, 50, seed=seed % 1000), torch.tensor([3, 0, 8, 1])
    alone = draw(logits, torch.tensor([seed]), positions, chosen)
    seeds, others = picture_seeds(900, batch), random_logits(batch, 4, 50, seed=1)
    seeds[slot], others[slot] = seed, logits[0]
    where = torch.zeros(batch, 4, dtype=torch.long)
    where[slot] = positions
    assert torch.equal(draw(others, seeds, where, chosen)[slot], alone[0])
    for p in range(4):  # and not on the positions decided beside it
        one = draw(logits[:, p : p + 1], torch.tensor([seed]), positions[p : p + 1], chosen)
        assert one.item() == alone[0, p]


def test_temperature_zero_takes_the_first_of_the_largest_and_ignores_the_seed() -> None:
    logits = torch.tensor([[[0.0, 2, 1, 2], [-INF, -INF, -7, -7], [-0.0, 0.0, -1, -1]]])
    for seed in (0, 99):
        chosen = DrawSettings(temperature=0.0, top_k=2, top_p=0.5)
        tokens = draw(logits, torch.tensor([seed]), torch.arange(3), chosen)
        assert tokens.tolist() == [[1, 2, 0]]
    assert tokens.dtype == torch.int64


def test_logits_are_divided_by_the_temperature_and_never_by_less_than_1e_5() -> None:
    z = random_logits(10_000)
    scaled = module._over_temperature(z, 0.7).numpy()
    assert (scaled == z.numpy() / np.float32(0.7)).all()  # to the bit: no reciprocal
    rows = torch.tensor([0.0, 1.0]).expand(1, 200, 2)
    seeds, positions = torch.tensor([3]), torch.arange(200)
    tiny = draw(rows * 1e-5, seeds, positions, DrawSettings(temperature=1e-9))
    assert torch.equal(tiny, draw(rows, seeds, positions))


def test_other_seeds_give_other_tokens() -> None:
    rows = torch.zeros(1, 64, 1000)
    first, second = (draw(rows, torch.tensor([s]), torch.arange(64)) for s in (1, 2))
    assert (first != second).float().mean() > 0.9


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.zeros(1, 500, 10)
    logits[..., 5:] = -INF
    tokens = draw(logits, torch.tensor([4]), torch.arange(500))
    assert set(tokens.flatten().tolist()) == {0, 1, 2, 3, 4}


def test_given_noise_replaces_ours_and_ties_go_to_the_lowest_index() -> None:
    noise = torch.tensor([[[0.0, 5, 5, 0]]])
    seeds, positions = torch.tensor([1]), torch.tensor([0])
    assert draw(torch.zeros(1, 1, 4), seeds, positions, noise=noise).item() == 1
    logits = torch.tensor([[[3.0, 0, 0, 3]]])
    assert draw(logits, seeds, positions, DrawSettings(top_k=1), noise=noise).item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_float_type_is_drawn_as_float32(dtype: torch.dtype) -> None:
    logits = random_logits(2, 5, 300).to(dtype)
    seeds, positions, chosen = picture_seeds(6, 2), torch.arange(5), DrawSettings(0.9, 100, 0.9)
    expected = draw(logits.float(), seeds, positions, chosen)
    assert torch.equal(draw(logits, seeds, positions, chosen), expected)


def test_drawing_leaves_its_inputs_alone() -> None:
    logits = random_logits(2, 3, 50).requires_grad_()
    before, positions = logits.detach().clone(), torch.arange(3)
    with torch.inference_mode():
        draw(logits, picture_seeds(1, 2), positions, DrawSettings(0.8, 10, 0.9, 0.01))
    draw(logits, picture_seeds(1, 2), positions, DrawSettings(1.0, 10, 0.9, 0.01))
    assert torch.equal(logits.detach(), before)


@pytest.mark.parametrize(
    ("fill", "fault"), [(math.nan, "NaN"), (INF, "infinite"), (-INF, "all -inf")]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_named(fill: float, fault: str, temperature: float) -> None:
    logits = random_logits(2, 3, 20)
    logits[1, 2] = fill
    with pytest.raises(ValueError, match=f"picture 1 at position 14 are {fault}"):
        draw(logits, picture_seeds(0, 2), torch.arange(12, 15), DrawSettings(temperature))


def test_a_single_nan_is_enough() -> None:
    logits = random_logits(1, 1, 20)
    logits[0, 0, 7] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        draw(logits, torch.tensor([0]), torch.tensor([0]), DrawSettings(top_k=2))


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": INF}, "temperature"),
        ({"top_k": -1}, "top_k must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"min_p": -0.1}, "min_p must be 0"),
        ({"min_p": 1.0}, "min_p"),
    ],
)
def test_settings_out_of_range_are_one_sentence(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_dict(DrawSettings, values)
    assert "\n" not in str(caught.value)


def test_settings_at_their_limits_are_fine() -> None:
    DrawSettings(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0).validate()
    DrawSettings(temperature=5.0, top_k=10**9, top_p=1e-9, min_p=0.999).validate()
