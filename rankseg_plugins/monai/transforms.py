"""The transform for one image and that for dictionaries, as MONAI has them of ``AsDiscrete``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from rankseg_plugins.calibration.deciding import as_decoder, decide
from rankseg_plugins.core.inputs.options import read_integer
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice, class_masks, plain
from rankseg_plugins.scores.checks import naming

#: What decides, in the forms that an adapter takes.
Decoder = torch.nn.Module | str | PathLike[str]


class RankSEG(Transform):
    """Decide on one image, in the place of ``AsDiscrete(argmax=True)`` or ``AsDiscrete(threshold=0.5)``.

    As all transforms of MONAI it takes an image without a batch, channels first, and gives one: a MetaTensor keeps its
    meta data and the operations that ``Invertd`` undoes.

    Args:
        decoder: the decision, by default ``rankseg_plugins.RankSEG()``; another decoder of this package or callable on
            probabilities (1, C, *spatial), or the path of a ``decoder.json`` (what ``rankseg_plugins.tuning.tune``
            found).
        activation: what makes probabilities of the image: ``"identity"`` where they are some already, as behind
            ``Activationsd`` and behind ``Invertd`` of them; ``"softmax"``, ``"sigmoid"`` or ``"normalize"`` for the
            output of a network. The default takes nothing for granted: logits are refused by it.
        to_onehot: C; then labels become masks, as metrics of MONAI want them. A pixel without a class is in none.
        dtype: of the result; MONAI's own transforms give float32.

    Shape:
        - Input: (C, *spatial), floating point, a tensor or an array.
        - Output: labels (1, *spatial), or masks (C, *spatial) of zeros and ones: with ``to_onehot``, and of a decoder
          whose ``output_mode`` is ``"multilabel"``.

    Raises:
        TypeError: for an option of the wrong type, or an image that is not floating point.
        ValueError: for an option out of range, an image that is no probabilities, or one that does not fit the decoder.
        OSError: if the file of the decoder cannot be read.

    Example:
        >>> import rankseg_plugins
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> RankSEG(rankseg_plugins.RankSEG(metric="iou"))(probs)
        metatensor([[0., 0., 1.]])
        >>> RankSEG(activation="softmax", to_onehot=2, dtype=torch.uint8)(probs.log()).shape
        torch.Size([2, 3])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  # as MONAI declares it

    def __init__(
        self,
        decoder: Decoder | None = None,
        *,
        activation: str = "identity",
        to_onehot: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        if isinstance(decoder, RankSEG):
            raise TypeError("decoder must decide on batches: give rankseg_plugins.RankSEG, not the transform")
        self.to_onehot = None if to_onehot is None else read_integer("to_onehot", to_onehot, least=1)
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"dtype must be a torch.dtype, got {dtype!r}")
        self.decoder = as_decoder(decoder, self.to_onehot)
        if self.to_onehot is not None and getattr(self.decoder, "output_mode", "multiclass") == "multilabel":
            raise ValueError("to_onehot makes masks of labels: leave it out for a decoder that gives masks already")
        self.activation, self.dtype = activation, dtype

    def __call__(self, img: Any) -> Any:
        """Decide on an image; see the class."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        if isinstance(img, MetaTensor) and img.is_batch:
            raise ValueError(f"transforms take one image, got a batch {tuple(img.shape)}: decollate it first")
        if self.to_onehot not in (None, len(img)):
            raise ValueError(f"to_onehot={self.to_onehot}, but the image has {len(img)} channels")
        # Of labels, the dimension of the batch is then that of the channel.
        decided = decide(self.decoder, plain(img).unsqueeze(0), self.activation)
        masks = decided if self.to_onehot is None else class_masks(decided, self.to_onehot)
        return convert_to_dst_type(masks[0] if masks.ndim > img.ndim else masks, img, dtype=self.dtype)[0]


class RankSEGd(MapTransform):
    """``RankSEG`` for the images of a dictionary, in the place of ``AsDiscreted``.

    Args:
        keys: of the images.
        decoder: see ``RankSEG``; one for all keys, or a sequence of one for each.
        activation: likewise.
        to_onehot: likewise.
        dtype: likewise.
        allow_missing_keys: whether a dictionary may lack a key.

    Raises:
        KeyError: for a dictionary without a key.
        TypeError: see ``RankSEG``; the message names the key.
        ValueError: likewise, and for a sequence that is not as long as ``keys``.
        OSError: likewise.

    Example:
        >>> import rankseg_plugins
        >>> decide = RankSEGd("pred", rankseg_plugins.RankSEG(pruning_prob=0.1), activation="softmax")
        >>> decide({"pred": torch.zeros(2, 4, 4)})["pred"].shape
        torch.Size([1, 4, 4])
    """

    backend = RankSEG.backend

    def __init__(
        self,
        keys: Any,
        decoder: Decoder | Sequence[Decoder] | None = None,
        *,
        activation: str | Sequence[str] = "identity",
        to_onehot: int | Sequence[int | None] | None = None,
        dtype: torch.dtype | Sequence[torch.dtype] = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        options = {"decoder": decoder, "activation": activation, "to_onehot": to_onehot, "dtype": dtype}
        by_key = zip(*(self._by_key(*option) for option in options.items()), strict=True)
        self.transforms = [RankSEG(**dict(zip(options, values, strict=True))) for values in by_key]

    def _by_key(self, name: str, value: Any) -> Sequence[Any]:
        if not isinstance(value, (list, tuple)):
            return [value] * len(self.keys)
        if len(value) != len(self.keys):
            raise ValueError(f"{name} must be one for all keys or one for each of {len(self.keys)}, got {len(value)}")
        return value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decide on the images of a dictionary; see the class."""
        found = dict(data)
        for key, transform in self.key_iterator(found, self.transforms):
            with naming(f"key {key!r}"):
                found[key] = transform(found[key])
        return found


RankSEGD = RankSEGDict = RankSEGd
