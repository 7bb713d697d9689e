import pytest


@pytest.fixture
def folder(tmp_path):
    """Make empty files of these names; gives the folder they lie in."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make
