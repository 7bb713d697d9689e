import pytest
from killed import Trainer


@pytest.fixture(scope="module")
def train():
    with Trainer() as trainer:
        yield trainer
