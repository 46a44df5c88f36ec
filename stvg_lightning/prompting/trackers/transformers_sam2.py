"""SAM 2.1 in transformers, fed frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stvg_lightning.prompting.detections import Dtype, Frame
from stvg_lightning.prompting.tracking import MaskArray, Prompt, Tracker, TrackingSession


@dataclass(frozen=True)
class TransformersSam2:
    """Which SAM 2, run by transformers' `Sam2VideoModel`.

    Attributes:
        name: a folder or hub name; "SAM2.1-large is the segmentation and tracking model" (STVG-R1, section 4.1).
        dtype: precision of the weights.
    """

    name: str = "facebook/sam2.1-hiera-large"
    dtype: Dtype = "float32"

    def load(self, device: str) -> Tracker:
        """The tracker with its weights; OSError where there are none of that name."""
        from transformers import Sam2VideoModel, Sam2VideoProcessor

        network = Sam2VideoModel.from_pretrained(self.name, dtype=getattr(torch, self.dtype))
        return _Loaded(network.to(device).eval(), Sam2VideoProcessor.from_pretrained(self.name))


class _Loaded:
    def __init__(self, network: Any, processor: Any) -> None:
        self._network, self._processor = network, processor

    def session(self, height: int, width: int) -> TrackingSession:
        """A session that has seen nothing yet."""
        return _Session(self._network, self._processor, (height, width))


class _Session:
    """Frames are numbered as they come, so that going backwards is no different from going forwards."""

    def __init__(self, network: Any, processor: Any, size: tuple[int, int]) -> None:
        self._network, self._processor, self._size = network, processor, size
        device = network.device
        self._state = processor.init_video_session(inference_device=device, dtype=network.dtype)
        config = network.config
        self._remembered_frames = max(config.num_maskmem, config.max_object_pointers_in_encoder)
        self._time = -1
        self._pixels: torch.Tensor | None = None

    def advance(self, frame: Frame) -> Mapping[int, MaskArray]:
        """The masks that it follows into the next frame."""
        self._time += 1
        inputs = self._processor(images=frame.picture, return_tensors="pt")
        self._pixels = inputs["pixel_values"][0].to(self._network.device, self._network.dtype)
        if not self._state.obj_ids:
            return {}
        masks = self._run()
        self._forget()
        return masks

    def add(self, prompts: Mapping[int, Prompt]) -> Mapping[int, MaskArray]:
        """The masks that it makes of boxes, or takes over."""
        shown: dict[int, MaskArray] = {}
        followed = self._outputs_of_this_frame()
        masks = {object_id: prompt for object_id, prompt in prompts.items() if isinstance(prompt, np.ndarray)}
        boxes = {object_id: prompt for object_id, prompt in prompts.items() if object_id not in masks}
        if masks:
            self._show(masks, input_masks=[torch.from_numpy(mask) for mask in masks.values()])
            shown.update(self._run())
        if boxes:
            self._show(boxes, input_boxes=[[list(box) for box in boxes.values()]], original_size=self._size)
            shown.update(self._run())
        for outputs, own in followed:  # the model has followed all things into this frame once more, less exactly
            outputs[self._time] = own
        return {object_id: shown[object_id] for object_id in prompts}

    def _show(self, prompts: Mapping[int, Any], **inputs: Any) -> None:
        self._processor.add_inputs_to_inference_session(self._state, self._time, list(prompts), **inputs)

    @torch.inference_mode()
    def _run(self) -> dict[int, MaskArray]:
        # The frame is given each time: without it the model takes the few frames that are still held for the video.
        outputs = self._network(self._state, frame=self._pixels, frame_idx=self._time)
        size = [list(self._size)]
        logits = self._processor.post_process_masks([outputs.pred_masks.float()], size, binarize=False)[0]
        masks = (logits > 0)[:, 0].cpu().numpy()
        return dict(zip(outputs.object_ids, masks, strict=True))

    def _outputs_of_this_frame(self) -> list[tuple[dict[int, Any], Any]]:
        """For each thing that was followed into this frame, its table of outputs, and that of this frame."""
        tables = [table["non_cond_frame_outputs"] for table in self._state.output_dict_per_obj.values()]
        return [(outputs, outputs[self._time]) for outputs in tables if self._time in outputs]

    def _forget(self) -> None:
        """Drop the frames and outputs that the model never looks at again."""
        state, first = self._state, self._time - self._remembered_frames
        state.processed_frames = {self._time: state.processed_frames[self._time]}
        for table in state.output_dict_per_obj.values():
            _drop_before(table["non_cond_frame_outputs"], first)
        for frames in state.frames_tracked_per_obj.values():
            _drop_before(frames, first)


def _drop_before(table: dict[int, Any], first: int) -> None:
    for time in [time for time in table if time < first]:
        del table[time]
