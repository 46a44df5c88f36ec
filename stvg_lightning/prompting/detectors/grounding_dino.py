"""Grounding DINO in transformers: a detector of whatever a list of words names, for things outside COCO."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stvg_lightning.prompting.detections import Detection, Detector, Dtype, Frame


@dataclass(frozen=True)
class GroundingDino:
    """Which Grounding DINO, and what it looks for.

    Attributes:
        words: the kinds of things, such as `[person, fish]`; each is a category.
        name: a folder or hub name.
        text_threshold: in [0, 1]; words below it are not said of a box.
        dtype: precision of the weights.

    Raises:
        ValueError: no words, or a word that is empty or holds a full stop, which parts words.
    """

    words: tuple[str, ...]
    name: str = "IDEA-Research/grounding-dino-base"
    text_threshold: float = 0.25
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if not self.words or any(not word.strip() or "." in word for word in self.words):
            raise ValueError(f"words must be at least one, none empty or with a full stop, not {list(self.words)}")
        if not 0 <= self.text_threshold <= 1:
            raise ValueError(f"text_threshold must lie in [0, 1], not {self.text_threshold}")

    def load(self, device: str) -> Detector:
        """The detector with its weights; OSError where there are none of that name."""
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        network = AutoModelForZeroShotObjectDetection.from_pretrained(self.name, dtype=getattr(torch, self.dtype))
        return _Loaded(self, network.to(device).eval(), AutoProcessor.from_pretrained(self.name))


class _Loaded:
    def __init__(self, choice: GroundingDino, network: Any, processor: Any) -> None:
        self._choice, self._network, self._processor = choice, network, processor
        self._text = ". ".join(word.strip().lower() for word in choice.words) + "."

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Sequence[Detection]:
        """All of its queries of which one of the words can be said, of any confidence."""
        inputs = self._processor(images=frame.picture, text=self._text, return_tensors="pt").to(self._network.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._network.dtype)
        found = self._processor.post_process_grounded_object_detection(
            self._network(**inputs),
            inputs["input_ids"],
            threshold=0.0,
            text_threshold=self._choice.text_threshold,
            target_sizes=[frame.picture.shape[:2]],
        )[0]
        scores, boxes = found["scores"].tolist(), found["boxes"].tolist()
        detections = []
        for label, score, (x1, y1, x2, y2) in zip(found["text_labels"], scores, boxes, strict=True):
            word = said_word(label, self._choice.words)
            if word is not None:
                detections.append(Detection((x1, y1, x2, y2), word, score))
        return detections


def said_word(label: str, words: Sequence[str]) -> str | None:
    """The longest of the words that a box's label holds whole, of equal ones the first; None where it holds none.

    Args:
        label: pieces of the text, as the tokenizer puts them: `##` before a piece of a word whose beginning is missing,
            blanks around hyphens.
        words: each of one word or several, which must follow each other in the label.

    Example:
        >>> said_word("dog person", ("dog", "person")), said_word("woman", ("man", "woman")), said_word("man", ("m",))
        ('person', 'woman', None)
    """
    said = _between_blanks(label)
    longest_first = sorted(words, key=len, reverse=True)
    return next((word for word in longest_first if word.strip() and _between_blanks(word) in said), None)


def _between_blanks(text: str) -> str:
    """Its words and signs in lower case, a blank around each."""
    return " ".join(("", *re.findall(r"#*\w+|[^\w\s]", text.lower()), ""))
