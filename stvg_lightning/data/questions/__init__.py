"""Questions about where things are, how they lie to each other and how they move, made from tracks and 3-D boxes."""

from stvg_lightning.data.questions.asking import Question
from stvg_lightning.data.questions.making import KINDS, QuestionSettings, questions_of
from stvg_lightning.data.questions.samples import KIND, truth_of_question
from stvg_lightning.data.questions.source import Place, Source, Thing

__all__ = [
    "KIND",
    "KINDS",
    "Place",
    "Question",
    "QuestionSettings",
    "Source",
    "Thing",
    "questions_of",
    "truth_of_question",
]
