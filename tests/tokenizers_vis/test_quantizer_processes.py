"""VQ in two processes with half a batch each does what one process does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from mmgen.tokenizers_vis.quantizers import VQ, VQConfig

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, torch, torch.distributed as dist
from mmgen.tokenizers_vis.quantizers import VQ, VQConfig
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
quantizer = VQ(VQConfig(codebook_size=12, channels=3, update="ema", revive_after=1))
start = torch.load(f"{folder}/start.pt", weights_only=True)
quantizer.load_state_dict(start["state"])
z = start["z"].chunk(2)[rank]
quantizer(z)
averaged = {name: value.clone() for name, value in quantizer.state_dict().items()}
revived = len(quantizer.revive(z, torch.Generator().manual_seed(rank)))
end = {"averaged": averaged, "revived": revived, "state": quantizer.state_dict()}
torch.save(end, f"{folder}/end{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantizer = VQ(VQConfig(codebook_size=12, channels=3, update="ema", revive_after=1))
    quantizer.initialise(torch.randn(30, 3), torch.Generator().manual_seed(0))
    quantizer.codebook[8:] += 100  # idle codes
    z = torch.randn(40, 3)
    torch.save({"state": quantizer.state_dict(), "z": z}, tmp_path / "start.pt")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path), str(rank)], env=environment)
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    ends = [torch.load(tmp_path / f"end{rank}.pt", weights_only=True) for rank in (0, 1)]
    quantizer(z)
    for name, value in quantizer.state_dict().items():
        for end in ends:
            torch.testing.assert_close(end["averaged"][name], value)
        assert torch.equal(ends[0]["state"][name], ends[1]["state"][name])
    assert ends[0]["revived"] == ends[1]["revived"] >= 4
