"""The machine and the versions that a race ran on, for its protocol."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["differences", "environment"]

_PACKAGES = ("steepest", "torch", "numpy", "scipy", "safetensors")
# Results may differ in the last bits where one of these does.
_MATTERS = ("torch", "threads", "processor", "device_name")


def environment(device: str) -> dict[str, Any]:
    """Versions and hardware as plain values."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": None,
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    if torch.device(device).type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
    return facts


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed so that a resumed race may differ in the last bits from an uninterrupted.

    >>> differences({"torch": "2.13.0", "threads": 2}, {"torch": "2.13.0", "threads": 4})
    ['threads was 2, is 4']
    """
    return [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        for key in _MATTERS
        if then.get(key) != now.get(key)
    ]


def _processor() -> str:
    """The model's name; `platform.processor` is empty on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
