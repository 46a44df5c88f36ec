"""Readers of annotations: each turns a data set's own files into samples, without opening a video."""

from stvg_lightning.data.annotations.jsonl import read_jsonl_samples, tube_of_masks
from stvg_lightning.data.annotations.vote import vote_object_id

__all__ = ["read_jsonl_samples", "tube_of_masks", "vote_object_id"]
