"""The page: it stands alone, tells everything, and nothing in it acts."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import pytest

from stvg_lightning.data.difficulty import Difficulty
from stvg_lightning.data.difficulty_epochs import distribution_of
from stvg_lightning.data.video import decode_frames, probe_video
from stvg_lightning.reports import ReportInputs, render_report, write_report
from tests.reports.examples import HOSTILE, curves, example_inputs, samples

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Texts and attributes of a page, with a check that every element is closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.texts, self.pre = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "pre" in self.open:
            self.pre[-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return example_inputs()


@pytest.fixture(scope="module")
def html(inputs) -> str:
    return render_report(inputs)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_page_needs_nothing_from_outside(page, html):
    assert "http://" not in html and "https://" not in html and "//" not in re.sub(r"data:[^\"]*", "", html)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:video/mp4;base64,"))
    assert not page.attributes("link") and len(page.attributes("script")) == 1
    assert "@import" not in html and "@font-face" not in html


def test_every_completion_stands_there_word_for_word_and_does_nothing(page, inputs):
    shown = {item.id for item in inputs.gallery}
    texts = [row["text"] for rows in inputs.rows.values() for row in rows if row["id"] in shown]
    assert len(texts) == 9 and HOSTILE in texts
    for text in texts:
        assert text in page.pre
    assert page.pre[-1] == inputs.recipe_text
    assert "Quickstart <1>" in page.texts and "mine/<odd> name" in page.texts


def test_difficulty_is_drawn_before_each_epoch_and_after(inputs):
    estimates = {f"q{number}": Difficulty(number / 20, 0.1 * (number % 2), 8) for number in range(20)}
    before, after = distribution_of(estimates, ["q3", "q5"]), distribution_of(estimates)
    moments = [("Before epoch 1", before), ("After the last step", after)]
    page = Page(render_report(replace(inputs, difficulty={"grpo": moments})))
    text = " ".join(page.texts)
    assert "2 trained on, 8 not trained on, 10 not trained on, all answers alike." in text and "20 questions." in text
    _, values = zip(*curves()["grpo"]["rollout/equal_groups"])
    assert f"GRPO {100 * sum(values) / len(values):.1f} %" in text
    bars = [attributes for attributes in page.attributes("path") if "fill: #3b82f6" in attributes.get("style", "")]
    assert len(bars) >= 2 and "#difficulty" in {a.get("href") for a in page.attributes("a")}
    assert 'id="difficulty"' not in render_report(inputs)


def test_thoughts_and_answers_are_told_apart(html):
    assert '<span class="think">&lt;think&gt;it may be &lt;b&gt;bold&lt;/b&gt;&lt;/think&gt;</span>' in html
    assert '<span class="answer">&lt;answer&gt;nothing&lt;/answer&gt;</span>' in html


def test_videos_play_by_themselves_and_decode(page):
    videos = page.attributes("video")
    assert len(videos) == 3
    truths = {sample.truth.num_frames for sample in samples()}
    for video in videos:
        assert {"controls", "loop", "muted", "autoplay", "playsinline"} <= video.keys()
        data = base64.b64decode(video["src"].removeprefix("data:video/mp4;base64,"), validate=True)
        info = probe_video(data)
        assert (info.fps, info.width, info.height) == (8.0, 384, 384) and info.num_frames in truths
        assert len(decode_frames(data, range(info.num_frames), info.fps).frames) == info.num_frames


def test_gallery_shows_cases_rewards_and_spans(page, inputs):
    items = [attributes for attributes in page.attributes("article")]
    assert [attributes["data-case"] for attributes in items] == ["improved", "good", "wrong"]
    assert [b["data-case"] for b in page.attributes("button")] == ["all", "improved", "good", "wrong"]
    text = "\n".join(page.texts)
    for sample in samples():
        start, end = sample.truth.span_seconds
        assert sample.truth.query in text and f"{start:.2f} to {end:.2f} s" in text
    assert page.texts.count("does not apply") == 9 and page.texts.count("total reward") == 9
    assert len([a for a in page.attributes("path") if a.get("class") == "playhead"]) == 3


def test_results_are_told_in_words(page):
    text = "\n".join(page.texts)
    assert re.search(r"GRPO over SFT: \+\d+\.\d points of m_vIoU, 95 % interval ", text)
    assert "3 models on 3 held-out questions; 6 min 8 s in all." in text
    assert page.texts.count("better") >= 1 and page.texts.count("unclear") >= 1


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    values = [value or "" for _, attributes in page.tags for value in attributes.values()]
    references = [value[1:] for value in values if re.fullmatch(r"#[a-z]+(-[0-9]+)*", value)]
    references += [found for value in values for found in re.findall(r"url\(#([^)]+)\)", value)]
    assert len(references) > 50 and set(references) <= set(ids)


def test_the_same_inputs_give_the_same_page_whatever_came_before(inputs, html):
    before = dict(matplotlib.rcParams)
    assert render_report(inputs) == html
    assert dict(matplotlib.rcParams) == before
    assert "pyplot" not in str(getattr(matplotlib, "__all__", ""))


def test_a_gallery_of_sixteen_stays_under_five_megabytes(inputs, html):
    most = max(len(item.video_mp4) for item in inputs.gallery)
    assert len(html) + 13 * (most * 4 // 3 + 8000) < 5_000_000


def test_a_run_without_curves_gallery_and_times_still_has_a_page(inputs):
    summary = {"models": {"base": inputs.summary["models"]["base"]}}
    page = Page(render_report(ReportInputs("bare", "", summary, {"base": inputs.rows["base"]})))
    assert not page.attributes("video") and not page.attributes("svg")
    assert "1 model on 3 held-out questions." in page.texts


def test_writing_replaces_the_page_or_leaves_it(inputs, tmp_path):
    path, small = tmp_path / "report.html", replace(inputs, curves={})
    path.write_text("an older page")
    broken = {**inputs.rows, "grpo": inputs.rows["grpo"][:1]}
    with pytest.raises(ValueError, match="model 'grpo' has no row for the gallery's sample 'synthetic-"):
        write_report(replace(small, rows=broken), path)
    assert path.read_text() == "an older page" and list(tmp_path.iterdir()) == [path]
    write_report(small, path)
    assert path.read_text(encoding="utf-8") == render_report(small) and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_report(small, tmp_path / "nowhere" / "report.html")


def test_text_that_is_no_unicode_does_not_lose_the_page(inputs, tmp_path):
    bare = replace(inputs, curves={}, gallery=(), recipe_text="half a \ud800 pair")
    write_report(bare, tmp_path / "report.html")
    assert "half a \\ud800 pair" in (tmp_path / "report.html").read_text(encoding="utf-8")
