"""A server as a predictor: any endpoint that speaks OpenAI's chat protocol, such as vLLM's, or a hosted model."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from json import JSONDecodeError
from typing import Any

import numpy as np
from PIL import Image

from stvg_lightning.answers import Answer
from stvg_lightning.models.prompts import resize_frames
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.tubes import Clip, Sample

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""Local servers ask for no key, and the client for some text."""

JPEG_QUALITY = 95
"""And colours in full: drawn numbers are small, red, and lose most of both."""


@dataclass(frozen=True)
class ChatPrompt:
    """One user's turn, in the parts of OpenAI's chat protocol."""

    content: list[dict[str, Any]]


@dataclass(frozen=True)
class ChatEncoder:
    """Turns clips and instructions into chat turns: each frame a picture behind its time, then the instruction.

    Pictures rather than a video, since every server takes them and nobody samples them anew.
    """

    side_multiple: int = 28
    frames_per_step: int = 1

    def encode(self, clip: Clip, instruction: str, height: int, width: int) -> ChatPrompt:
        """Encode one question about one clip; arguments are those of `PromptEncoder.encode`."""
        pictures = resize_frames(clip, height, width).byte().permute(0, 2, 3, 1).numpy()
        content: list[dict[str, Any]] = []
        for seconds, picture in zip(clip.times_seconds, pictures, strict=True):
            content.append({"type": "text", "text": f"Frame at {seconds:.2f} seconds:"})
            content.append({"type": "image_url", "image_url": {"url": _data_url(picture)}})
        return ChatPrompt([*content, {"type": "text", "text": instruction}])


@dataclass(frozen=True)
class EndpointPredictor:
    """Answers questions by asking a server, several at a time; greedy, one completion each.

    The key is taken from the environment variable `OPENAI_API_KEY`, where the server wants one.

    Attributes:
        url: of the server's interface, such as `http://localhost:8000/v1`.
        model: the name that the server knows the model by.
        preparation: how samples are shown, with a `ChatEncoder`.
        max_new_tokens: a longer completion is cut off.
        timeout_seconds: for one answer; a request that fails in passing is repeated a few times.
    """

    url: str
    model: str
    preparation: Preparation
    max_new_tokens: int = 1024
    timeout_seconds: float = 600.0

    def prepare(self, sample: Sample) -> Example:
        """A sample as the server is sent it; see `Preparation`."""
        return self.preparation(sample)

    def answer(self, prepared: Sequence[Example]) -> list[Answer]:
        """The server's answers, read in the answer language.

        Raises:
            ConnectionError: the server cannot be reached, or refuses a question.
        """
        texts = self.texts([example.prompt for example in prepared])
        return [self.preparation.read(text, example.truth) for text, example in zip(texts, prepared, strict=True)]

    def texts(self, prompts: Sequence[ChatPrompt]) -> list[str]:
        """The completion of each prompt, all asked for at once."""
        with ThreadPoolExecutor(max_workers=max(len(prompts), 1)) as threads:
            return list(threads.map(self._text, prompts))

    def _text(self, prompt: ChatPrompt) -> str:
        client = self._client
        import openai  # an optional extra: the client says so where it is missing

        try:
            completion = client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt.content}],
                max_tokens=self.max_new_tokens,
                temperature=0.0,
            )
        except openai.APIStatusError as error:
            raise ConnectionError(f"{self.url} refused a question: {_reason(error)}") from error
        except (openai.OpenAIError, JSONDecodeError) as error:
            raise ConnectionError(f"{self.url} cannot be asked: {error}") from error
        return _content(completion, self.url)

    @cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError:
            raise ValueError(
                'asking a server needs the package openai: pip install "stvg-lightning[endpoint]"'
            ) from None
        key = os.environ.get(KEY_VARIABLE, NO_KEY)
        return openai.OpenAI(base_url=self.url, api_key=key, timeout=self.timeout_seconds, max_retries=3)


def _content(completion: Any, url: str) -> str:
    """What a completion says; a message without text, as of a model cut off while thinking, says nothing.

    Raises:
        ConnectionError: something else than a chat completion.
    """
    choices = getattr(completion, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    content = getattr(message, "content", "no message")
    if message is None or not (content is None or isinstance(content, str)):
        raise ConnectionError(f"{url} answered something else than a chat completion: {str(completion)[:100]!r}")
    return content or ""


def _data_url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _reason(error: Any) -> str:
    """What the server says is wrong, in one line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error).split())[:500]
