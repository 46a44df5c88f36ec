"""Shards: samples in WebDataset tar files with a manifest, written whole, streamed exactly, and looked into."""

from stvg_lightning.data.shards.codec import VIDEO_EXTENSIONS, BadSample, record_to_sample, sample_to_record
from stvg_lightning.data.shards.inspect import contact_sheet, describe
from stvg_lightning.data.shards.manifest import Manifest, ShardEntry, read_manifest, verify, write_manifest
from stvg_lightning.data.shards.reader import ShardFolder, ShardStream, TooManyBadSamples
from stvg_lightning.data.shards.writer import BuildReport, SkippedSample, WriteOptions, write_shards

__all__ = [
    "VIDEO_EXTENSIONS",
    "BadSample",
    "BuildReport",
    "Manifest",
    "ShardEntry",
    "ShardFolder",
    "ShardStream",
    "SkippedSample",
    "TooManyBadSamples",
    "WriteOptions",
    "contact_sheet",
    "describe",
    "read_manifest",
    "record_to_sample",
    "sample_to_record",
    "verify",
    "write_manifest",
    "write_shards",
]
