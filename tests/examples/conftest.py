import pytest


@pytest.fixture
def folder(tmp_path):
    """A small generated data set that a test may damage."""
    from examples.demo import microscopy

    microscopy.generate(tmp_path / "data", train=3, val=2)
    return tmp_path / "data"
