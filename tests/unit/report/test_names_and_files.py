"""What the page and the model card say of single classes, of the network's files, and of who is called what."""

from __future__ import annotations

import json
import re

import pytest

from dfnas_ray.report.artefacts import read_artefacts
from dfnas_ray.report.card import escaped, write_card
from dfnas_ray.report.page import write_report
from dfnas_ray.synthesis.quality import QualityReport
from dfnas_ray.synthesis.verdict import Finding, Verdict
from dfnas_ray.teachers.facts import TeacherDescription

NAMES = ("cat", "<b>dog</b> | x", "owl")


def describe_teacher(run, names=NAMES, sha256="f" * 64):
    TeacherDescription(
        name="digits", sha256=sha256, image_shape=(1, 8, 8), num_classes=3, mean=(0.5,), std=(0.25,), class_names=names
    ).write(run.location)


def page_of(run):
    return write_report(run).read_bytes().decode()


def card_of(run):
    return write_card(run).read_bytes().decode()


def classes_table(page):
    section = page.split("<h3>Accuracy of each class</h3>")[1].split("</section>")[0]
    rows = re.findall(r"<tr><th scope=\"row\"[^>]*>(.*?)</th>(.*?)</tr>", section)
    return [(name, *re.findall(r">([^<>]+)<", cells)) for name, cells in rows], section


def test_every_class_with_its_images_and_what_each_network_makes_of_them(finished_run):
    describe_teacher(finished_run)
    rows, section = classes_table(page_of(finished_run))
    assert rows == [
        ("cat", "6", "100.0\u202f%", "100.0\u202f%", "83.3\u202f%"),
        ("&lt;b&gt;dog&lt;/b&gt; | x", "4", "75.0\u202f%", "50.0\u202f%", "50.0\u202f%"),
        ("&lt;b&gt;dog&lt;/b&gt; | x", "owl", "2", "50.0\u202f%"),  # the one mistake: dogs that are taken for owls
    ]
    assert "1 class has no image" in section


def test_names_are_those_of_the_teacher_that_made_the_images(finished_run):
    assert "class 1" in page_of(finished_run)  # nobody named them
    describe_teacher(finished_run)
    page = page_of(finished_run)
    assert ">cat<" in page
    assert "class 1" not in page
    describe_teacher(finished_run, sha256="e" * 64)
    assert "class 1" in page_of(finished_run)


def test_of_many_classes_the_worst_are_shown(run, add, space):
    from dfnas_ray.report.classes_section import classes_section
    from dfnas_ray.report.search_section import network_roles

    synthesis = add.synthesis(run)
    network = add.network(run, "retraining", add.searched, synthesis, space)
    add.evaluation(run, {"retraining": network})
    file = run.latest_stage("evaluation") / "done.json"
    record = file.read_json()
    record["images_of_class"] = [10] * 30
    for name in record["networks"]:
        record["networks"][name]["correct"] = [10 - (number * 7) % 10 for number in range(30)]
    file.write_json(record)
    artefacts = read_artefacts(run)
    section = classes_section(artefacts, network_roles(artefacts))
    assert (len(section.rows), section.left_out) == (12, 18)
    assert [row.accuracies[1] for row in section.rows] == sorted(row.accuracies[1] for row in section.rows)
    assert section.rows[0].accuracies[1] == 0.1


def test_an_evaluation_of_an_older_version_shows_no_classes(finished_run):
    file = finished_run.latest_stage("evaluation") / "done.json"
    record = file.read_json()
    del record["images_of_class"]
    for network in record["networks"].values():
        del network["correct"]
    file.write_json(record)
    page = page_of(finished_run)
    assert "90.00" in page
    assert "Accuracy of each class" not in page
    assert "Accuracy of each class" not in card_of(finished_run)


def test_a_table_of_mistakes_that_was_altered_is_named(finished_run):
    file = finished_run.latest_stage("evaluation") / "confusion.parquet"
    file.write_bytes(b"PAR1")
    page = page_of(finished_run)
    assert f"{file} does not hold a confusion table" in page
    assert "Accuracy of each class" in page


def test_the_page_names_the_files_and_the_lines_that_load_the_network(finished_run):
    folder = finished_run.latest_stage("retraining")
    (folder / "network.pt2").write_bytes(bytes(2000))
    page = page_of(finished_run)
    assert f"network = dfnas_ray.load_network(&#34;{finished_run.location}&#34;)" in page
    assert f"retraining/{folder.name}/network.pt2</code></th><td>a torch.export program: normalised images in" in page
    assert f"dfnas export {finished_run.location}/experiment.yaml" in page
    assert "2.00 kB" in page
    for text in (page, card_of(finished_run)):
        assert "pictures of another size are resized to cover 9 x 9 (bilinear), then cropped to their centre." in text


def test_networks_are_drawn_by_their_macs(finished_run):
    page = page_of(finished_run)
    figure = page.split('aria-label="Accuracy on real images against cost"')[1].split("</svg>")[0]
    assert figure.count("var(--series-3)") >= 2  # the third network: a dot and its interval
    assert 'id="network"' in page


def test_the_card_says_which_real_images_were_read(finished_run, run):
    describe_teacher(finished_run)
    card = card_of(finished_run)
    assert "10 real images were read, once, to measure the accuracies below: ten pictures." in card
    assert "| Searched | arch-retraining | 80.00\u202f% |" in card
    assert "| &lt;b&gt;dog&lt;/b&gt; \\| x | 4 | 75.0\u202f% | 50.0\u202f% | 50.0\u202f% |" in card
    assert "f" * 64 in card
    assert f'load_network("{finished_run.location.name}")' in card
    assert f"dfnas run {finished_run.location.name}/experiment.yaml" in card


def test_without_an_evaluation_the_card_says_that_nobody_knows_the_accuracy(run, add, space):
    synthesis = add.synthesis(run)
    assert write_card(run) is None
    add.network(run, "retraining", add.searched, synthesis, space)
    card = card_of(run)
    assert "No real image was read to measure it, so its accuracy on real images is unknown." in card
    assert "agrees with the teacher on" in card


@pytest.mark.parametrize("takes", ["uint8", "float32", None])
def test_the_card_says_what_programs_take(finished_run, takes):
    file = finished_run.latest_stage("retraining") / "network.json"
    description = {**file.read_json(), "program": takes}
    file.write_json({name: value for name, value in description.items() if value is not None})
    card = card_of(finished_run)
    assert ("takes images that are normalised already" in card) == (takes is None)
    assert ("The programs take uint8 images of the same size" in card) == (takes == "uint8")
    assert ("The programs take float32 images in [0, 1] of the same size" in card) == (takes == "float32")


@pytest.mark.parametrize("content", [b"null", b"[]", json.dumps({"name": "digits"}).encode()])
def test_a_description_of_the_teacher_that_was_altered_is_named(finished_run, content):
    file = finished_run.location / "teacher.json"
    file.write_bytes(content)
    page = page_of(finished_run)
    assert str(file) in page
    assert "class 1" in page


def test_text_of_users_cannot_become_markdown():
    assert escaped("a|b\n# c") == "a\\|b \\# c"
    assert escaped("<script>&[x](y)`z`*_") == "&lt;script&gt;&amp;\\[x\\](y)\\`z\\`\\*\\_"


def test_the_card_names_no_path_of_this_machine(finished_run, monkeypatch, tmp_path):
    place = finished_run.location
    monkeypatch.chdir(tmp_path.parent)
    here = str(tmp_path.parent)
    card = card_of(finished_run)
    assert here not in card
    assert f'load_network("{place.path.removeprefix(here)[1:]}")' in card
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    card = card_of(finished_run)
    assert here not in card
    assert f'load_network("{place.name}")' in card


def test_what_speaks_against_the_images_stands_above_the_results(run, add):
    verdict = Verdict(
        summary="The images are doubtful.",
        findings=(Finding(kind="statistics", text="They are <far> away.", advice="Come closer."),),
    )
    add.synthesis(run, verdict=verdict)
    page = page_of(run)
    notice = page.split("<h2>Look at this first</h2>")[1].split("</aside>")[0]
    assert "The images are doubtful." in notice
    assert "They are &lt;far&gt; away. Come closer." in notice
    add.synthesis(run, verdict=Verdict(summary="Nothing speaks against the images: all is well."))
    page = page_of(run)
    assert "Look at this first" not in page
    assert "Nothing speaks against the images: all is well." in page.split("<h3>Quality</h3>")[1]


def test_the_card_has_the_verdict_on_its_images(finished_run):
    assert "## Look at this first" not in card_of(finished_run)


def test_a_set_of_one_round_shows_what_was_measured_of_the_whole(run, add):
    stage = add.synthesis(run, rounds=1)
    found = QualityReport.find(stage.location)
    found.model_copy(update={"overall": {**found.overall, "student_agreement": 0.875}}).write(stage.location)
    assert "87.5\u202f%" in page_of(run).split("<h3>Quality</h3>")[1]
