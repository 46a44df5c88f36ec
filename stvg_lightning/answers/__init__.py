"""Floor 1: the languages models answer in, one module each, with `instruction`, `write` and `read`."""

from stvg_lightning.answers import id_span
from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.labels import MARKER_KINDS, MarkerKind, label_of, object_id_of

__all__ = ["MARKER_KINDS", "Answer", "MarkerKind", "id_span", "label_of", "object_id_of"]
