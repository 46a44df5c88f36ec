"""Floor 2: object-centric visual prompts: things found, followed, numbered, and drawn into clips as they are loaded."""

from stvg_lightning.prompting.detections import (
    Detection,
    DetectionFilter,
    Detector,
    DetectorChoice,
    Frame,
)
from stvg_lightning.prompting.identities import ReIdentification, merge_identities
from stvg_lightning.prompting.instances import Judgement, NewInstanceRule
from stvg_lightning.prompting.markers import MarkedClip, Markers, draw_markers, large_enough, marked_tubes
from stvg_lightning.prompting.pipeline import FrameSource, ObjectTracking, track_objects
from stvg_lightning.prompting.tracking import Prompt, Tracker, TrackerChoice, TrackingSession
from stvg_lightning.prompting.tracks import MaskTrack, tracks_from_json, tracks_to_json

__all__ = [
    "Detection",
    "DetectionFilter",
    "Detector",
    "DetectorChoice",
    "Frame",
    "FrameSource",
    "Judgement",
    "MarkedClip",
    "Markers",
    "MaskTrack",
    "NewInstanceRule",
    "ObjectTracking",
    "Prompt",
    "ReIdentification",
    "Tracker",
    "TrackerChoice",
    "TrackingSession",
    "draw_markers",
    "large_enough",
    "marked_tubes",
    "merge_identities",
    "track_objects",
    "tracks_from_json",
    "tracks_to_json",
]
