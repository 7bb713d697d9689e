"""Shared set-up: one thread per process (two spinning OpenMP pools on two cores are up to 17 times slower), and a salt
and a place for name lists of its own, so that no test reads or writes the user's."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["SCANLEARN_SALT"] = "tests"
os.environ["SCANLEARN_PRIVATE"] = tempfile.mkdtemp(prefix="scanlearn-private-")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch

torch.set_num_threads(1)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["SCANLEARN_PRIVATE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
