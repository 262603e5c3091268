"""The page of a report: whole, alone in one file, silent about what the report does not hold."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from symlearn.report import StructureReport, html, kinds, notes
from symlearn.verdict import SeedsReport
from tests.report import samples
from tests.report.pages import Page

ALWAYS = ["How to read this report", "Layers", "The fit", "Paths", "Words and rules"]
OPTIONAL = [
    *["Warnings", "Evidence and loss", "Check by independent measurements", "Calibration"],
    *["Symmetry extracted", "Learned filters and maps", "What the curvature covers"],
    *["Configuration", "Environment"],
]

FIELDS = {
    "history": "Evidence and loss",
    "coverage": "What the curvature covers",
    "pictures": "Learned filters and maps",
    "symmetry": "Symmetry extracted",
}


@cache
def page_of(make: Callable[[], StructureReport]) -> str:
    return make().to_html()


@pytest.mark.parametrize(
    "make",
    [samples.digit, samples.quadrant, samples.awkward, samples.whole],
    ids=lambda m: m.__name__,
)
def test_the_page_is_sound(make: Callable[[], StructureReport]) -> None:
    page = Page(page_of(make))
    assert page.problems == []
    assert len(page_of(make)) < 200_000
    assert set(ALWAYS) <= set(page.headings)


def test_a_page_of_several_seeds_is_sound() -> None:
    seeds = SeedsReport.of({0: samples.quadrant(), 1: samples.quadrant(), 7: samples.quadrant()})
    text = seeds.to_html()
    assert text.count('class="badge') == 3  # one verdict per layer
    alone = Page(text)
    assert alone.problems == []
    assert alone.headings == ["Structure report of seeds 0, 1, 7", "Spread over seeds"]
    assert "conv2: conv 97.0% to 97.0%, mean 97.0%" in alone.alts[0]
    both = Page(seeds.to_html(best=samples.quadrant()))
    assert both.problems == []
    assert set(ALWAYS) <= set(both.headings)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (("</main>", ""), "closed where it is not open"),
        (("</section>", "</div>"), "closed where it is not open"),
        (('role="img"', ""), "svg has no words"),
        (("aria-label", "data-label"), "svg has no words"),
        (("<h1>", '<script>1</script><h1 id="x">'), "script"),
        (("<h1>", '<h1 onclick="x">'), "script"),
        (("<h1>", '<img src="a.png" alt="a picture of a filter"><h1>'), "img needs a.png"),
        (("<h1>", '<img src="data:," alt=""><h1>'), "img has no words"),
        (("<h1>", '<link href="https://x.org/a.css"><h1>'), "link needs https"),
        (("@media print", "@import 'x'; @media print"), "needs the network"),
        (("prefers-color-scheme: dark", "prefers-contrast"), "no rule for prefers-color"),
        (("url(#f0-", "url(#g0-"), "nothing has the id g0-"),
        (('id="f1-', 'id="f0-'), "nothing has the id f1-"),
    ],
)
def test_a_page_that_is_not_sound_is_found_out(damage: tuple[str, str], problem: str) -> None:
    text = page_of(samples.quadrant)
    assert damage[0] in text
    assert any(problem in found for found in Page(text.replace(*damage)).problems)


def test_a_section_without_facts_is_left_out() -> None:
    assert sorted(Page(page_of(samples.digit)).headings) == sorted(["Structure report", *ALWAYS])
    assert set(Page(page_of(samples.whole)).headings) == {"Structure report", *ALWAYS, *OPTIONAL}


@pytest.mark.parametrize(("field", "title"), FIELDS.items())
def test_each_section_needs_its_own_facts_only(field: str, title: str) -> None:
    found = html.sections(replace(samples.quadrant(), **{field: getattr(samples.whole(), field)}))
    more = {section.title for section in found} - {*ALWAYS, "Warnings"}
    assert more == {title}


def test_the_page_says_how_to_read_it_in_four_sentences() -> None:
    text = " ".join(notes.HOW_TO_READ)
    assert len(notes.HOW_TO_READ) == 4
    assert len(re.findall(r"\.(?= [A-Z]|$)", text)) == 4
    assert text.replace("'", "&#x27;") in page_of(samples.digit)


def test_pictures_are_said_in_words() -> None:
    said = "\n".join(Page(page_of(samples.whole)).alts)
    for words in (
        "conv3: conv 25.0%, ffc 75.0%, verdict conv+ffc",
        "conv1: conv 0.5000, ffc inf (off)",
        "epoch 2: log evidence -4000 nats, fit -2500, Occam factor 1500",
        "epoch 3: log evidence -1234 nats, fit -600.0, Occam factor 634.5",
        "epoch 1: 2.500 nats; epoch 3: 0.5000 nats",
        "conv3: evidence broken (75.0%), operator kept (<0.1%), function broken (0.4 ± 0.03)",
        "map: accuracy 70.0%, calibration error 10.0%",
        "conv3, conv filters: 8 of 80, 3×3 pixels",
    ):
        assert words in said


def test_the_page_states_the_parts_of_the_evidence_and_what_changed() -> None:
    text = page_of(samples.whole)
    assert "-1,234.5 nats: -600.0 for the fit" in text
    assert "an Occam factor of 634.5" in text
    assert "<li>Epoch 2: conv3.ffc started.</li>" in text
    assert "<li>Epoch 3: conv1.ffc switched off.</li>" in text


def test_names_are_escaped_and_long_lists_are_cut() -> None:
    text = page_of(samples.whole)
    assert "frozen &lt;b&gt;" in text
    assert "&lt;i&gt;" in text
    assert "Linux-&lt;x&gt;" in text
    assert "<h3>conv2 &lt;i&gt;: generators</h3>" in text
    assert "norm.11 and 8 more" in text


# --- Warnings ---


def test_a_good_report_has_no_warnings() -> None:
    assert notes.warnings(samples.digit()) == []


def test_warnings_name_what_limits_the_verdict() -> None:
    report = samples.whole()
    layer = samples.layer("loose", ffc=0.5, agreement=0.25)
    broken = samples.layer("broken", ffc=float("nan"))
    report = replace(report, layers=(*report.layers, layer, broken), objective="map")
    found = "\n".join(notes.warnings(replace(report, log_evidence=float("inf"))))
    for words in (
        "trained by MAP",
        "log evidence was not computed",
        "Up to 50.0% of the mass",
        "curvature of scale is diagonal (fallback)",
        "conv2 is undecided: ffc has 3.0% of the effective parameters.",
        "loose is undecided: only 25% of the last evidence steps agreed.",
        "broken is undecided: a number that the verdict needs is not finite.",
        "conv3: the check disagrees with the verdict about translations "
        "(evidence broken, operator kept, function broken).",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("fit", "evidence", "words"),
    [
        (-2300.0, -2400.0, "no better than their frequencies do (log likelihood -2300"),
        (-2200.0, -2400.0, "no better"),  # within a twentieth
        (-2100.0, -2400.0, "The log evidence is 97.00 nats below that of guessing"),
        (-2100.0, -2200.0, None),
        (math.nan, -2200.0, None),
        (None, -9000.0, None),
    ],
)
def test_a_network_no_better_than_guessing(
    fit: float | None, evidence: float, words: str | None
) -> None:
    meta = {notes.GUESSING: -2303.0, "log_likelihood": fit}
    report = replace(samples.digit(), log_evidence=evidence, meta=meta)
    assert ("Warning" in str(report)) == ("**warning**" in report.to_markdown()) == bool(words)
    assert len(notes.warnings(report)) == bool(words)
    assert (words or "") in "".join(notes.warnings(report))


# --- Figures by name ---


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_figure_can_be_drawn_by_name(kind: str) -> None:
    assert samples.whole().plot(kind).axes


def test_a_figure_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match=r"no figure 'bars'.*'structure', 'shares', 'precisions'"):
        samples.whole().plot("bars")
    with pytest.raises(ValueError, match="no figure None"):
        samples.whole().plot(None)  # type: ignore[arg-type]
    for kind in ("evidence", "loss", "check", "pictures", "calibration"):
        with pytest.raises(ValueError, match=f"cannot draw '{kind}': the report has no "):
            samples.quadrant().plot(kind)


def test_curves_are_the_history() -> None:
    axes = samples.whole().plot("evidence").axes[0]
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}  # type: ignore[union-attr]
    n = 2000
    assert lines["fit: log likelihood"] == [[2, -2500 / n], [3, -700 / n], [3, -600 / n]]
    assert lines["log evidence"] == [[2, -4000 / n], [3, -2000 / n], [3, -1234.5 / n]]
    loss = samples.whole().plot("loss").axes[0].lines[0]
    assert loss.get_xydata().tolist() == [[1, 2.5], [2, 1.25], [3, 0.5]]  # type: ignore[union-attr]
    assert samples.whole().plot("loss").axes[0].get_yscale() == "log"


def test_a_density_may_have_a_negative_loss() -> None:
    history = tuple(replace(step, train_nll=1.0 - step.epoch) for step in samples.whole().history)
    report = replace(samples.whole(), history=history)
    assert report.plot("loss").axes[0].get_yscale() == "linear"


def test_pixels_of_a_map_have_their_colours() -> None:
    (axes,) = replace(samples.whole(), pictures=(samples.picture(n=1),)).plot("pictures").axes
    drawn = axes.images[0].get_array()
    assert drawn is not None
    cell = 32 // 3
    first, last = drawn[1, 1], drawn[3 * cell, 3 * cell]
    assert first[2] > 90 > first[0]  # -127: dark blue
    assert abs(int(last[2]) - int(first[2])) < 60  # -119 is hardly lighter
    assert tuple(drawn[0, 0]) == (128, 128, 128, 255)
    assert drawn[0, 3 * cell + 3, 3] == 0  # clear behind the first map
