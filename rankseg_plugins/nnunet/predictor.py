"""nnU-Net's predictor with another decision, which nnU-Net leaves to the label manager of its plans."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.helpers import softmax_helper_dim0
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from rankseg_plugins.calibration.deciding import as_decoder, decide
from rankseg_plugins.core import RankSEG

#: What nnU-Net makes probabilities with, under the names here; from others these are made first.
_ACTIVATIONS = {softmax_helper_dim0: "softmax", torch.sigmoid: "sigmoid"}


class RankSEGPredictor(nnUNetPredictor):
    """Predict as ``nnUNetPredictor`` does, with labels that RankSEG decides on.

    Preprocessing, windows, mirroring, resampling and files are nnU-Net's, and so are the processes that write them: the
    decision travels there with the plans. What is decided on is the crop around the image, as in nnU-Net.

    Args:
        *args: of ``nnUNetPredictor``.
        decoder: the decision; None takes RankSEG's defaults. Otherwise a decoder of this package or another callable on
            probabilities (1, C, *spatial), or the path of a ``decoder.json`` (what ``rankseg_plugins.tuning.tune``
            found). A data set with regions needs one of ``output_mode="multilabel"``, which decides on each region;
            nnU-Net's ``regions_class_order`` then says which label a pixel of several gets.
        **kwargs: of ``nnUNetPredictor``.

    Raises:
        TypeError: for a decoder of the wrong type.
        ValueError: for a file that holds none; when the trained model is loaded, for a decoder that does not fit its
            labels, or plans with a label manager of their own.
        OSError: if the file of the decoder cannot be read.

    Example:
        >>> predictor = RankSEGPredictor(device=torch.device("cpu"), decoder=RankSEG("dice"))  # doctest: +ELLIPSIS
        perform_everything_on_device=True is only supported for cuda devices! ...
        >>> predictor.decoder.metric
        'dice'
    """

    def __init__(self, *args: Any, decoder: torch.nn.Module | str | PathLike[str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decoder = None if decoder is None else as_decoder(decoder)

    def initialize_from_trained_model_folder(self, *args: Any, **kwargs: Any) -> None:
        """As nnU-Net."""
        super().initialize_from_trained_model_folder(*args, **kwargs)
        self._use_decoder()

    def manual_initialization(self, *args: Any, **kwargs: Any) -> None:
        """As nnU-Net."""
        super().manual_initialization(*args, **kwargs)
        self._use_decoder()

    def _use_decoder(self) -> None:
        plans: PlansManager = getattr(self, "plans_manager")  # noqa: B009  # of no type in nnU-Net
        self.plans_manager = _Plans(plans.plans, self.decoder)
        self.label_manager = self.plans_manager.get_label_manager(self.dataset_json)


class _Plans(PlansManager):
    """The plans of a trained model, which travel to every process that decides.

    Args:
        plans: as nnU-Net reads them.
        decoder: see ``RankSEGPredictor``.
    """

    def __init__(self, plans: dict[str, Any], decoder: Any) -> None:
        super().__init__(plans)
        self.decoder = decoder

    def get_label_manager(self, dataset_json: dict[str, Any], **kwargs: Any) -> LabelManager:
        """That of the data set, with this decision."""
        if self.label_manager_class is not LabelManager:
            raise ValueError(
                f"the plans name a label manager of their own, {self.label_manager_class.__name__}, whose decision "
                "would be lost; RankSEGPredictor takes plans with nnU-Net's LabelManager"
            )
        order = dataset_json.get("regions_class_order")
        return RankSEGLabelManager(dataset_json["labels"], order, decoder=self.decoder, **kwargs)


class RankSEGLabelManager(LabelManager):
    """nnU-Net's label manager with another decision.

    Args:
        *args: of ``LabelManager``.
        decoder: see ``RankSEGPredictor``.
        **kwargs: of ``LabelManager``.

    Raises:
        ValueError: for a decoder that does not fit the labels.
    """

    def __init__(self, *args: Any, decoder: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mode = "multilabel" if self.has_regions else "multiclass"
        decoder = RankSEG(output_mode=mode) if decoder is None else decoder
        if getattr(decoder, "output_mode", mode) != mode:
            what = "regions, which overlap" if self.has_regions else "labels, which do not overlap"
            raise ValueError(f"the data set has {what}: decoder must have output_mode={mode!r}, got {decoder!r}")
        if getattr(decoder, "unassigned_policy", None) == "void":
            raise ValueError("nnU-Net has no label for pixels without a class: leave out unassigned_policy='void'")
        self.decoder = as_decoder(decoder, self.num_segmentation_heads)

    def convert_logits_to_segmentation(self, predicted_logits: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """Decide on the output of the network (C, x, y(, z)); the result is of the kind of the input."""
        activation = _ACTIVATIONS.get(self.inference_nonlin)
        if activation is not None:
            return self._decide(predicted_logits, activation)
        decided = self._decide(self.apply_inference_nonlin(predicted_logits), "identity")
        return np.asarray(decided) if isinstance(predicted_logits, np.ndarray) else decided

    def convert_probabilities_to_segmentation(
        self, predicted_probabilities: np.ndarray | Tensor
    ) -> np.ndarray | Tensor:
        """Likewise, on probabilities."""
        return self._decide(predicted_probabilities, "identity")

    @torch.inference_mode()
    def _decide(self, given: np.ndarray | Tensor, activation: str) -> np.ndarray | Tensor:
        values = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
        decided = decide(self.decoder, values.unsqueeze(0), activation).squeeze(0)
        if self.has_regions:
            labels = torch.zeros(values.shape[1:], dtype=torch.int16, device=values.device)
            for mask, label in zip(decided, self.regions_class_order, strict=True):
                labels[mask] = label
            decided = labels
        return decided.numpy() if isinstance(given, np.ndarray) else decided
