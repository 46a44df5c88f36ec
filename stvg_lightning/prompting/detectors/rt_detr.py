"""RT-DETR v2 in transformers: the default detector, of COCO's 80 categories, under Apache-2.0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stvg_lightning.prompting.detections import Detection, Detector, Dtype, Frame


@dataclass(frozen=True)
class RtDetr:
    """Which RT-DETR v2; any other detector that transformers loads for object detection does as well.

    Attributes:
        name: a folder or hub name.
        dtype: precision of the weights.
    """

    name: str = "PekingU/rtdetr_v2_r101vd"
    dtype: Dtype = "float32"

    def load(self, device: str) -> Detector:
        """The detector with its weights; OSError where there are none of that name."""
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        network = AutoModelForObjectDetection.from_pretrained(self.name, dtype=getattr(torch, self.dtype))
        return _Loaded(network.to(device).eval(), AutoImageProcessor.from_pretrained(self.name))


class _Loaded:
    def __init__(self, network: Any, processor: Any) -> None:
        self._network, self._processor = network, processor

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Sequence[Detection]:
        """All of its queries, of any confidence."""
        inputs = self._processor(images=frame.picture, return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._network.device, self._network.dtype)
        outputs = self._network(pixel_values=pixels)
        size = torch.tensor([frame.picture.shape[:2]])
        found = self._processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=size)[0]
        names = self._network.config.id2label
        labels, scores, boxes = (found[name].tolist() for name in ("labels", "scores", "boxes"))
        return [
            Detection((x1, y1, x2, y2), names[label], score)
            for label, score, (x1, y1, x2, y2) in zip(labels, scores, boxes, strict=True)
        ]
