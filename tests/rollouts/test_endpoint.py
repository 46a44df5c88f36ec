"""A server as a predictor, against a real one on this machine that speaks the chat protocol."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.answers import id_span
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.prompting import Markers
from stvg_lightning.rollouts.endpoint import ChatEncoder, EndpointPredictor
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Clip, Sample

pytest.importorskip("openai")


class Server(ThreadingHTTPServer):
    """Answers `replies` in the order of the questions' texts; notes what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[str | None] = []
        self.failures: list[tuple[int, dict[str, Any]]] = []
        self.reply: Any = "<think>t</think><answer>Target ID: 3, Time range: 1.00 to 2.00</answer>"
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append(self.headers["Authorization"])
            failure = self.server.failures.pop(0) if self.server.failures else None
        message = {"role": "assistant", "content": self.server.reply}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices}
        code, content = failure or (200, answer)
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def predictor_of(url: str) -> EndpointPredictor:
    sampling = VideoSampling(fps=2.0, max_frame_pixels=64 * 64, min_frame_pixels=32 * 32)
    return EndpointPredictor(url, "some-model", Preparation(ChatEncoder(16), sampling, Markers(size=80.0), id_span), 77)


def test_a_question_is_sent_as_pictures_with_their_times_and_the_answer_read(
    server: Server, world_samples: tuple[Sample, ...]
) -> None:
    predictor = predictor_of(server.url)
    examples = [predictor.prepare(sample) for sample in world_samples[:3]]
    answers = predictor.answer(examples)
    assert [answer.object_ids for answer in answers] == [(3,)] * 3 and answers[0].span_seconds == (1.0, 2.0)
    assert len(server.requests) == 3
    expected = {
        tuple(f"Frame at {seconds:.2f} seconds:" for seconds in predictor.preparation.marked_clip(s).clip.times_seconds)
        for s in world_samples[:3]
    }
    told = set()
    for request in server.requests:
        assert (request["model"], request["max_tokens"], request["temperature"]) == ("some-model", 77, 0.0)
        (message,) = request["messages"]
        *frames, instruction = message["content"]
        assert "Target ID" in instruction["text"] and [part["type"] for part in frames[:2]] == ["text", "image_url"]
        told.add(tuple(part["text"] for part in frames[::2]))
    assert told == expected
    sent = {request["messages"][0]["content"][-1]["text"] for request in server.requests}
    assert sent == {example.prompt.content[-1]["text"] for example in examples}


def test_pictures_are_the_frames_with_their_colours() -> None:
    frames = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    frames[0, :, :16] = (255, 0, 0)
    frames[1, 4:28, 4:28] = (0, 0, 255)
    content = ChatEncoder(16).encode(Clip(frames, (0, 5), 10.0), "what?", 32, 32).content
    assert [part["text"] for part in content if part["type"] == "text"][1] == "Frame at 0.50 seconds:"
    for frame, part in zip(frames, content[1::2], strict=False):
        encoded = part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")).astype(int)
        assert np.abs(seen - frame).mean() < 2.0


def test_the_key_is_taken_from_the_environment(
    server: Server, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    predictor = predictor_of(server.url)
    predictor.answer([predictor.prepare(world_samples[0])])
    assert server.headers == ["Bearer secret"]


def test_a_failure_in_passing_is_repeated_and_a_refusal_is_told(
    server: Server, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    predictor = predictor_of(server.url)
    example = predictor.prepare(world_samples[0])
    server.failures = [(500, {"error": {"message": "busy"}})]
    assert predictor.answer([example])[0].object_ids == (3,) and len(server.requests) == 2
    server.failures = [(400, {"message": "the prompt is too long"})]
    with pytest.raises(ConnectionError, match=r"127.0.0.1:[0-9]+/v1 refused a question: the prompt is too long"):
        predictor.answer([example])
    server.reply = None
    assert predictor.answer([example])[0].problems == ("no <answer>...</answer>",)


@pytest.mark.parametrize(
    "garbage",
    ["hello", [], None, {}, {"choices": {}}, {"choices": [{}]}, {"choices": [{"message": {"content": [1]}}]}],
)
def test_what_is_no_completion_is_told(garbage: Any, server: Server, world_samples: tuple[Sample, ...]) -> None:
    server.failures = [(200, garbage)]
    predictor = predictor_of(server.url)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1"):
        predictor.texts([predictor.prepare(world_samples[0]).prompt])


def test_a_server_that_is_not_there_and_a_client_that_is_not_installed_are_told(
    world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as gone:
        url = gone.url
    predictor = predictor_of(url)
    with pytest.raises(ConnectionError, match="cannot be asked"):
        predictor.answer([predictor.prepare(world_samples[0])])
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r'pip install "stvg-lightning\[endpoint\]"'):
        predictor_of(url).texts([predictor.prepare(world_samples[0]).prompt])
