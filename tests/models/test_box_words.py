"""Words for answers in boxes."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from stvg_lightning.models.box_words import LEADS, add_box_words, fixed_directions, place_code, words_of
from stvg_lightning.models.loading import VideoLanguageModel

ANSWER = "<time> 0 - 2 </time> <think_bbox> 0. [27, 29, 44, 46], 1. [5, 25, 64, 42] </think_bbox>"


@pytest.fixture
def taught(models: dict[str, VideoLanguageModel]) -> VideoLanguageModel:
    """The random model with words for boxes."""
    model = deepcopy(models["qwen3_vl"])
    model.network.resize_token_embeddings(1024)
    add_box_words(model.network, model.encoder.processor.tokenizer, 64, [" corners"])
    return model


def test_a_coordinate_is_one_token_and_texts_stay_as_they_are(
    models: dict[str, VideoLanguageModel], taught: VideoLanguageModel
) -> None:
    before, after = (each.encoder.processor.tokenizer for each in (models["qwen3_vl"], taught))
    token_ids = after(ANSWER)["input_ids"]
    assert after.decode(token_ids) == ANSWER
    assert after.convert_ids_to_tokens(token_ids)[-5:-2] == [", 25", ", 64", ", 42"]
    assert 2 * len(token_ids) < len(before(ANSWER)["input_ids"])
    for text in ("It moves left from 0.25 to 1.50.", "The red circle.", "<0.6 seconds>"):
        assert after(text)["input_ids"] == before(text)["input_ids"]


def test_neighbouring_coordinates_have_like_embeddings(taught: VideoLanguageModel) -> None:
    tokenizer, embeddings = taught.encoder.processor.tokenizer, taught.network.get_input_embeddings().weight.detach()
    for lead in LEADS:
        rows = embeddings[[tokenizer.convert_tokens_to_ids(f"{lead}{pixel}") for pixel in range(65)]]
        likeness = torch.nn.functional.cosine_similarity(rows[32], rows)
        assert likeness.argsort(descending=True)[:3].sort().values.tolist() == [31, 32, 33]
        assert likeness[[0, 64]].max() < 0.5


def test_the_code_by_hand_and_its_directions() -> None:
    code = place_code(torch.tensor([0.0, 0.65]))
    assert torch.allclose(code[0], torch.tensor([1.0] * 5 + [0.0] * 5) / 5**0.5, atol=1e-6)
    assert torch.allclose(code[1], torch.tensor([-1.0, 1, -1, 1, -1] + [0.0] * 5) / 5**0.5, atol=1e-6)
    directions = fixed_directions(48, 40, seed=3)
    assert torch.allclose(directions @ directions.T, torch.eye(40), atol=1e-5)


def test_more_words_than_rows_are_refused(models: dict[str, VideoLanguageModel]) -> None:
    model = deepcopy(models["qwen3_vl"])
    with pytest.raises(ValueError, match="do not fit in a vocabulary of"):
        add_box_words(model.network, model.encoder.processor.tokenizer, 4096, [])


def test_words_that_a_tokenizer_takes_apart(models: dict[str, VideoLanguageModel]) -> None:
    tokenizer = models["qwen3_vl"].encoder.processor.tokenizer
    assert words_of(tokenizer, ["the crocodile\nmoves, the crocodile"]) == [" crocodile"]
