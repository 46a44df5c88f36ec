"""From a clip and an instruction to what a model reads: tokens, positions and patches, one prompt or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.video_utils import VideoMetadata

from stvg_lightning.models.positions import PositionRule, prompt_position_ids
from stvg_lightning.tubes import Clip

FRAMES_RESIZED_AT_ONCE = 8
Tokenizer = PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPrompt:
    """One prompt as a model reads it, on the CPU."""

    input_ids: Int[Tensor, " tokens"]
    position_ids: Int[Tensor, "3 tokens"]
    patches: Float[Tensor, "patches channels"]
    grid_thw: Int[Tensor, "videos 3"]


@dataclass(frozen=True)
class PromptBatch:
    """Prompts padded on the left to one length; `patches` and `grid_thw` hold their videos one after the other."""

    input_ids: Int[Tensor, "prompts tokens"]
    attention_mask: Bool[Tensor, "prompts tokens"]
    position_ids: Int[Tensor, "3 prompts tokens"]
    patches: Float[Tensor, "patches channels"]
    grid_thw: Int[Tensor, "videos 3"]

    @property
    def num_prompts(self) -> int:
        return self.input_ids.shape[0]

    @property
    def num_tokens(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch with every tensor on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def select(self, prompts: slice) -> PromptBatch:
        """Some neighbouring prompts of the batch, with their videos; one video a prompt."""
        assert self.grid_thw.shape[0] == self.num_prompts, "one video a prompt"
        patches_each = self.grid_thw.prod(dim=1).tolist()
        pieces = self.patches.split(patches_each)[prompts]
        return PromptBatch(
            self.input_ids[prompts],
            self.attention_mask[prompts],
            self.position_ids[:, prompts],
            torch.cat(pieces),
            self.grid_thw[prompts],
        )

    def pick(self, prompts: Sequence[int]) -> PromptBatch:
        """Some prompts of the batch, at least one, with their videos; one video a prompt."""
        assert self.grid_thw.shape[0] == self.num_prompts, "one video a prompt"
        pieces = self.patches.split(self.grid_thw.prod(dim=1).tolist())
        chosen = torch.tensor(prompts, device=self.input_ids.device)
        return PromptBatch(
            self.input_ids[chosen],
            self.attention_mask[chosen],
            self.position_ids[:, chosen],
            torch.cat([pieces[place] for place in prompts]),
            self.grid_thw[chosen],
        )


@dataclass(frozen=True)
class PromptEncoder:
    """Turns clips and instructions into prompts with a family's own processor and chat template.

    It holds no weights, so data-loading processes can hold one each.
    """

    processor: ProcessorMixin
    rule: PositionRule

    @property
    def side_multiple(self) -> int:
        """Both sides of a frame must be multiples of this many pixels; the side of a model's squares, if it has one."""
        video = self.processor.video_processor
        if self.rule.counts_tokens:
            return int(video.size["height"])
        return video.patch_size * video.merge_size

    @property
    def frames_per_step(self) -> int:
        """Frames that the tower merges into one step of time."""
        return 1 if self.rule.counts_tokens else self.processor.video_processor.temporal_patch_size

    def encode(self, clip: Clip, instruction: str, height: int, width: int) -> EncodedPrompt:
        """Encode one question about one clip.

        Args:
            clip: frames of any size; their original times are told to the model.
            instruction: the user's turn, after the video.
            height: height in pixels to which frames are resized; a multiple of `side_multiple`.
            width: likewise.

        Raises:
            ValueError: the model takes squares of one size, and this is another.
        """
        if self.rule.counts_tokens and (height, width) != (self.side_multiple, self.side_multiple):
            side = self.side_multiple
            raise ValueError(
                f"this model takes frames of {side} x {side} pixels, not of {width} x {height}: "
                f"set video.min_frame_pixels and video.max_frame_pixels to {side * side}"
            )
        content = [{"type": "video"}, {"type": "text", "text": instruction}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        encoded = self.processor(
            text=[text],
            videos=[resize_frames(clip, height, width)],
            video_metadata=[_metadata(clip)],
            do_sample_frames=False,
            do_resize=False,
            return_tensors="pt",
        )
        if self.rule.counts_tokens:
            return _prompt_of_images(encoded["input_ids"][0], encoded["pixel_values"])
        token_types = encoded["mm_token_type_ids"][0]
        positions = prompt_position_ids(token_types, encoded["video_grid_thw"], self.rule, self._seconds_per_step(clip))
        return EncodedPrompt(
            encoded["input_ids"][0], positions, encoded["pixel_values_videos"], encoded["video_grid_thw"]
        )

    def _seconds_per_step(self, clip: Clip) -> float:
        """Seconds between two steps of time, from the frames really taken."""
        times = clip.times_seconds
        if len(times) < 2:
            return self.frames_per_step / clip.fps
        return self.frames_per_step * (times[-1] - times[0]) / (len(times) - 1)


def resize_frames(clip: Clip, height: int, width: int) -> Float[Tensor, "frames 3 height width"]:
    """Frames resized by antialiased bicubic interpolation, values 0 to 255, rounded as stored frames are.

    A few frames at a time: at full size and four bytes a value a minute of video would fill a worker's memory.
    """
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    if frames.shape[2:] == (height, width):
        return frames.float()
    resized = [
        F.interpolate(piece.float(), size=(height, width), mode="bicubic", antialias=True).round().clamp(0, 255)
        for piece in frames.split(FRAMES_RESIZED_AT_ONCE)
    ]
    return torch.cat(resized)


def collate_prompts(prompts: Sequence[EncodedPrompt], pad_token_id: int) -> PromptBatch:
    """Pad prompts on the left to the longest and put them in one batch."""
    longest = max(len(prompt.input_ids) for prompt in prompts)
    pads = [longest - len(prompt.input_ids) for prompt in prompts]
    return PromptBatch(
        torch.stack([F.pad(p.input_ids, (pad, 0), value=pad_token_id) for p, pad in zip(prompts, pads, strict=True)]),
        torch.stack([torch.arange(longest) >= pad for pad in pads]),
        torch.stack([F.pad(p.position_ids, (pad, 0)) for p, pad in zip(prompts, pads, strict=True)], dim=1),
        torch.cat([prompt.patches for prompt in prompts]),
        torch.cat([prompt.grid_thw for prompt in prompts]),
    )


def _prompt_of_images(
    input_ids: Int[Tensor, " tokens"], frames: Float[Tensor, "frames 3 height width"]
) -> EncodedPrompt:
    """A prompt whose video is a row of images: each is one long patch, and positions count tokens."""
    positions = torch.arange(len(input_ids)).expand(3, -1).clone()
    return EncodedPrompt(input_ids, positions, frames.flatten(1), torch.tensor([[len(frames), 1, 1]]))


def _metadata(clip: Clip) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=clip.frame_indices[-1] + 1,
        fps=clip.fps,
        frames_indices=list(clip.frame_indices),
        height=clip.height,
        width=clip.width,
    )
