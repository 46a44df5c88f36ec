"""Shards: samples in WebDataset tar files with a manifest, written whole, streamed exactly, and looked into."""

from stvg_lightning.data.shards.building import REPORT_NAME, build_shards
from stvg_lightning.data.shards.codec import VIDEO_EXTENSIONS, BadSample, record_to_sample, sample_to_record
from stvg_lightning.data.shards.inspect import contact_sheet, describe
from stvg_lightning.data.shards.manifest import Manifest, ShardEntry, read_manifest, verify, write_manifest
from stvg_lightning.data.shards.reader import ShardFolder, ShardStream, TooManyBadSamples
from stvg_lightning.data.shards.writer import BuildReport, SkippedSample, WriteOptions, write_shards

__all__ = [
    "REPORT_NAME",
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
    "build_shards",
    "contact_sheet",
    "describe",
    "read_manifest",
    "record_to_sample",
    "sample_to_record",
    "verify",
    "write_manifest",
    "write_shards",
]
