"""SAM 2.1 by its authors' own package, fed frame by frame: `pip install "stvg-lightning[sam2]"`."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stvg_lightning.prompting.detections import Frame
from stvg_lightning.prompting.tracking import MaskArray, Prompt, Tracker, TrackingSession

ENDLESS = 1 << 30
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class MetaSam2:
    """Which SAM 2, run by the package `sam2`.

    Attributes:
        name: a hub name that the package knows, or a file of weights where `config` is given; "SAM2.1-large is the
            segmentation and tracking model" (STVG-R1, section 4.1).
        config: the package's configuration of a file of weights, such as `configs/sam2.1/sam2.1_hiera_l.yaml`.
    """

    name: str = "facebook/sam2.1-hiera-large"
    config: str | None = None

    def load(self, device: str) -> Tracker:
        """The tracker with its weights.

        Raises:
            ValueError: the package is not installed.
        """
        try:
            from sam2.build_sam import build_sam2_video_predictor, build_sam2_video_predictor_hf
        except ModuleNotFoundError as error:
            raise ValueError(
                'MetaSam2 needs the package sam2: pip install "stvg-lightning[sam2]", or use TransformersSam2'
            ) from error
        if self.config is None:
            return LoadedMetaSam2(build_sam2_video_predictor_hf(self.name, device=device))
        return LoadedMetaSam2(build_sam2_video_predictor(self.config, self.name, device=device))


class LoadedMetaSam2:
    """A `SAM2VideoPredictor` that is loaded already."""

    def __init__(self, predictor: Any) -> None:
        self._predictor = predictor

    def session(self, height: int, width: int) -> TrackingSession:
        """A session that has seen nothing yet."""
        return _Session(self._predictor, (height, width))


class _Session:
    """Frames are numbered as they come, so that going backwards is no different from going forwards."""

    def __init__(self, predictor: Any, size: tuple[int, int]) -> None:
        self._predictor = predictor
        self._remembered_frames = max(predictor.num_maskmem, predictor.max_obj_ptrs_in_encoder)
        self._time = -1
        # The package opens whole videos only: it is given one black frame, then the frames that come.
        with tempfile.TemporaryDirectory() as folder, _silent():
            Image.new("RGB", size[::-1]).save(Path(folder) / "0.jpg")
            self._state = predictor.init_state(folder)
        self._newest = _NewestFrame(predictor.image_size)
        self._state |= {"images": self._newest, "num_frames": ENDLESS, "cached_features": {}}

    def advance(self, frame: Frame) -> Mapping[int, MaskArray]:
        """The masks that it follows into the next frame."""
        self._time += 1
        self._newest.take(frame.picture, self._time)
        if not self._state["obj_ids"]:
            return {}
        with _silent(), _precision(self._predictor):
            steps = self._predictor.propagate_in_video(self._state, self._time, max_frame_num_to_track=0)
            _, object_ids, logits = next(iter(steps))
        self._forget()
        return _masks(object_ids, logits)

    def add(self, prompts: Mapping[int, Prompt]) -> Mapping[int, MaskArray]:
        """The masks that it makes of boxes, or takes over."""
        shown: Mapping[int, MaskArray] = {}
        with _precision(self._predictor):
            for object_id, prompt in prompts.items():
                if isinstance(prompt, np.ndarray):
                    _, ids, logits = self._predictor.add_new_mask(self._state, self._time, object_id, prompt)
                else:
                    box = np.array(prompt, dtype=np.float32)
                    _, ids, logits = self._predictor.add_new_points_or_box(self._state, self._time, object_id, box=box)
                shown = _masks(ids, logits)
            self._predictor.propagate_in_video_preflight(self._state)  # remembers them while the frame is still held
        return {object_id: shown[object_id] for object_id in prompts}

    def _forget(self) -> None:
        """Drop the outputs that the model never looks at again."""
        first = self._time - self._remembered_frames
        tables = [table["non_cond_frame_outputs"] for table in self._state["output_dict_per_obj"].values()]
        for frames in (*tables, *self._state["frames_tracked_per_obj"].values()):
            for time in [time for time in frames if time < first]:
                del frames[time]


class _NewestFrame:
    """Stands where the package holds the frames of a video, and holds the newest alone."""

    def __init__(self, side: int) -> None:
        self._side, self._time = side, -1
        self._pixels = torch.empty(0)

    def take(self, picture: np.ndarray, time: int) -> None:
        """Prepare a frame as the package prepares the pictures of a folder."""
        resized = np.asarray(Image.fromarray(picture).resize((self._side, self._side)), dtype=np.float32) / 255
        normal = (resized - np.array(MEAN, dtype=np.float32)) / np.array(DEVIATION, dtype=np.float32)
        self._pixels, self._time = torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1))), time

    def __getitem__(self, time: int) -> torch.Tensor:
        assert time == self._time, f"frame {time} is gone: the newest is {self._time}"
        return self._pixels


def _masks(object_ids: list[int], logits: torch.Tensor) -> dict[int, MaskArray]:
    return dict(zip(object_ids, (logits > 0)[:, 0].cpu().numpy(), strict=True))


def _precision(predictor: Any) -> contextlib.AbstractContextManager[Any]:
    """Its authors run it in bfloat16 on a GPU."""
    if predictor.device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def _silent() -> contextlib.AbstractContextManager[Any]:
    """Without the package's bar for every single frame."""
    return contextlib.redirect_stderr(io.StringIO())
