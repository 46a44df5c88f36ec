"""Floor 1: the languages models answer in, each with `instruction`, `write` and `read`."""

from stvg_lightning.answers import choice, graph, id_span, time_pair, timesteps
from stvg_lightning.answers.answer import Answer, BoxLists
from stvg_lightning.answers.box_chain import BoxChain
from stvg_lightning.answers.coordinates import Coordinates
from stvg_lightning.answers.frame_box import FrameBox
from stvg_lightning.answers.graph import GraphAnswers
from stvg_lightning.answers.labels import MARKER_KINDS, MarkerKind, label_of, object_id_of
from stvg_lightning.answers.language import AnswerLanguage
from stvg_lightning.answers.view import Frames, View

__all__ = [
    "MARKER_KINDS",
    "Answer",
    "AnswerLanguage",
    "BoxChain",
    "BoxLists",
    "Coordinates",
    "FrameBox",
    "Frames",
    "GraphAnswers",
    "MarkerKind",
    "View",
    "choice",
    "graph",
    "id_span",
    "label_of",
    "object_id_of",
    "time_pair",
    "timesteps",
]
