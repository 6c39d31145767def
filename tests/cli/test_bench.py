"""`mmgen bench sample`: what it reports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Commands


def test_figures_of_two_ways_of_storing_weights_in_one_run(
    mmgen: Commands, tiny: Path, tmp_path: Path
) -> None:
    words = ("--batch", "1,2", "--weights", "float,int8", "--unit", "token", "--repeats", 1)
    done = mmgen("bench", "sample", "--model", tiny, *words, "--json", cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done
    told = json.loads(done.out)
    assert told["machine"]["read_gb_s"] > 0 and told["machine"]["threads"] == 1
    assert told["decoding_seconds"] > 0 and told["settings"]["unit"] == "token"
    ways = [(each["weights"], each["batch"], each["steps"]) for each in told["sampling"]]
    assert ways == [("float", 1, 16), ("float", 2, 16), ("int8", 1, 16), ("int8", 2, 16)]
    one, two, integers, _ = told["sampling"]
    assert one["speed"] == two["speed"] == 1.0
    assert integers["speed"] == pytest.approx(one["seconds"] / integers["seconds"])
    assert one["bytes_read"] == two["bytes_read"]  # every matrix once a step, whatever the batch
    assert 0.25 < integers["bytes_read"] / one["bytes_read"] < 0.35
    assert one["pictures_a_second"] == pytest.approx(1 / one["seconds"])
    assert one["step_seconds"] == pytest.approx(one["seconds"] / 16)
    assert one["gb_s"] == pytest.approx(one["bytes_read"] / one["seconds"] / 1e9)
    assert one["peak_bytes"] > 50e6 and not list(tmp_path.iterdir())


def test_figures_in_words(mmgen: Commands, tiny: Path, tmp_path: Path) -> None:
    words = ("bench", "sample", "--model", tiny, "--repeats", 1, "--guidance", 1)
    done = mmgen(*words, cwd=tmp_path)
    assert (done.code, done.err) == (0, ""), done
    lines = done.out.splitlines()
    assert "GB/s" in lines[1] and "7 steps, guidance_scale 1.0" in lines[2]
    assert lines[3].split()[-1] == "speed" and lines[4].split()[-1] == "1.00"
    assert lines[4].split()[:2] == ["float", "1"] and "codes to pixels" in lines[5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "0"), "--batch is '0'"),
        (("--batch", "1,x"), "--batch is '1,x'"),
        (("--weights", "int9"), "--weights cannot be 'int9'; did you mean 'int8'?"),
        (("--random", "llamagen/GPT-C"), "no published size 'llamagen/GPT-C'"),
        (("--random", "nar/GPT-B", "--model", "emoji-64"), "not both"),
        (("--unit", "tokn"), "no unit 'tokn'"),
    ],
)
def test_mistakes_are_one_sentence(
    mmgen: Commands, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = mmgen("bench", "sample", *words, cwd=tmp_path)
    assert done.code == 2 and not done.out
    assert said in done.err and done.err.count("\n") == 1
