"""MMSegmentation's tests run under the maintained forks and under the original packages alike."""

import mmcv_stub.sitecustomize  # noqa: F401  (under this name: Python may hold another sitecustomize)
import pytest
import torch

collect_ignore = ["mmcv_stub", "run_distributed.py", "tiny.py"]

try:
    import mmseg.models  # noqa: F401
    from mmengine.registry import init_default_scope
except ModuleNotFoundError as missing:
    # Without the toolkit every test file skips by itself, with a reason; a broken toolkit is an error.
    if missing.name is None or missing.name.split(".")[0] not in ("mmengine", "mmseg", "mmcv"):
        raise
else:
    init_default_scope("mmseg")


@pytest.fixture(scope="module", autouse=True)
def _loads_whole_checkpoints():
    """mmengine 0.10.7 loads its own checkpoints with torch.load's former default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        yield


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Seven small images of three sizes with labels of four classes, in MMSegmentation's layout."""
    import tiny

    return tiny.write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def forks():
    """Starts scripts in processes that find the toolkit imported, and nothing of RankSEG."""
    import tiny
    from forks import Forks

    parts = [f"mmseg.{name}" for name in ("apis", "datasets", "engine", "evaluation", "models", "visualization")]
    forks = Forks(["mmengine.runner", *parts], tiny.environment())
    yield forks
    forks.close()
