"""Hugging Face Transformers adapter: RankSEG behind the semantic post-processing of an image processor.

``docs/transformers.md`` lists which network gives what, and how probabilities are made of it.
"""

from rankseg_plugins._imports import require

require("transformers", extra="transformers")

from rankseg_plugins.transformers.post_processing import (  # noqa: E402
    RankSEGSemanticPostProcessor,
    post_process_semantic_segmentation,
)

__all__ = ["RankSEGSemanticPostProcessor", "post_process_semantic_segmentation"]
