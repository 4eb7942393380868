"""How far decoders can be relied upon to know which classes are there, on the images that they are compared on."""

import json
from dataclasses import astuple

import numpy as np
import pytest
import torch

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.calibration.reliability import calibration
from rankseg_plugins.comparison import Recorder, Sample, Scoring, compare
from rankseg_plugins.comparison.blocks.presence import describe_presence, presence_of, together
from rankseg_plugins.report.html import to_html
from rankseg_plugins.report.markdown import to_markdown
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.values import to_dict

CLASSES, IGNORE = 4, 255


def images(count=12, seed=0, masks=False):
    """Labels, or masks, that are known in parts, in one image nowhere; and classes that are often absent."""
    generator = torch.Generator().manual_seed(seed)
    probs = (3 * torch.randn(count, CLASSES, 6, 5, generator=generator)).softmax(1)
    truth = (3 * torch.rand(count, 6, 5, generator=generator)).long()
    if masks:
        truth = torch.nn.functional.one_hot(truth, CLASSES).movedim(-1, 1)
        truth[0, 1] = IGNORE  # of one class nothing is known
    truth[:, ..., 0] = IGNORE
    truth[1] = IGNORE
    return [Sample(str(index), *both) for index, both in enumerate(zip(probs, truth, strict=True))]


def fitted(mode="multiclass", rule="score"):
    decoder, samples = PresenceRankSEG(CLASSES, rule=rule, output_mode=mode), images(20, seed=1)
    for sample in samples:
        decoder.update(sample.probs[None], sample.labels[None], ignore_index=IGNORE)
    decoder.fit()
    return decoder


def by_hand(decoder, samples, temperature=1.0):
    """Bins from the probabilities of the presence, image by image, of what the truth says."""
    found = []
    for sample in samples:
        scaling = TunedDecoder(RankSEG("acc", output_mode=decoder.output_mode), CLASSES, temperature).scaling
        q = decoder.presence(sample.probs[None] if temperature == 1 else scaling(sample.probs[None]))[0]
        masks = sample.labels.ndim == 3
        there = torch.stack(
            [((sample.labels[c] if masks else sample.labels - c + 1) == 1).any() for c in range(CLASSES)]
        )
        known = torch.stack([((sample.labels[c] if masks else sample.labels) != IGNORE).any() for c in range(CLASSES)])
        found.append(calibration(q[:, None].float(), there[:, None], known[:, None], bins=10))
    return sum(found[1:], found[0])


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize(("rule", "temperature"), [("score", 1.0), (0.3, 0.7)])
def test_bins_are_those_of_the_presence_of_every_image(mode, rule, temperature):
    samples, decoder = images(masks=mode == "multilabel"), fitted(mode, rule=rule)
    decoders = {
        "argmax": RankSEG("acc", output_mode=mode),
        "known": TunedDecoder(decoder, CLASSES, temperature),
        **({"itself": decoder} if temperature == 1 else {}),
    }
    found = compare(samples, decoders, ignore_index=IGNORE)
    assert list(found.presence) == list(decoders)[1:]
    expected = by_hand(decoder, samples, temperature)
    for name in found.presence:
        for ours, theirs in zip(astuple(found.presence[name]), astuple(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert found.presence["known"].count.sum() == 11 * CLASSES - (mode == "multilabel")
    assert found.presence_of("argmax") is None
    json.dumps(found.presence_of("known"), allow_nan=False)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "identity"])
@pytest.mark.parametrize("temperature", [1.0, 1.4])
def test_the_decision_is_the_usual_one(activation, temperature):
    mode = "multiclass" if activation == "softmax" else "multilabel"
    logits = 3 * torch.randn(5, CLASSES, 7, 6, generator=torch.Generator().manual_seed(2))
    logits = logits.sigmoid() if activation == "identity" else logits
    decoder = TunedDecoder(fitted(mode), CLASSES, temperature)
    decided, q = decoder.decision_and_presence(logits, activation)
    assert torch.equal(decided, decoder.predict_logits(logits, activation))
    assert len(decided.unique()) > 1
    probs = {"softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid, "identity": lambda x: x}[activation](logits)
    probs = probs if temperature == 1 else decoder.scaling(probs)
    torch.testing.assert_close(q, decoder.decoder.presence(probs), atol=1e-5, rtol=1e-4)


def test_against_a_count_by_hand():
    q = np.array([[0.05, 0.95, 0.5], [0.07, 0.85, 0.5], [0.93, 0.45, 1.0], [np.nan] * 3])
    there = np.array([[False, True, True], [True, True, True], [True, False, False], [True] * 3])
    found = together(presence_of(["tuned"], *both) for both in zip(q[:, None], there, strict=True))
    about = describe_presence(found["tuned"], [0, 1])
    assert about["bins"] == [[0.06, 0.5, 2], [0.45, 0.0, 1], [0.85, 1.0, 1], [0.94, 1.0, 2]]
    assert about["error"] == pytest.approx((2 * 0.44 + 0.45 + 0.15 + 2 * 0.06) / 6, abs=1e-6)
    assert about["frequency"] == pytest.approx([2 / 3, 2 / 3])
    assert about["likely"] == pytest.approx([0.35, 0.75])
    assert describe_presence(found["tuned"], [2])["bins"] == [[0.5, 1.0, 2], [1.0, 0.0, 1]]


def test_only_the_classes_that_count():
    found = compare(images(), {"argmax": RankSEG("acc"), "known": fitted()}, ignore_index=IGNORE)
    scored = compare(
        images(), {"argmax": RankSEG("acc"), "known": fitted()}, ignore_index=IGNORE, scoring=Scoring(excluded=(0,))
    )
    assert scored.presence_of("known") == describe_presence(found.presence["known"], [1, 2, 3])


def test_where_nothing_is_known_nothing_is_said():
    samples = [Sample("a", torch.full((CLASSES, 6), 0.25), torch.full((6,), IGNORE))]
    found = compare(samples, {"argmax": RankSEG("acc"), "known": fitted()}, ignore_index=IGNORE)
    assert found.presence == {}
    assert to_dict(found)["decoders"]["known"]["presence"] is None
    assert read_page(found).presence == []


def test_what_was_decided_elsewhere():
    whole = compare(images(), {"argmax": RankSEG("acc"), "known": fitted()}, ignore_index=IGNORE)
    recorder = Recorder({"argmax": RankSEG("acc"), "known": fitted()}, num_classes=CLASSES, ignore_index=IGNORE)
    for sample in images():
        decided, q = fitted().decision_and_presence(sample.probs[None].log())
        decisions, told = [sample.probs.argmax(0), decided[0]], [None, q[0]]
        recorder.add_decided(sample.name, sample.labels, decisions, presence=told)
    about, expected = recorder.comparison().presence_of("known"), whole.presence_of("known")
    assert about["frequency"] == expected["frequency"]
    np.testing.assert_allclose(about["bins"], expected["bins"], atol=2e-6)


def test_the_images_of_all_processes_count(monkeypatch):
    samples, parts = images(), []
    decoders = {"argmax": RankSEG("acc"), "known": fitted()}
    # One process has no image at all; what each hands over is kept, then each gets all of it.
    recorders = [Recorder(decoders, num_classes=CLASSES, ignore_index=IGNORE) for _ in range(3)]
    for index, sample in enumerate(samples):
        recorders[index % 2].add(sample)
    monkeypatch.setattr("rankseg_plugins.comparison.recording.gather", lambda ours: parts.append(ours) or [ours])
    for each in recorders:
        each.gather()
    monkeypatch.setattr("rankseg_plugins.comparison.recording.gather", lambda ours: parts)
    recorders[2].gather()
    expected = compare(samples, decoders, ignore_index=IGNORE).presence["known"]
    for ours, theirs in zip(astuple(recorders[2].comparison().presence["known"]), astuple(expected), strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_every_form_of_the_report_says_it():
    name = "<b>[a](b) known"
    found = compare(images(), {"argmax": RankSEG("acc"), name: fitted()}, ignore_index=IGNORE)
    page = read_page(found)
    about = json.loads(json.dumps(to_dict(found)))["decoders"][name]["presence"]
    assert about == found.presence_of(name)
    (section,) = page.presence
    assert f"Expected calibration error {100 * about['error']:.2f} %, all classes together." in section.text
    rows = [[f"{100 * likely:.2f}", f"{100 * share:.2f}", str(number)] for likely, share, number in about["bins"]]
    assert list(map(list, section.rows)) == rows
    in_html, in_markdown = to_html(page, []), to_markdown(page, [])
    assert section.title == "Which classes are there"
    for text, headings in ((in_html, "<h2"), (in_markdown, "\n## ")):
        titles = [part.split(">")[-1] for part in text.replace("</h2>", "\n").replace(headings, "\n@").splitlines()]
        order = [title.removeprefix("@").strip() for title in titles]
        assert 0 < order.index("Classes that are shown") < order.index(section.title) < order.index("Calibration")
        assert "&lt;b&gt;" in text
        assert "<b>" not in text.split("shows a class by the probability")[0][-40:]
    for row in rows:
        assert f"| {' | '.join(row)} |" in in_markdown
        assert f'<th scope="row">{row[0]}</th><td>{row[1]}</td><td>{row[2]}</td>' in in_html
