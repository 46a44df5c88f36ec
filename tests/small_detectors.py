"""Small random detectors for tests."""

from __future__ import annotations

import torch

from stvg_lightning.data.synthetic.reading import detector_texts
from stvg_lightning.models.spatial_grounding import SpatialGrounder, SpatialGroundingModule
from stvg_lightning.models.tiny_detector_architecture import (
    build_detector_tokenizer,
    build_image_processor,
    build_tiny_detector,
)


def random_grounder(global_width: int, seed: int = 0, stirred: float = 0.0) -> SpatialGrounder:
    """A spatial grounding module upon a random tiny detector; `stirred` moves what is inserted away from nothing."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    tokenizer = build_detector_tokenizer(detector_texts())
    module = SpatialGroundingModule(build_tiny_detector(tokenizer), global_width)
    with torch.no_grad():
        for parameter in module.new_parameters():
            parameter.add_(stirred * torch.randn_like(parameter))
    torch.set_rng_state(generator_state)
    return SpatialGrounder(module.eval(), tokenizer, build_image_processor())
