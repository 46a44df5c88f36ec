"""YOLOv12-x by ultralytics: the paper's detector. Its licence is AGPL-3.0, so it is an extra that you install yourself.

`pip install "stvg-lightning[yolo]"`; nothing of it is imported unless a recipe names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stvg_lightning.prompting.detections import Detection, Detector, Frame

SMALLEST_CONFIDENCE = 0.01
"""Below it YOLO's thousands of anchors are noise."""


@dataclass(frozen=True)
class Yolo:
    """Which YOLO.

    Attributes:
        name: a file of weights, or a name that ultralytics knows; "YOLOv12-x" (STVG-R1, section 4.1).
        image_size: the longer side, in pixels, to which frames are resized.
    """

    name: str = "yolo12x.pt"
    image_size: int = 640

    def load(self, device: str) -> Detector:
        """The detector with its weights.

        Raises:
            ValueError: ultralytics is not installed.
        """
        try:
            from ultralytics import YOLO
        except ModuleNotFoundError as error:
            raise ValueError(
                'Yolo needs ultralytics, whose licence is AGPL-3.0: pip install "stvg-lightning[yolo]", or use RtDetr'
            ) from error
        return _Loaded(YOLO(self.name), device, self.image_size)


class _Loaded:
    def __init__(self, network: Any, device: str, image_size: int) -> None:
        self._network, self._device, self._image_size = network, device, image_size

    def __call__(self, frame: Frame) -> Sequence[Detection]:
        """What is left after its own suppression of doubles."""
        picture = np.ascontiguousarray(frame.picture[..., ::-1])  # it takes arrays for BGR
        options = {"conf": SMALLEST_CONFIDENCE, "imgsz": self._image_size, "device": self._device, "verbose": False}
        found = self._network.predict(picture, **options)[0]
        labels, scores, boxes = (getattr(found.boxes, name).tolist() for name in ("cls", "conf", "xyxy"))
        return [
            Detection((x1, y1, x2, y2), found.names[int(label)], score)
            for label, score, (x1, y1, x2, y2) in zip(labels, scores, boxes, strict=True)
        ]
