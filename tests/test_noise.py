"""Counter-based noise: known answers, bits against a written-out oracle, moments, streams."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmgen import noise
from mmgen.errors import ConfigError
from mmgen.noise import (
    Purpose,
    gaussian,
    gumbel,
    gumbel_argmax,
    gumbel_at,
    philox,
    picture_seeds,
)
from mmgen.portable import pexp, plog

F = np.float32
Array = np.ndarray[Any, np.dtype[np.float32]]
EDGES = [0, 1, 2, 3, 2**31 - 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 3, 2**32 - 2, 2**32 - 1]
words = st.integers(0, 2**32 - 1)


# -- the oracle: specs/kernels 3.3 line by line; NumPy rounds each operation on its own -----------


def oracle_philox(counter: list[int], key: list[int]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (second >> 32) ^ c[1] ^ k[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ c[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def oracle_atanh(s: Array) -> Array:
    z = s * s
    total = F(2 / 15)
    for n in (13, 11, 9, 7, 5, 3, 1):
        total = total * z + F(2 / n)
    return total * s


def oracle_plog(x: Array) -> Array:
    f, e = np.frexp(x)
    f, e = F(2) * f, (e - 1).astype(F)
    high = f > F(1.41421356)
    f, e = np.where(high, f * F(0.5), f), np.where(high, e + F(1), e)
    log = oracle_atanh((f - F(1)) / (f + F(1)))
    return e * F(0.693145751953125) + (log + e * F(1.428606765330187e-06))


def oracle_gumbel(numbers: list[int]) -> Array:
    n = np.array(numbers, dtype=np.int64)
    lower = n < 2**31
    x = np.where(lower, 2 * n + 1, 2 * (2**32 - 1 - n) + 1).astype(F) * F(2.0**-33)
    v = np.where(lower, x, F(0.5))
    return -oracle_plog(np.where(lower, oracle_atanh(v / (F(2) - v)), -oracle_plog(x)))


def oracle_pexp(x: Array) -> Array:
    safe = np.where(x < F(-86), F(-86), x)
    n = np.rint(safe * F(1.4426950))
    r = (safe - n * F(0.693145751953125)) - n * F(1.428606765330187e-06)
    total = F(1 / 720)
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1):
        total = total * r + F(coefficient)
    return np.where(x < F(-86), F(0), np.ldexp(total, n.astype(int)))


def same_bits(ours: Tensor, oracle: Array) -> bool:
    assert oracle.dtype == F
    return bool((ours.numpy().view(np.int32) == oracle.view(np.int32)).all())


# -- Philox ---------------------------------------------------------------------------------------


def test_philox_gives_the_published_known_answers() -> None:
    ones = 0xFFFFFFFF
    counter = [[0] * 4, [ones] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]]
    key = [[0, 0], [ones, ones], [0xA4093822, 0x299F31D0]]
    expected = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == expected


@given(counter=st.lists(words, min_size=4, max_size=4), key=st.lists(words, min_size=2, max_size=2))
@settings(max_examples=30, deadline=None)
def test_philox_equals_the_oracle(counter: list[int], key: list[int]) -> None:
    assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == oracle_philox(counter, key)


def test_philox_broadcasts_one_key_over_many_counters() -> None:
    counter = torch.arange(24).view(2, 3, 4)
    out = philox(counter, torch.tensor([5, 6]))
    assert out.shape == (2, 3, 4)
    assert out[1, 2].tolist() == oracle_philox(counter[1, 2].tolist(), [5, 6])


# -- logarithm, exponential, Gumbel ---------------------------------------------------------------


def test_gumbel_bits_equal_the_oracle_at_the_edges_and_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    n = torch.cat([torch.tensor(EDGES), torch.randint(2**32, (1 << 19,), generator=generator)])
    assert same_bits(noise._gumbel(n), oracle_gumbel(n.tolist()))


def test_gumbel_is_accurate_and_covers_the_stated_range() -> None:
    n = torch.randint(2**32, (1 << 20,), generator=torch.Generator().manual_seed(1))
    n = torch.cat([n, torch.arange(1 << 12), 2**31 - 2048 + torch.arange(1 << 12)])
    exact = -np.log(-np.log1p(-(n.numpy() + 0.5) * 2.0**-32))
    assert np.abs(noise._gumbel(n).numpy() - exact).max() < 1.5e-6
    ends = noise._gumbel(torch.tensor([2**32 - 1, 0]))
    assert [round(v, 2) for v in ends.tolist()] == [-3.13, 22.87]


def test_plog_and_pexp_bits_equal_the_oracle() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.exp(torch.randn(1 << 18, generator=generator) * 8)
    x = torch.cat([x, torch.tensor([1.0, 0.5, 2.0, 1.41421356, 1.4142137, 1.17549435e-38])])
    assert same_bits(plog(x), oracle_plog(x.numpy()))
    y = torch.rand(1 << 18, generator=generator) * -90
    y = torch.cat([y, torch.tensor([0.0, -0.0, -86.0, -86.00001, -1e30, -math.inf, -1e-30])])
    assert same_bits(pexp(y), oracle_pexp(y.numpy()))


def test_pexp_is_accurate_and_exactly_one_at_zero() -> None:
    x = -torch.rand(100_000, generator=torch.Generator().manual_seed(3)) * 86
    assert (pexp(x).double() / x.double().exp() - 1).abs().max() < 3e-7
    assert pexp(torch.zeros(1)).item() == 1.0


def test_gumbel_moments() -> None:
    g = gumbel(picture_seeds(11, 4), torch.arange(64), 4096).double()  # 2**20 numbers
    assert abs(g.mean() - 0.577216) < 5 * 1.2825 / 1024
    assert abs(g.var() - math.pi**2 / 6) < 0.02


def test_published_numbers_never_change() -> None:
    # A picture must be the same in every later version: these bits are a promise.
    g = gumbel(torch.tensor([0, 7, 2**63 - 1]), torch.arange(5), 1000)
    words_of_3 = oracle_philox([0, 3, 0, 1], [7, 0])
    assert same_bits(g[1, 3, :4], oracle_gumbel(words_of_3))
    digest = hashlib.sha256(g.numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "6eabf42990ad8aae469ef4dbe15d3a36b5cce10ddfc01a4f563d2d878c858e42"


# -- the counter layout ---------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**63 - 1),
    position=words,
    token=st.integers(0, 2**20),
    visit=words,
    segment=st.integers(0, 2**16 - 1),
    level=st.integers(0, 255),
    purpose=st.sampled_from(list(Purpose)),
)
@settings(max_examples=40, deadline=None)
def test_counter_layout(
    seed: int, position: int, token: int, visit: int, segment: int, level: int, purpose: Purpose
) -> None:
    counter = [token >> 2, position, visit, purpose | level << 8 | segment << 16]
    word = oracle_philox(counter, [seed & 0xFFFFFFFF, seed >> 32])[token & 3]
    one = gumbel_at(
        torch.tensor([seed]),
        torch.tensor([position]),
        torch.tensor([[[token]]]),
        purpose=purpose,
        visit=visit,
        segment=segment,
        level=level,
    )
    assert same_bits(one.view(-1), oracle_gumbel([word]))


@pytest.mark.parametrize("vocab", [1, 3, 4, 5, 1000])
def test_gumbel_at_picks_from_gumbel(vocab: int) -> None:
    seeds, positions = torch.tensor([3, 2**40]), torch.tensor([[0, 9, 4], [7, 7, 1]])
    tokens = torch.randint(vocab, (2, 3, 6), generator=torch.Generator().manual_seed(4))
    options = {"purpose": Purpose.TEXT, "visit": 2, "segment": 3, "level": 1}
    whole = gumbel(seeds, positions, vocab, **options)
    assert whole.shape == (2, 3, vocab)
    assert torch.equal(gumbel_at(seeds, positions, tokens, **options), whole.gather(-1, tokens))


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, positions, tokens = torch.arange(3), torch.arange(5), torch.arange(45).view(3, 5, 3)
    whole, some = gumbel(seeds, positions, 50), gumbel_at(seeds, positions, tokens)
    monkeypatch.setattr(noise, "_CHUNK", 64)
    assert torch.equal(gumbel(seeds, positions, 50), whole)
    assert torch.equal(gumbel_at(seeds, positions, tokens), some)


def test_every_part_of_the_counter_and_the_key_matters() -> None:
    def numbers(seed: int = 1, position: int = 1, **options: int) -> Tensor:
        return gumbel(torch.tensor([seed]), torch.tensor([position]), 64, **options)  # type: ignore[arg-type]

    streams = [
        numbers(),
        numbers(seed=2),
        numbers(seed=1 + 2**32),
        numbers(position=2),
        numbers(visit=1),
        numbers(segment=1),
        numbers(level=1),
        numbers(purpose=Purpose.TEXT),
    ]
    for i, one in enumerate(streams):
        for other in streams[:i]:
            assert not (one == other).any()


def test_a_picture_does_not_depend_on_its_batch() -> None:
    alone = gumbel(torch.tensor([42]), torch.tensor([5, 6]), 100)
    among = gumbel(torch.tensor([1, 42, 3]), torch.tensor([[0, 0], [5, 6], [9, 9]]), 100)
    assert torch.equal(alone[0], among[1])


def test_streams_do_not_correlate() -> None:
    g = gumbel(torch.arange(2), torch.arange(2), 1 << 16, visit=3).view(4, -1)
    lanes = g[0].view(-1, 4).T
    for table in (g, lanes):
        off = torch.corrcoef(table) - torch.eye(4)
        assert off.abs().max() < 5 / math.sqrt(table.shape[1])


@pytest.mark.parametrize("options", [{"level": 256}, {"segment": 65536}, {"level": -1}])
def test_streams_that_do_not_fit_their_bits_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must fit"):
        gumbel(torch.tensor([1]), torch.tensor([0]), 4, **options)  # type: ignore[arg-type]


def test_positions_of_another_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        gumbel(torch.tensor([1]), torch.zeros(2, 3, dtype=torch.long), 4)


# -- normal noise ---------------------------------------------------------------------------------


def test_gaussian_is_box_muller_of_the_philox_words() -> None:
    z = gaussian(torch.tensor([9]), torch.tensor([4]), 6, visit=2, segment=1, level=5)
    tag = Purpose.FLOW | 5 << 8 | 1 << 16
    expected = []
    for group in range(2):
        u = [(w + 0.5) / 2**32 for w in oracle_philox([group, 4, 2, tag], [9, 0])]
        for a, b in (u[:2], u[2:]):
            radius = math.sqrt(-2 * math.log(a))
            expected += [radius * math.cos(2 * math.pi * b), radius * math.sin(2 * math.pi * b)]
    assert z.shape == (1, 1, 6)
    assert z.dtype == torch.float32
    assert z.view(-1).tolist() == pytest.approx(expected[:6], abs=1e-6)


def test_gaussian_distribution() -> None:
    z = gaussian(picture_seeds(5, 4), torch.arange(256), 256).double().view(-1)  # 2**18 numbers
    assert abs(z.mean()) < 5 / 512
    assert abs(z.var() - 1) < 5 * math.sqrt(2) / 512
    for edge in (-2.0, -1.0, -0.3, 0.5, 1.5):
        share = 0.5 * (1 + math.erf(edge / math.sqrt(2)))
        assert abs((z < edge).double().mean() - share) < 5 * math.sqrt(share * (1 - share)) / 512
    pairs = z.view(-1, 2).T
    assert abs(torch.corrcoef(pairs)[0, 1]) < 5 / 362
    assert abs(torch.corrcoef(pairs**2)[0, 1]) < 5 / 362


# -- seeds ----------------------------------------------------------------------------------------


def test_picture_seeds_count_up_or_are_taken_as_they_are() -> None:
    assert picture_seeds(5, 3).tolist() == [5, 6, 7]
    assert picture_seeds([9, 1, 9], 3).tolist() == [9, 1, 9]
    assert picture_seeds(2**63 - 1, 1).tolist() == [2**63 - 1]
    assert picture_seeds(0, 0).dtype == torch.int64


SEEDS = [-1, 2**63, 1.5, [1, -5], [0, 2**64], [True, 1], [1.0, 2], ["1", 2]]


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_out_of_range_are_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to"):
        picture_seeds(seed, 2)  # type: ignore[arg-type]


def test_a_seed_that_counts_past_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="9223372036854775808"):
        picture_seeds(2**63 - 1, 2)


def test_another_number_of_seeds_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 seeds for 3 pictures"):
        picture_seeds([1, 2], 3)


# -- the largest noisy logit ----------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 40.0, 1e6, 1e30])
def test_the_fast_maximum_is_the_exact_one(spread: float) -> None:
    seeds, positions = torch.arange(3), torch.arange(20)
    z = torch.randn(3, 20, 1001, generator=torch.Generator().manual_seed(1)) * spread
    z[0, 0, 5:] = -math.inf
    z[1] = z[1].round()  # ties among the logits
    z[2, :, 7] = z[2].amax(-1) + 25  # wins with all but the smallest noise
    keys = z + gumbel(seeds, positions, 1001)
    assert torch.equal(gumbel_argmax(z, seeds, positions), keys.argmax(-1))


def test_the_fast_noise_is_near_enough_at_every_end_of_its_range() -> None:
    ends = torch.tensor([*EDGES, 2**20, 2**32 - 2**8, 2**32 - 2**9])
    exact = noise._gumbel(ends)
    gap = torch.linspace(-0.35, 0.35, 29)
    for word, value in zip(ends.tolist(), exact.tolist()):
        for other, rival in zip(ends.tolist(), exact.tolist()):
            z = torch.stack([gap, gap.new_full((29,), value - rival)], 1)  # near-ties of two keys
            bits = torch.tensor([[word, other]]).expand(29, 2)
            keys = z + noise._gumbel(bits)
            assert torch.equal(noise._argmax(z, bits), (keys[:, 1] > keys[:, 0]).long())
