"""The recipe of the tiny model, with a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.models.loading import PROMPT_FILE, load_model
from stvg_lightning.models.tiny_architecture import SHARPNESS_OF_ATTENTION

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_recipe_of_the_tiny_model_makes_a_model(stvg: Any, tmp_path: Path) -> None:
    overlay = tmp_path / "short.yaml"
    overlay.write_text(
        f"""
        name: short
        runs: {tmp_path}
        stages:
          pretrain:
            trainings:
              - part: language
                courses:
                  - {{kind: caption, num_batches: 1, batch_size: 2, num_scenes: 4}}
                  - {{kind: video, num_batches: 1, batch_size: 2, num_scenes: 4}}
              - {{part: tower, courses: [{{kind: mixed, num_batches: 1, batch_size: 2, num_scenes: 4}}]}}
              - {{part: both, courses: [{{kind: still, num_batches: 1, batch_size: 2, num_scenes: 4}}]}}
              - {{part: reader, courses: [{{kind: video, num_batches: 1, batch_size: 2, num_scenes: 4}}]}}
        """
    )
    printed = stvg("run", ROOT / "recipes" / "tiny_pretrain.yaml", overlay)
    assert printed.code == 0, printed.err
    folder = tmp_path / "short" / "pretrain" / "model"
    model = load_model(str(folder))
    assert (folder / PROMPT_FILE).is_file()
    norms = [p for name, p in model.network.named_parameters() if name.endswith(("q_norm.weight", "k_norm.weight"))]
    assert norms and all(norm.mean() > SHARPNESS_OF_ATTENTION - 0.1 for norm in norms), "attention begins sharp"
    assert sum(p.numel() for p in model.network.parameters()) > 2_000_000
