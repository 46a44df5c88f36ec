"""SARL-STG's spatial grounding module: Grounding DINO on the frames of a sub-clip, with the whole video and time.

Each frame gives the detector's N candidates, a score and a box each; they are put into the order of tracks, so that
candidate `n` of all frames is one thing. What a frame gives does not depend on the clip that it stands in, but for the
enhancement over time: frames are read once, and clips of them compared many times.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessor

from stvg_lightning.models.adapters import LowRank
from stvg_lightning.models.loading import DTYPES, TINY, TINY_DETECTOR_FOLDER, Dtype
from stvg_lightning.models.spatial_layers import GlobalLocalFusion, TemporalEnhancement
from stvg_lightning.models.spatial_tracks import corners, track_order

INSERTIONS_FILE = "insertions.safetensors"
MODULE_FILE = "spatial_grounding.json"
MAX_CANDIDATES = 100
"""Candidates of a frame that tracks are made of, those of the highest scores; Grounding DINO has 900."""

NOT_ADAPTED = re.compile(r"bbox_embed|class_embed|enc_output")
"""Layers without LoRA: the heads, and what chooses the proposals, which no gradient reaches."""


@dataclass(frozen=True)
class Phrase:
    """A sentence as the detector reads it."""

    input_ids: Int[Tensor, " tokens"]

    def to(self, device: torch.device | str) -> Phrase:
        """The same phrase on a device."""
        return Phrase(self.input_ids.to(device))


@dataclass(frozen=True)
class FrameStates:
    """What the detector makes of frames by themselves: its decoder's last states, and what its heads need."""

    hidden: Float[Tensor, "frames candidates width"]
    references: Float[Tensor, "frames candidates 4"]
    text: Float[Tensor, "frames tokens width"]

    def select(self, frames: Sequence[int]) -> FrameStates:
        """The states of some frames, by their places."""
        places = torch.tensor(frames, device=self.hidden.device)
        return FrameStates(self.hidden[places], self.references[places], self.text[places])

    def reordered(self, order: Int[Tensor, "frames chosen"]) -> FrameStates:
        """Each frame's candidates in an order of its own, all of them or some."""
        hidden, references = (
            torch.take_along_dim(each, order[..., None], dim=1) for each in (self.hidden, self.references)
        )
        return FrameStates(hidden, references, self.text)


@dataclass(frozen=True)
class Candidates:
    """The candidates of one sub-clip.

    Attributes:
        logits: of being what the sentence describes.
        boxes_cxcywh: centre, width and height, as shares of the frame's sides.
    """

    logits: Float[Tensor, "frames candidates"]
    boxes_cxcywh: Float[Tensor, "frames candidates 4"]

    def best_track(self) -> Float[Tensor, "frames 4"]:
        """The boxes `x1, y1, x2, y2` of the track with the highest mean score, as shares of the frame's sides."""
        best = int(self.logits.sigmoid().mean(dim=0).argmax())
        return corners(self.boxes_cxcywh[:, best])


class SpatialGroundingModule(nn.Module):
    """Grounding DINO with GLFFM before its encoder and TEM after its decoder.

    Args:
        detector: transformers' Grounding DINO.
        global_width: width of the language model's video tokens.
    """

    def __init__(self, detector: GroundingDinoForObjectDetection, global_width: int) -> None:
        super().__init__()
        config = detector.config
        self.detector, self.global_width = detector, global_width
        heads = config.encoder_attention_heads
        self.fusion = GlobalLocalFusion(config.d_model, config.num_feature_levels, heads, global_width)
        self.enhancement = TemporalEnhancement(config.d_model, heads)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Those of GLFFM and TEM, which no checkpoint of the detector holds."""
        yield from self.fusion.parameters()
        yield from self.enhancement.parameters()

    def frame_states(
        self,
        pixels: Float[Tensor, "frames 3 height width"],
        phrase: Phrase,
        video_tokens: Float[Tensor, "tokens global_width"],
    ) -> FrameStates:
        """Read frames one by one.

        Args:
            pixels: frames of one video, all of one size, as its processor makes them.
            phrase: the sentence.
            video_tokens: the language model's tokens of the whole video.
        """
        with self._asking(video_tokens):
            output = self.detector.model(pixels, phrase.input_ids.expand(len(pixels), -1), return_dict=True)
        # The last layer's boxes start from the one before it; a decoder of one layer, from the encoder's proposals.
        references = torch.stack([output.init_reference_points, *output.intermediate_reference_points.unbind(1)])[-2]
        states = FrameStates(output.last_hidden_state, references, output.encoder_last_hidden_state_text)
        return self._best(states, MAX_CANDIDATES)

    def candidates(
        self, states: FrameStates, clips: Sequence[Sequence[int]], seconds: Sequence[float]
    ) -> list[Candidates]:
        """The candidates of sub-clips, in the order of tracks.

        Args:
            states: of all frames that stand in some clip.
            clips: for each sub-clip the places of its frames in `states`, in order of time.
            seconds: when each frame of `states` is.
        """
        device = states.hidden.device
        times = torch.tensor(seconds, dtype=torch.float32, device=device)
        places = [torch.tensor(clip, device=device) for clip in clips]
        tracked = [self._tracked(states.select(clip)) for clip in clips]
        hidden = pad_sequence([each.hidden for each in tracked], batch_first=True)
        since = pad_sequence([times[place] - times[place[0]] for place in places], batch_first=True)
        is_frame = pad_sequence([torch.ones_like(place, dtype=torch.bool) for place in places], batch_first=True)
        enhanced = self.enhancement(hidden, since.to(hidden.dtype), is_frame)
        return [
            self._heads(one[: len(each.hidden)], each.references, each.text)
            for one, each in zip(enhanced, tracked, strict=True)
        ]

    @torch.no_grad()
    def _plain(self, states: FrameStates) -> Candidates:
        """What the detector's heads make of frames before they are compared."""
        return self._heads(states.hidden, states.references, states.text)

    def _best(self, states: FrameStates, count: int) -> FrameStates:
        """The candidates of each frame with the highest scores; all, in their own order, where there are no more."""
        if states.hidden.shape[1] <= count:
            return states
        return states.reordered(self._plain(states).logits.topk(count, dim=1).indices)

    def _tracked(self, states: FrameStates) -> FrameStates:
        """A clip's candidates in the order of tracks."""
        plain = self._plain(states)
        return states.reordered(track_order(plain.logits.sigmoid(), plain.boxes_cxcywh))

    def _heads(
        self,
        hidden: Float[Tensor, "frames candidates width"],
        references: Float[Tensor, "frames candidates 4"],
        text: Float[Tensor, "frames tokens width"],
    ) -> Candidates:
        """The detector's own heads: of its scores for each word the highest counts."""
        every = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        logits = self.detector.class_embed[-1](hidden, text, every).max(dim=-1).values
        boxes = (self.detector.bbox_embed[-1](hidden) + torch.special.logit(references, eps=1e-5)).sigmoid()
        return Candidates(logits, boxes)

    @contextmanager
    def _asking(self, video_tokens: Float[Tensor, "tokens global_width"]) -> Iterator[None]:
        """Let the detector's encoder receive fused features."""

        def fuse(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            shapes = [(int(height), int(width)) for height, width in kwargs["spatial_shapes_list"]]
            fused = self.fusion(kwargs["vision_features"], kwargs["vision_position_embedding"], shapes, video_tokens)
            return args, {**kwargs, "vision_features": fused}

        hook = self.detector.model.encoder.register_forward_pre_hook(fuse, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


@dataclass(frozen=True)
class SpatialGrounder:
    """The module, and what prepares its input; `adapter` is the detector's, where it is being trained."""

    module: SpatialGroundingModule
    tokenizer: Any
    image_processor: GroundingDinoImageProcessor
    adapter: PeftModel | None = None

    def phrase(self, query: str) -> Phrase:
        """A query as one phrase: small letters, and a full stop nowhere but at its end."""
        text = re.sub(r"[.?!]+", " ", query.lower())
        return Phrase(torch.tensor(self.tokenizer(f"{' '.join(text.split())}.")["input_ids"]))

    def pixels(self, frames: UInt8[Tensor, "frames height width 3"]) -> Float[Tensor, "frames 3 rows columns"]:
        """Frames resized and normalised."""
        return self.image_processor(frames.permute(0, 3, 1, 2), return_tensors="pt")["pixel_values"]

    def save(self, folder: Path) -> None:
        """Save as a folder that `load_spatial` reads, the adapter merged into the detector's weights."""
        module = self.module if self.adapter is None else copy.deepcopy(self.adapter).merge_and_unload()
        module.detector.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        inserted = {"fusion": module.fusion, "enhancement": module.enhancement}
        save_file(
            {f"{name}.{key}": value for name, part in inserted.items() for key, value in part.state_dict().items()},
            folder / INSERTIONS_FILE,
        )
        (folder / MODULE_FILE).write_text(json.dumps({"global_width": self.module.global_width}) + "\n")


def adapt_detector(grounder: SpatialGrounder, lora: LowRank) -> SpatialGrounder:
    """Freeze the detector, put LoRA into its linear layers, and leave what is new to be trained."""
    module = grounder.module
    layers = [
        name
        for name, layer in module.named_modules()
        if name.startswith("detector.model.") and isinstance(layer, nn.Linear) and not NOT_ADAPTED.search(name)
    ]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers)
    adapter = get_peft_model(module, config)
    for parameter in module.new_parameters():
        parameter.requires_grad_(True)
    return replace(grounder, module=module.train(), adapter=adapter)


def load_spatial(name: str, global_width: int, dtype: Dtype = "float32") -> SpatialGrounder:
    """Load a detector by name or folder; a trained module comes with what was inserted, any other with nothing new.

    Args:
        name: `tiny` for the bundled detector, a folder, or a hub name such as `IDEA-Research/grounding-dino-base`.
        global_width: width of the language model's video tokens.
        dtype: precision of the weights.

    Raises:
        FileNotFoundError: no detector there.
        ValueError: a module that was trained beside a language model of another width.
    """
    place = str(TINY_DETECTOR_FOLDER) if name == TINY else name
    try:
        detector = GroundingDinoForObjectDetection.from_pretrained(place, dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(place)
        image_processor = GroundingDinoImageProcessor.from_pretrained(place)
    except OSError as error:
        raise FileNotFoundError(f"no Grounding DINO at {name!r}: {error}") from error
    module = SpatialGroundingModule(detector, global_width).to(DTYPES[dtype])
    trained = Path(place) / MODULE_FILE
    if trained.is_file():
        width = json.loads(trained.read_text())["global_width"]
        if width != global_width:
            raise ValueError(f"{name} was trained with video tokens of width {width}, and these are {global_width}")
        missing, unexpected = module.load_state_dict(load_file(Path(place) / INSERTIONS_FILE), strict=False)
        assert not unexpected and all(key.startswith("detector.") for key in missing), (unexpected, missing)
    return SpatialGrounder(module.eval(), tokenizer, image_processor)
