"""Questions as truths: what a sample of the tasks choice, numeric, spatial and temporal holds of them."""

from __future__ import annotations

from dataclasses import replace

from stvg_lightning.data.questions.asking import Question
from stvg_lightning.tubes import Truth

KIND = "kind"
"""The label under which scores are told for each kind of question apart."""


def truth_of_question(question: Question, video: Truth, identity: str) -> Truth:
    """The truth of a question about a video, whose facts `video` gives."""
    bare = Truth(identity, question.query, video.fps, video.num_frames, video.width, video.height)
    return replace(
        bare,
        task=question.task,
        answer=question.answer,
        span_frames=question.span_frames,
        boxes_xyxy=question.boxes_xyxy,
        graph=dict(question.graph),
        first_frame=video.first_frame,
        labels={KIND: question.kind},
    )
