"""Where the ready configs lie."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def config_path(name: str) -> str:
    """Path of a ready config, or of one of their bases, as ``Config.fromfile`` and ``_base_`` take it.

    MMEngine knows the packages of OpenMMLab alone by name: ``mmseg::...`` works, and ``rankseg_plugins::...`` does not.

    Args:
        name: the config, from the folder of configs on, such as ``"_base_/rankseg_dice.py"``; ``"."`` is the folder.

    Raises:
        FileNotFoundError: if there is no such config; it names the folder in which to look.

    Example:
        >>> from mmengine.config import Config
        >>> Config.fromfile(config_path("_base_/rankseg_iou.py")).rankseg
        {'metric': 'iou'}
    """
    installed = PACKAGE / ".mim" / "configs"
    # In a checkout they lie beside the package.
    folder = installed if installed.is_dir() else PACKAGE.parent / "configs"
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"there is no config {name!r} in {folder}")
    return str(path)
