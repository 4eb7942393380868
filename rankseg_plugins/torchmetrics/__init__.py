"""TorchMetrics adapter: decode with RankSEG, then score with the metrics you already have.

What :class:`RankSEGWrapper` hands to a metric, and who leaves out the pixels of ``ignore_index``. *Decoders* are
``multiclass`` (``RankSEG()``, one label per pixel), ``multilabel`` (``RankSEG(output_mode="multilabel")``, masks
that may overlap) and ``binary`` (the same on one channel). C is the number of classes.

==============================================================  ============================  ======  ============
Metric                                                          Decoders                      Gets    ignore_index
==============================================================  ============================  ======  ============
``segmentation.MeanIoU(num_classes=C)``                         multiclass multilabel         masks   wrapper
``segmentation.MeanIoU(num_classes=C, input_format="index")``   multiclass                    labels  as masks
``segmentation.DiceScore(num_classes=C)``                       multiclass multilabel         masks   wrapper
``segmentation.GeneralizedDiceScore(num_classes=C)``            multiclass multilabel         masks   wrapper
``segmentation.HausdorffDistance(num_classes=C)``               multiclass multilabel         masks   wrapper
``segmentation.DiceScore(num_classes=1)``                       binary                        masks   wrapper
``classification.JaccardIndex("multiclass", num_classes=C)``    multiclass                    labels  metric
``classification.F1Score("multiclass", num_classes=C)``         multiclass                    labels  metric
``classification.Accuracy("multiclass", num_classes=C)``        multiclass                    labels  metric
``classification.MulticlassConfusionMatrix(num_classes=C)``     multiclass                    labels  metric
``classification.JaccardIndex("multilabel", num_labels=C)``     multiclass multilabel         masks   metric
``classification.F1Score("multilabel", num_labels=C)``          multiclass multilabel         masks   metric
``classification.MultilabelConfusionMatrix(num_labels=C)``      multiclass multilabel         masks   metric
``classification.JaccardIndex("binary")``                       binary                        labels  metric
``classification.F1Score("binary")``                            binary                        labels  metric
``classification.BinaryConfusionMatrix()``                      binary                        labels  metric
``MultiLevelScore(num_classes=C)``                              multiclass multilabel         either  metric
``MultiLevelScore(num_classes=1)``                              binary                        either  metric
==============================================================  ============================  ======  ============

``as masks``: where pixels must be left out, the wrapper sets the ``input_format`` of the metric to ``"one-hot"``. A
metric that is neither of TorchMetrics nor :class:`MultiLevelScore` gets what the decoder gives. Metrics of
probabilities (AUROC, calibration error) do not fit: a decision has none. ``HausdorffDistance`` of TorchMetrics 1.9 is
for planes only, and fails on images that are higher than wide.
"""

from rankseg_plugins._imports import require

require("torchmetrics", extra="torchmetrics")

from rankseg_plugins.torchmetrics.multi_level import MultiLevelScore, multi_level_score  # noqa: E402
from rankseg_plugins.torchmetrics.wrapper import RankSEGWrapper  # noqa: E402

__all__ = ["MultiLevelScore", "RankSEGWrapper", "multi_level_score"]
