"""The recipe of the tiny model, with a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stvg_lightning.models.loading import PROMPT_FILE, load_encoder, load_model
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


def test_the_recipe_of_the_model_that_answers_in_boxes_goes_on_from_the_bundled_one(stvg: Any, tmp_path: Path) -> None:
    overlay = tmp_path / "short.yaml"
    overlay.write_text(
        f"""
        name: short
        runs: {tmp_path}
        stages:
          pretrain:
            trainings:
              - part: reader
                courses: [{{kind: video, num_batches: 1, batch_size: 2, num_scenes: 4, bare_share: 1.0}}]
              - part: tower
                courses: [{{kind: mixed, num_batches: 1, batch_size: 2, num_scenes: 4, bare_share: 1.0}}]
        """
    )
    printed = stvg("run", ROOT / "recipes" / "tiny_boxes_pretrain.yaml", overlay)
    assert printed.code == 0, printed.err
    model, bundled = load_model(str(tmp_path / "short" / "pretrain" / "model")), load_model("tiny")
    known = len(bundled.encoder.processor.tokenizer)
    words, before = (each.network.get_input_embeddings().weight for each in (model, bundled))
    assert torch.equal(words[:known], before[:known]), "a reader's words stay"
    tokenizer, shipped = model.encoder.processor.tokenizer, load_encoder("tiny_boxes").processor.tokenizer
    assert len(tokenizer) > known and ", 64" in tokenizer.get_vocab()
    assert set(tokenizer.get_vocab()) == set(shipped.get_vocab())
