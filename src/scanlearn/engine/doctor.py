"""What this machine has: versions, device, precision, a short measured speed, and what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time

import torch

from scanlearn.engine.device import auto_precision, default_device, environment, start_fabric

EXTRAS = {
    "nilearn": "the demo",
    "tensorboard": "curves in TensorBoard",
    "gdcm": "compressed DICOM (python-gdcm)",
    "openjpeg": "JPEG 2000 DICOM (pylibjpeg-openjpeg)",
}


def measured_speed(seconds: float = 3.0) -> tuple[str, float]:
    """(what, images/s) of forward + backward of a thin U-Net on 40x56x40 cubes, in the precision a run would use."""
    from scanlearn.networks.network import build_network

    device = default_device()
    parts = {"encoder": {"name": "unet", "width": 6}, "decoder": {"name": "unet"}}
    network = build_network(parts, spatial_dims=3, in_channels=1).to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    images = torch.rand(4, 1, 40, 56, 40, device=device).contiguous(memory_format=torch.channels_last_3d)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(auto_precision())
    done, begun = -1, 0.0
    while done < 1 or time.perf_counter() - begun < seconds:
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            network.restored(images).float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        done += 1
        if done == 0:  # the first one warms up
            begun = time.perf_counter()
    return "U-Net of 12-96 channels on 40x56x40 cubes", 4 * done / (time.perf_counter() - begun)


def examine() -> str:
    """The page that `scanlearn doctor` prints."""
    facts = environment(start_fabric())
    lines = [f"{name:12} {value}" for name, value in facts.items()]
    what, speed = measured_speed()
    lines.append(f"{'speed':12} {speed:.1f} images/s forward and backward, {what}")
    lines.append(f"{'free disk':12} {shutil.disk_usage('.').free / 1e9:.0f} GB here")
    if facts["device"] and not torch.cuda.is_available() and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        lines.append(
            "hint         set OMP_WAIT_POLICY=passive: on busy cores waiting threads otherwise cost up to 17 times"
        )
    for package, use in EXTRAS.items():
        if importlib.util.find_spec(package) is None:
            lines.append(f"{'not there':12} {package}, for {use}")
    return "\n".join(lines)
