"""JSON read a record at a time says the same as `json`, whatever the pieces, and names the record that is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.data.annotations import Dropped, Report, VideoFolder, records
from stvg_lightning.data.annotations.conversions import samples_of
from stvg_lightning.data.annotations.records import json_records, whole_json
from stvg_lightning.data.annotations.videos import BROKEN_VIDEO, NO_VIDEO, SEVERAL_VIDEOS
from tests.data.annotations.reading import make_video, written

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
containers = st.lists(values, max_size=5) | st.dictionaries(st.text(), values, max_size=5)


@pytest.fixture(autouse=True, params=[1, 7, 1 << 20])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in pieces of so many characters."""
    monkeypatch.setattr(records, "CHUNK_CHARACTERS", request.param)


@given(data=containers, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_records_are_those_of_json(
    tmp_path_factory: pytest.TempPathFactory, data: Any, indent: Any, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("j") / "a.json"
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode("utf-8", "surrogatepass") if ascii_only else text.encode("utf-8", "replace"))
    data = json.loads(path.read_bytes())
    expected = list(enumerate(data)) if isinstance(data, list) else list(data.items())
    assert [(place, value) for _, place, value in json_records(path)] == expected
    assert [(place, json.loads(text)) for _, place, text in json_records(path, raw=True)] == expected
    assert whole_json(path) == data


def test_the_way_down_leaves_what_lies_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", {"info": [1, {"videos": 3}], "videos": {"a": {"x": 1}, "b": 2}, "end": {}})
    assert [(w[len(str(path)) :], p, v) for w, p, v in json_records(path, "videos")] == [
        ("['videos']['a']", "a", {"x": 1}),
        ("['videos']['b']", "b", 2),
    ]
    with pytest.raises(ValueError, match=r"a\.json: key 'clips' is missing"):
        list(json_records(path, "clips"))
    with pytest.raises(ValueError, match=r"a\.json\['end'\]: key .* is missing|a\.json: key 'x' is missing"):
        list(json_records(path, "end", "x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.json: a JSON list or object is expected"),
        ("3", "a JSON list or object is expected"),
        ('[1, {"a": 2', r"a\.json\[1\]: broken JSON: .*the file may be cut short"),
        ('[1, "abc', r"a\.json\[1\]: broken JSON: Unterminated string"),
        ("[1, 2", r"a\.json\[1\]: broken JSON: ',' or ']' is expected, the file ends"),
        ("[1 2]", r"a\.json\[0\]: broken JSON: ',' or '\]' is expected"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice in one object"),
        ('[{"a": 1, "a": 2}]', r"\[0\]: key 'a' stands twice in one object"),
        ("[1, NaN]", r"\[1\]: NaN is not allowed"),
        ("[-Infinity]", r"\[0\]: -Infinity is not allowed"),
        ("[1e999]", r"\[0\]: 1e999 is not allowed"),
        ("[" + "9" * 5000 + "]", r"\[0\]: .*[Ee]xceeds the limit"),
        ('{"a" 1}', "':' is expected after key 'a'"),
        ("{3: 1}", "a key is expected"),
        ("[1] x", "something stands after its end"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_json_is_one_error_with_file_and_record(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        list(json_records(written(tmp_path / "a.json", text)))
    assert str(tmp_path / "a.json") in str(caught.value) and len(str(caught.value)) < 400


def test_other_encodings_are_named_and_a_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["\xff\xfe"]')
    with pytest.raises(ValueError, match=r"a\.json.*: not UTF-8"):
        list(json_records(tmp_path / "a.json"))
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert [value for _, _, value in json_records(tmp_path / "b.json")] == [1]


def test_memory_holds_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK_CHARACTERS", 1 << 12)
    path = written(tmp_path / "a.json", [{"n": n, "text": "x" * 1000} for n in range(1000)])
    longest = 0
    with path.open() as file:
        scanner = records._Scanner(file, "a")
        for _ in scanner.members((), raw=False):
            longest = max(longest, len(scanner._text))
    assert longest < 1 << 14


def test_changes_of_a_dropped_record_do_not_count() -> None:
    report = Report()

    def convert(where: str, record: int) -> Any:
        report.changed("changed", where)
        raise Dropped("dropped", "why")

    assert list(samples_of([("a", 1), ("b", 2)], convert, report)) == []
    assert report.to_json() == {"changed": {}, "dropped": {"dropped": {"count": 2, "examples": ["a: why", "b: why"]}}}
    assert report.lines() == ["dropped 2: dropped", "    a: why", "    b: why"]


def test_videos_are_found_by_name_or_stem(tmp_path: Path) -> None:
    for name in ("0001/a.mp4", "b.MKV", "c.mp4", "x/c.avi", "d.e.mp4", "d.mp4", "n.txt", "y/f.mp4", "z/f.mp4"):
        make_video(tmp_path / name)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    videos = VideoFolder(tmp_path)
    for name, path in (("a.mp4", "0001/a.mp4"), ("a", "0001/a.mp4"), ("q/b.mp4", "b.MKV"), ("x/c.avi", "x/c.avi")):
        assert videos.find(name) == tmp_path / path
    for name, path in (("c.mp4", "c.mp4"), ("d.e", "d.e.mp4"), ("d.mp4", "d.mp4"), ("y/f.mp4", "y/f.mp4")):
        assert videos.find(name) == tmp_path / path
    for name, reason in (("n", NO_VIDEO), ("f.mp4", SEVERAL_VIDEOS), ("../a.txt", NO_VIDEO), ("c.mkv", SEVERAL_VIDEOS)):
        with pytest.raises(Dropped) as caught:
            videos.find(name)
        assert caught.value.reason == reason
    with pytest.raises(Dropped) as caught:
        videos.facts(videos.find("broken"))
    assert caught.value.reason == BROKEN_VIDEO and "broken.mp4" in caught.value.detail
    with pytest.raises(FileNotFoundError, match="no folder of videos at"):
        VideoFolder(tmp_path / "none")
