"""The page: self-contained, complete, safe with any text, honest about what is missing."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from dfnas_ray.errors import StorageError
from dfnas_ray.report.page import write_report
from dfnas_ray.storage.run_dir import RunDir


def page_of(run):
    return write_report(run).read_bytes().decode()


class Collector(HTMLParser):
    """Collects what a browser would load, and the ids."""

    def __init__(self):
        super().__init__()
        self.loaded, self.ids, self.tags, self.references = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and tag in ("link", "base")):
                self.loaded.append(value)
            if name in ("href", "xlink:href"):
                self.references.append(value)
            if name == "id":
                self.ids.append(value)


def collect(page):
    collector = Collector()
    collector.feed(page)
    return collector


def test_the_report_is_one_file_that_loads_nothing(finished_run):
    page = page_of(finished_run)
    parsed = collect(page)
    assert parsed.loaded  # the images
    assert all(value.startswith("data:image/") for value in parsed.loaded)
    assert "script" not in parsed.tags
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?\s*(?:https?:)?//""", page)
    assert "@import" not in page


def test_every_reference_has_its_target_and_no_id_is_given_twice(finished_run):
    parsed = collect(page_of(finished_run))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(reference.startswith("#") for reference in parsed.references)
    assert {reference[1:] for reference in parsed.references} <= set(parsed.ids)


def test_it_shows_accuracies_genotypes_and_the_configuration(finished_run):
    page = page_of(finished_run)
    for text in ("90.00", "80.00", "70.00", "arch-retraining", "49.0", "94.3", "teacher: {kind: digits, width: 16}"):
        assert text in page, text
    assert "ten pictures" in page
    assert "read for this table only" in page
    assert "10 images cannot tell the two apart" in page
    assert "100,000 MACs (50% of the teacher" in page
    assert "f" * 64 in page


def test_a_skipped_layer_that_has_parameters_is_explained(finished_run):
    assert "Where <em>identity</em> has parameters" in page_of(finished_run)  # of the random network


def test_numbers_are_rounded(finished_run):
    page = page_of(finished_run)
    assert "0.0123<" in page
    assert not re.search(
        r">[^<]*\d\.\d{7,}[^<]*<", re.sub(r"<svg.*?</svg>|<style.*?</style>", "", page, flags=re.DOTALL)
    )


def test_two_reports_of_one_run_are_equal(finished_run):
    assert page_of(finished_run) == page_of(finished_run)


def test_text_of_the_user_is_escaped(run, add, space):
    hostile = "<script>alert(1)</script> \"'&"
    (run.location / "experiment.yaml").write_bytes(b'name: "<img src=x>"\n# <script>config</script>\n')
    synthesis = add.synthesis(run, teacher=f"{hostile}</table>")
    network = add.network(run, "retraining", add.searched, synthesis, space)
    add.evaluation(run, {"retraining": network}, dataset=hostile)
    page = page_of(run)
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;script&gt;config" in page
    parsed = collect(page)
    assert "script" not in parsed.tags
    assert all(value.startswith("data:") for value in parsed.loaded)
    assert page.count("</table>") == parsed.tags.count("table")


def test_nothing_finished_says_what_to_run(run, tmp_path):
    with pytest.raises(StorageError, match=r"no finished stage.*dfnas run"):
        write_report(run)
    with pytest.raises(StorageError, match="no finished stage"):
        write_report(RunDir(tmp_path / "absent"))


def test_after_synthesis_alone_the_rest_is_named_with_the_command_that_goes_on(run, add):
    add.synthesis(run)
    page = page_of(run)
    for missing in ("Search", "Retraining", "Random baseline", "Evaluation"):
        assert f"<strong>{missing}</strong>: not finished yet" in page
    assert f"dfnas run {run.location}/experiment.yaml --run-dir {run.location}" in page
    assert 'id="images"' in page
    assert 'id="results"' not in page
    assert "No real image has been read" in page


def test_a_search_without_retraining_is_drawn_for_the_teachers_images(run, add, space):
    add.search(run, add.synthesis(run), space)
    page = page_of(run)
    assert 'id="architecture"' in page
    assert "MB6 5x5" in page
    assert "has parameters" not in page  # no layer is skipped
    assert 'id="retraining"' not in page


def test_a_search_on_other_images_is_outdated_and_not_shown(run, add, space):
    add.search(run, add.synthesis(run), space)
    add.synthesis(run, rounds=1)
    page = page_of(run)
    assert "<strong>Search</strong>: outdated" in page
    assert 'id="search"' not in page


def test_accuracies_of_networks_that_were_replaced_are_not_shown(finished_run, add, space):
    synthesis = finished_run.stage(
        "synthesis", finished_run.latest_stage("synthesis").__truediv__("inputs.json").read_json()
    )
    add.network(finished_run, "retraining", "00", synthesis, space)
    page = page_of(finished_run)
    assert "<strong>Evaluation</strong>: outdated" in page
    assert 'id="results"' not in page


def test_without_real_images_the_report_tells_how_to_evaluate(run, add, space):
    (run.location / "experiment.yaml").write_bytes(b"name: x\nretraining: {baseline: false}\n")
    synthesis = add.synthesis(run)
    add.search(run, synthesis, space)
    add.network(run, "retraining", add.searched, synthesis, space)
    page = page_of(run)
    assert "the experiment names no real images" in page
    assert "dfnas evaluate" in page
    assert "Random baseline" not in page


def test_candidates_are_drawn_against_their_macs_where_they_are_recorded(run, add, space):
    add.search(run, add.synthesis(run), space, candidates=True)
    assert "Score of the candidates" in page_of(run)


def test_settings_changed_since_are_pointed_out(run, add):
    add.synthesis(run)
    assert "now has other settings" not in page_of(run)
    (run.location / "experiment.yaml").write_bytes(b"name: x\nsynthesis: {canvas_margin: 5}\n")
    assert "now has other settings" in page_of(run)


def test_time_that_two_stages_share_is_counted_once(run, add, space):
    synthesis = add.synthesis(run, seconds_beside_search=10.0)
    add.search(run, synthesis, space)
    page = page_of(run)
    assert "Wall time" in page
    assert ">32 s<" in page, "12 + 30 - 10"
    assert ">42 s<" not in page
    assert "10 s of it beside the search" in page


def test_a_damaged_shard_is_named_and_the_others_are_shown(run, add):
    stage = add.synthesis(run)
    (stage.location / "shard-00000.parquet").write_bytes(b"no shard")
    page = page_of(run)
    assert "Not readable: shard-00000.parquet" in page
    assert "data:image/png" in page


def test_all_shards_missing_still_gives_a_report(run, add):
    stage = add.synthesis(run)
    for name in ("shard-00000.parquet", "shard-00001.parquet"):
        (stage.location / name).delete_file()
    assert "No shard can be read" in page_of(run)


def test_a_thousand_classes_of_large_images_stay_small(run, add):
    stage = add.synthesis(run, num_classes=1000, rounds=6, per_round=60, canvas=(3, 128, 128), num_shards=1)
    page = page_of(run)
    assert len(page) < 4_000_000 < stage.done_file.read_json()["images"] * 128 * 128  # noise, which compresses worst
    assert "988 more" in page.replace("\n", " ")
    assert "neither are rounds 1, 4" in page.replace("\n", " ")


@pytest.mark.parametrize(
    ("module", "absent"), [("dfnas_ray.report.page", ["ray"]), ("dfnas_ray.cli.main", ["ray", "matplotlib"])]
)
def test_the_page_needs_no_ray_and_the_command_line_loads_it_when_it_is_asked_for(module, absent):
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_run_directory_that_moved_is_read_where_it_is(finished_run, tmp_path):
    shutil.copytree(finished_run.location.path, tmp_path / "moved place")
    page = page_of(RunDir(tmp_path / "moved place"))
    assert "moved place/experiment.yaml&#39; --run-dir" in page  # quoted for the shell
