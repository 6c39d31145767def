"""Motion of reconstructions: what the figures mean, on clips whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmgen.motion import Motion, MotionMeter, played_together
from mmgen.tokenizers_vis.metrics import psnr


def measured(again: torch.Tensor, clip: torch.Tensor) -> Motion:
    meter = MotionMeter()
    meter.add(again, clip)
    found = meter.result()
    assert found is not None
    return found


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5


def test_errors_that_stand_still_are_no_flicker(clip: torch.Tensor) -> None:
    error = 0.1 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    still = measured(clip + error, clip)
    assert still.psnr == pytest.approx(100, abs=5) and still.kept == pytest.approx(1, abs=1e-5)
    anew = 0.1 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(2))
    frames = float(psnr(clip + anew, clip).mean())
    assert measured(clip + anew, clip).psnr == pytest.approx(frames - 3.01, abs=0.1)


def test_motion_that_is_lost_or_made_up(clip: torch.Tensor) -> None:
    assert measured(clip[:1].expand_as(clip), clip).kept == 0
    assert measured(clip / 2, clip).kept == pytest.approx(0.5)
    frozen = clip[:1].expand_as(clip)
    assert measured(frozen, frozen).kept == 1
    assert measured(clip, frozen).kept == float("inf")


def test_clips_count_by_their_steps_and_stills_not_at_all(clip: torch.Tensor) -> None:
    meter = MotionMeter()
    meter.add(clip[:1], clip[:1])
    assert meter.result() is None
    meter.add(clip[:3] / 2, clip[:3])
    meter.add(clip[3:], clip[3:])
    found = meter.result()
    assert found is not None
    error = float(clip[:3].diff(dim=0).div(2).square().mean()) * 2 / 7  # 5 of 7 steps have none
    assert found.psnr == pytest.approx(10 * np.log10(4 / error), rel=1e-5)
    assert 0.5 < found.kept < 1


def test_clips_play_one_row_above_the_other(clip: torch.Tensor) -> None:
    frames = played_together([clip, clip[:2]], [-clip, -clip[:2]], scale=1)
    assert len(frames) == 9 and {frame.size for frame in frames} == {(88, 88)}
    last = np.asarray(frames[8]).astype(int)
    above, below = last[8:40, 48:80], last[48:80, 48:80]
    assert np.abs(above + below - 255).max() <= 1  # its own end, and the same turned round
    assert np.abs(np.asarray(frames[1]).astype(int)[8:40, 48:80] - above).max() == 0
