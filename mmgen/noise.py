"""Counter-based random numbers: a draw depends on the picture's seed and on nothing around it.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3") hashes a counter of
four 32-bit words under a key of two. The key is the picture's seed; the counter says which number
is wanted, so that batch size, batch order, device and resuming do not change a picture:

    word 0   v >> 2; word v & 3 of the result belongs to token (or channel) v
    word 1   position: index of the token in decode order within its picture
    word 2   visit: how often this position was drawn before (refinement or solver step)
    word 3   purpose, plus the level (code book) in bits 8..15 and the segment in bits 16..31

Logarithms are those of `mmgen/portable.py`, so that CPU and GPU agree bit for bit. Never run this
file through `torch.compile`: it contracts a multiply and an add into one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from mmgen.errors import ConfigError
from mmgen.portable import join, plog, split, two_atanh

SEED_LIMIT = 2**63

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_NEAR = 1.0  # more than twice the error of the fast noise in `_argmax`
_CHUNK = 1 << 17  # numbers made at once: the temporaries stay in a core's cache

_Counter = tuple[Tensor, Tensor, Tensor | int, Tensor | int]


class Purpose(IntEnum):
    """What a number is for; different purposes never share a number."""

    TOKEN = 1
    FLOW = 2
    ORDER = 3
    POSTERIOR = 4
    DROP = 5
    TEXT = 6


def picture_seeds(seed: int | Sequence[int], count: int) -> Tensor:
    """Return the seeds of the `count` pictures of a call.

    Args:
        seed: the seed of the first picture (picture i has `seed + i`), or one for each picture.
        count: the number of pictures.

    Returns:
        (count,) int64, on the CPU.

    Raises:
        ConfigError: a seed outside 0 .. 2**63 - 1, or a list of another length.
    """
    if isinstance(seed, int):
        seeds = [seed + i for i in range(count)]
    else:  # what is no whole number and not several is refused below, as a seed
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    if len(seeds) != count:
        raise ConfigError(f"There are {len(seeds)} seeds for {count} pictures; give one for each.")
    for value in seeds:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < SEED_LIMIT:
            raise ConfigError(f"The seed {value!r} must be a whole number from 0 to 2**63 - 1.")
    return torch.tensor(seeds, dtype=torch.int64)


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Philox4x32-10.

    Args:
        counter: (..., 4) int64, each a 32-bit word.
        key: (..., 2) int64, each a 32-bit word; leading sizes broadcast with those of `counter`.

    Returns:
        (..., 4) int64, each a 32-bit word.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    return _philox((c0, c1, c2, c3), (key[..., 0], key[..., 1]))


def gumbel(
    seeds: Tensor,
    positions: Tensor,
    vocab: int,
    *,
    purpose: Purpose = Purpose.TOKEN,
    visit: int = 0,
    segment: int = 0,
    level: int = 0,
) -> Tensor:
    """Standard Gumbel noise for every token of the vocabulary (specs/kernels 3.3).

    Args:
        seeds: (B,) int64, the pictures' seeds.
        positions: (P,) or (B, P) int64, indices in decode order.
        vocab: V, the number of tokens.
        purpose, visit, segment, level: which stream of numbers; see the table above.

    Returns:
        (B, P, V) float32 on the device of `seeds`.
    """
    high = _stream(purpose, segment, level)
    seeds, positions = _rows(seeds, positions)  # (B, P) both
    out = torch.empty(seeds.numel(), vocab, dtype=torch.float32, device=seeds.device)
    for part, words in _words(seeds, positions, vocab, visit, high):
        out[part] = _gumbel(words)
    return out.view(*seeds.shape, vocab)


def gumbel_argmax(
    z: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    purpose: Purpose = Purpose.TOKEN,
    visit: int = 0,
    segment: int = 0,
    level: int = 0,
) -> Tensor:
    """The token with the largest `z + gumbel(...)`, the lowest among equals.

    The answer is exact, but only tokens that come near the maximum get the exact logarithms, which
    cost more than all else; the library's fast ones say which tokens these are.

    Args:
        z: (B, P, V) float32, the largest of each row finite; -inf forbids a token.
        seeds: (B,) int64, the pictures' seeds.
        positions: (P,) or (B, P) int64, indices in decode order.
        purpose, visit, segment, level: which stream of numbers; see the table above.

    Returns:
        (B, P) int64.
    """
    high = _stream(purpose, segment, level)
    seeds, positions = _rows(seeds, positions)  # (B, P) both
    rows = z.reshape(-1, z.shape[-1])
    out = torch.empty(len(rows), dtype=torch.int64, device=z.device)
    for part, words in _words(seeds, positions, z.shape[-1], visit, high):
        out[part] = _argmax(rows[part], words)
    return out.view(seeds.shape)


def gumbel_at(
    seeds: Tensor,
    positions: Tensor,
    tokens: Tensor,
    *,
    purpose: Purpose = Purpose.TOKEN,
    visit: int = 0,
    segment: int = 0,
    level: int = 0,
) -> Tensor:
    """The numbers of `gumbel` for some tokens only.

    Args:
        seeds: (B,) int64, the pictures' seeds.
        positions: (P,) or (B, P) int64, indices in decode order.
        tokens: (B, P, K) int64, token ids.
        purpose, visit, segment, level: which stream of numbers; see the table above.

    Returns:
        (B, P, K) float32.
    """
    high = _stream(purpose, segment, level)
    seeds, positions = _rows(seeds, positions)
    seeds, positions, ids = (
        x.expand(tokens.shape).flatten() for x in (seeds[..., None], positions[..., None], tokens)
    )
    out = torch.empty(ids.numel(), dtype=torch.float32, device=tokens.device)
    for part in _chunks(ids.numel(), 4):
        words = _philox((ids[part] >> 2, positions[part], visit, high), _key(seeds[part]))
        lane = (ids[part] & 3)[:, None]
        out[part] = _gumbel(words.gather(1, lane)[:, 0])
    return out.view(tokens.shape)


def gaussian(
    seeds: Tensor,
    positions: Tensor,
    channels: int,
    *,
    purpose: Purpose = Purpose.FLOW,
    visit: int = 0,
    segment: int = 0,
    level: int = 0,
) -> Tensor:
    """Standard normal noise by Box and Muller in float64.

    Words 0 and 1 of a Philox call give channels 0 and 1 (radius from the first, angle from the
    second; cosine, then sine), words 2 and 3 give channels 2 and 3. The library's logarithm and
    cosine may differ by 1e-6 between devices, so draw on the CPU where pictures must be equal.

    Args:
        seeds: (B,) int64, the pictures' seeds.
        positions: (P,) or (B, P) int64, indices in decode order.
        channels: C, numbers for each position.
        purpose, visit, segment, level: which stream of numbers; see the table above.

    Returns:
        (B, P, C) float32 on the device of `seeds`.
    """
    high = _stream(purpose, segment, level)
    seeds, positions = _rows(seeds, positions)
    groups = torch.arange((channels + 3) // 4, device=seeds.device)
    words = _philox((groups, positions[..., None], visit, high), _key(seeds[..., None]))
    u = (words.double() + 0.5) * 2.0**-32  # (B, P, C / 4, 4)
    radius = (-2.0 * u[..., 0::2].log()).sqrt()
    angle = 2.0 * math.pi * u[..., 1::2]
    pairs = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)  # (B, P, C / 4, 2, 2)
    return pairs.flatten(2)[..., :channels].float()


def _philox(counter: _Counter, key: tuple[Tensor, Tensor]) -> Tensor:
    # Shapes that broadcast -> (..., 4). They broadcast as late as they can: for a whole vocabulary
    # the first two of the ten rounds cost nothing. int64 wraps modulo 2**64, which keeps the bits
    # of a product; the mask removes the sign that >> spreads, and in the end the high halves.
    device = key[0].device
    c0, c1, c2, c3 = (torch.as_tensor(word, device=device) for word in counter)
    # Tensors, since an operation converts a Python number each time.
    mask, low, high = torch.tensor((_MASK, *_MULTIPLIERS), device=device).unbind()
    for k0, k1 in zip(*_turn_keys(key, mask)):
        first, second = c0 * low, c2 * high
        c0, c2 = ((second >> 32) ^ c1 ^ k0) & mask, ((first >> 32) ^ c3 ^ k1) & mask
        c1, c3 = second, first
    words = torch.broadcast_tensors(c0, c1 & mask, c2, c3 & mask)  # type: ignore[no-untyped-call]
    return torch.stack(words, dim=-1)


def _turn_keys(key: tuple[Tensor, Tensor], mask: Tensor) -> Iterator[tuple[Tensor, ...]]:
    # The key of every round, one sequence a word.
    for word, weyl in zip(key, _WEYL):
        turns = torch.arange(_ROUNDS, device=word.device).view(-1, *[1] * word.dim())
        yield ((word + turns * weyl) & mask).unbind()


def _key(seeds: Tensor) -> tuple[Tensor, Tensor]:
    return seeds & _MASK, (seeds >> 32) & _MASK


def _stream(purpose: Purpose, segment: int, level: int) -> int:
    if not (0 <= level < 2**8 and 0 <= segment < 2**16):
        raise ValueError(f"level {level} and segment {segment} must fit 8 and 16 bits")
    return int(purpose) | level << 8 | segment << 16


def _rows(seeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    # One seed and one position for each row: (B, P) both.
    shape = (seeds.shape[0], positions.shape[-1])
    if positions.dim() > 1 and positions.shape != shape:
        raise ValueError(f"positions {tuple(positions.shape)} do not fit {shape[0]} seeds")
    return seeds[:, None].expand(shape), positions.expand(shape)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // width)
    return (slice(start, start + step) for start in range(0, rows, step))


def _words(
    seeds: Tensor, positions: Tensor, vocab: int, visit: int, high: int
) -> Iterator[tuple[slice, Tensor]]:
    # The words (rows, vocab) of some rows at a time, of all rows (seed, position).
    groups = torch.arange((vocab + 3) // 4, device=seeds.device)
    for part in _chunks(seeds.numel(), vocab):
        counter = (groups, positions.flatten()[part, None], visit, high)
        words = _philox(counter, _key(seeds.flatten()[part, None]))
        yield part, words.flatten(1)[:, :vocab]


def _argmax(z: Tensor, bits: Tensor) -> Tensor:
    # `rough` is off by 0.35 at most (at the lower end, where float32 rounds v to 1), apart from the
    # rounding of the sum, so a token that lies further behind than `_NEAR` cannot be the maximum.
    v = bits.float().mul_(2.0**-32).add_(2.0**-33).clamp_(max=1.0 - 2.0**-24)
    rough = v.neg_().log1p_().neg_().log_().neg_().add_(z)
    best = rough.amax(-1, keepdim=True)
    row, token = (rough >= best - (_NEAR + best.abs() * 2.0**-20)).nonzero(as_tuple=True)
    keys = z[row, token] + _gumbel(bits[row, token])
    top = z.new_full((len(z),), -math.inf).scatter_reduce(0, row, keys, "amax")
    wins = keys == top[row]
    first = torch.full((len(z),), z.shape[-1], device=z.device)
    return first.scatter_reduce(0, row[wins], token[wins], "amin")


def _gumbel(bits: Tensor) -> Tensor:
    # -log(E), E = -log(1 - v), v = (bits + 1/2) / 2**32. Below 1/2 the inner logarithm is
    # 2 artanh(v / (2 - v)), which keeps the digits of small v, i.e. of large noise; above, it is
    # -log(w), w = 1 - v. Folding `bits` at 1/2 makes v and w one function x, and both logarithms
    # are 2 artanh(s) + e log 2 with another s. `upper` chooses s without a branch: 0 or all ones.
    upper = bits.to(torch.int32) >> 31
    odd = bits * 2 + 1
    x = torch.minimum(odd, 2**33 - odd).float().mul_(2.0**-33)
    mantissa, exponent = split(x)  # int32: the bits of f, and e
    mantissa ^= x.view(torch.int32)
    f = (mantissa & upper).bitwise_xor_(x.view(torch.int32)).view(torch.float32)  # x, or f of w
    sign = upper.float()  # 0 or -1
    s = (f + sign).div_((f - (sign * 3.0 + 2.0)).abs_())  # x / (2 - x), or (f - 1) / (f + 1)
    log = join(two_atanh(s), (exponent & upper).float())
    return plog(log.abs_()).neg_()
