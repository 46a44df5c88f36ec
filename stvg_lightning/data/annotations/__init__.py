"""Readers of annotations: each turns a data set's own files into samples, without decoding a video.

A format is a module with `read(annotations, videos, report, ...)`, which gives samples one after another and tells the
report what it changed and dropped; further arguments are the format's own keys. `stvg shards build --format NAME` finds
it by its name here, or as a dotted path or `file.py:name` anywhere.
"""

from stvg_lightning.data.annotations.jsonl import read_jsonl_samples, tube_of_masks
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.annotations.vote import count_votes, elected, vote_object_id
from stvg_lightning.data.report import Dropped, Report

__all__ = [
    "Dropped",
    "Report",
    "VideoFolder",
    "count_votes",
    "elected",
    "read_jsonl_samples",
    "tube_of_masks",
    "vote_object_id",
]
