"""Pictures of strangers: formats, sizes and damage, and that none of them starts a program."""

import ast
import io
import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dfnas_ray
from dfnas_ray.datasets import ImageFolderConfig, ParquetConfig, TorchvisionDatasetConfig
from dfnas_ray.datasets.base import iterate_batches
from dfnas_ray.errors import DatasetError, ShardError
from dfnas_ray.report.samples import read_samples
from dfnas_ray.storage.location import Location
from dfnas_ray.storage.manifest import Manifest
from dfnas_ray.storage.pictures import FORMATS, MAX_PIXELS, PictureError, decode_picture
from dfnas_ray.storage.shards import ShardInfo, decode_shard, encode_shard, manifest_entry

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(x) (w) file closefile\nshowpage\n%%EOF\n"


def encoded(kind="PNG", image=None):
    buffer = io.BytesIO()
    (image or Image.new("RGB", (4, 4), (10, 20, 30))).save(buffer, kind)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that says how large it is, and has a few bytes of pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def write_parquet(path, values, kind=None):
    image = pa.StructArray.from_arrays(
        [pa.array(values, kind or pa.binary()), pa.array(["x"] * len(values))], ["bytes", "path"]
    )
    pq.write_table(pa.table({"image": image, "label": pa.array([0] * len(values), pa.int64())}), path)
    return path


def read(config):
    return list(iterate_batches(config.open(), (3, 4, 4), num_classes=1))


def shard_with(png):
    """A shard of two images whose second one was replaced."""
    info = ShardInfo(key="k", shard=0, num_shards=1, teacher="t", curves=[])
    numbers = np.zeros(2, np.int64)
    whole = encode_shard(info, np.zeros((2, 1, 4, 4), np.uint8), numbers, numbers, np.zeros((2, 3), np.float32))
    table = pq.read_table(pa.BufferReader(whole))
    image = pa.array([table["image"][0].as_py(), {"bytes": png, "path": "x"}], table.schema.field("image").type)
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(0, table.schema.field("image"), image), sink)
    return bytes(sink.getvalue())


@pytest.fixture
def no_process(monkeypatch, tmp_path_factory):
    """Note every start of a process, and have a Ghostscript that would leave a trace."""
    started = []

    def note(name):
        def called(*arguments, **_):
            started.append((name, arguments))
            raise AssertionError(f"{name}{arguments}")

        return called

    folder = tmp_path_factory.mktemp("bin")
    for name in ("gs", "gswin32c", "gswin64c"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {folder}/called\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", str(folder / "gs"))
    monkeypatch.setattr(subprocess, "Popen", note("Popen"))
    for name in dir(os):
        if name.startswith(("exec", "posix_spawn", "spawn", "fork", "system", "popen")):
            monkeypatch.setattr(os, name, note(name))
    yield
    assert started == []
    assert not (folder / "called").exists()


def test_the_hook_notices_what_pillow_does_by_itself(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr(subprocess, "check_call", lambda *arguments, **_: calls.append(arguments) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Image.open(io.BytesIO(EPS)).load()
    assert calls


def test_an_eps_in_a_parquet_column_is_an_error_and_starts_nothing(no_process, tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [encoded(), EPS])
    with pytest.raises(
        DatasetError, match=r"image 1 cannot be read: .*x\.parquet, row 1: it is damaged or none of PNG, JPEG"
    ):
        read(ParquetConfig(kind="parquet", path=str(path)))


def test_an_eps_in_a_folder_is_an_error_and_starts_nothing(no_process, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(EPS)
    with pytest.raises(DatasetError, match=r"image 0 cannot be read: .*a/x\.png: it is damaged or none of PNG"):
        read(ImageFolderConfig(kind="image_folder", path=tmp_path))


def test_an_eps_in_a_folder_that_torchvision_reads_is_an_error_and_starts_nothing(no_process, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(EPS)
    with pytest.raises(DatasetError, match="image 0 cannot be read: it is damaged or none of PNG"):
        read(TorchvisionDatasetConfig(kind="torchvision", name="ImageFolder", root=tmp_path))
    assert Image.open.__module__ == "PIL.Image"


@pytest.mark.parametrize("data", [EPS, encoded("JPEG")])
def test_an_eps_in_a_shard_is_an_error_and_starts_nothing(no_process, data):
    with pytest.raises(ShardError, match=r"Shard here .*row 1: it is damaged or none of PNG\b"):
        decode_shard(shard_with(data), "k", "here")


def test_an_eps_in_a_shard_is_named_by_the_report_and_starts_nothing(no_process, tmp_path):
    (tmp_path / "shard-00000.parquet").write_bytes(shard_with(EPS))
    entry = manifest_entry(0, shard_with(EPS), 2)
    manifest, problems = Manifest(key="k", shards=(entry,)), []
    samples = read_samples(Location.parse(tmp_path), manifest, problems)
    assert samples is not None  # the other image
    assert problems == ["shard-00000.parquet, row 1 of row group 0: it is damaged or none of PNG"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_stated_formats_are_decoded(kind):
    image = decode_picture(encoded(kind))
    assert image.size == (4, 4)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - [10, 20, 30]).max() <= 4


def test_of_a_gif_the_first_frame_counts():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert decode_picture(buffer.getvalue()).convert("RGB").getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PDF", "PCX", "SGI", "DDS", "IM", "MSP", "JPEG2000", "EPS"])
def test_other_formats_are_refused(kind):
    mode = "1" if kind == "MSP" else "RGB"
    with pytest.raises(PictureError, match="damaged or none of"):
        decode_picture(encoded(kind, Image.new(mode, (16, 16))))


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (10_000, 10_000), (1, MAX_PIXELS + 1), (2**31 - 1, 1)])
def test_a_header_with_too_many_pixels_is_refused_before_they_are_decoded(width, height, recwarn):
    with pytest.raises(PictureError, match=r"it has (more than|.* x .*) .*pixels"):
        decode_picture(png_header(width, height))
    assert list(recwarn) == []


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1)])
def test_a_picture_that_would_be_too_large_when_it_is_resized_is_refused(tmp_path, size):
    path = write_parquet(tmp_path / "x.parquet", [encoded("PNG", Image.new("L", size))])
    dataset = ParquetConfig(kind="parquet", path=str(path)).open()
    with pytest.raises(DatasetError, match=r"image 0: 1(,000,000)? x 1(,000,000)? pixels cannot be resized"):
        list(iterate_batches(dataset, (3, 224, 224), num_classes=1))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["text"], pa.string()),
        ([5], pa.int64()),
        ([[1, 2]], pa.list_(pa.int64())),
        ([{"a": 1}], pa.struct([("a", pa.int64())])),
        ([None], pa.null()),
    ],
)
def test_a_column_that_holds_no_bytes_is_refused(tmp_path, values, kind):
    path = write_parquet(tmp_path / "x.parquet", values, kind)
    with pytest.raises(DatasetError, match=r"x\.parquet\) has image\.bytes of type .*, not binary"):
        read(ParquetConfig(kind="parquet", path=str(path)))


@pytest.mark.parametrize("value", ["text", 5, [1], {"a": 1}, None, io.BytesIO(b"x")])
def test_what_is_no_bytes_is_refused_by_the_decoder(value):
    with pytest.raises(PictureError, match=r"it has (no bytes|an? \w+ instead of bytes)"):
        decode_picture(value)


def test_rows_without_bytes_or_label_are_named_with_their_file(tmp_path):
    write_parquet(tmp_path / "0.parquet", [encoded(), encoded()])
    write_parquet(tmp_path / "1.parquet", [encoded(), None])
    with pytest.raises(DatasetError, match=r"image 3 cannot be read: .*1\.parquet, row 1: it has no bytes"):
        read(ParquetConfig(kind="parquet", path=str(tmp_path)))
    table = pq.read_table(tmp_path / "0.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([0, None], pa.int64())), tmp_path / "2.parquet")
    with pytest.raises(DatasetError, match=r"2\.parquet, row 1: it has no label"):
        read(ParquetConfig(kind="parquet", path=str(tmp_path / "2.parquet")))


def test_a_flipped_bit_in_a_page_with_a_checksum_names_file_and_rows(tmp_path):
    good = pq.read_table(write_parquet(tmp_path / "a.parquet", [encoded()] * 4))
    file = tmp_path / "b.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pq.write_table(good, file, row_group_size=2, **options)
    data = bytearray(file.read_bytes())
    data[data.rindex(b"IDAT") + 5] ^= 1  # in the second row group
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=r"cannot be read \(.*b\.parquet, rows 2 to 3\): .*(CRC|checksum)"):
        read(ParquetConfig(kind="parquet", path=str(tmp_path)))


def test_any_flipped_bit_ends_in_images_or_in_one_error(tmp_path):
    file = write_parquet(tmp_path / "x.parquet", [encoded(), encoded("JPEG")])
    whole, rng, problems = file.read_bytes(), np.random.default_rng(3), []
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        config = ParquetConfig(kind="parquet", path=str(file))
        for use in (lambda: read(config), lambda: config.open().fingerprint):  # noqa: B023 - used at once
            try:
                use()
            except DatasetError as error:
                problems.append(str(error))
    assert len(problems) > 20
    assert [problem for problem in problems if "x.parquet" not in problem] == []


@pytest.mark.parametrize("kind", FORMATS)
def test_any_damage_to_a_picture_is_one_error_or_none(kind):
    whole, rng = encoded(kind, Image.effect_noise((24, 24), 50).convert("RGB")), np.random.default_rng(4)
    problems = []
    for _ in range(200):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(len(data), size=2):
            data[place] = rng.integers(256)
        try:
            decode_picture(bytes(data))
        except PictureError as error:
            problems.append(str(error))
    assert len(problems) > 20
    assert [problem for problem in problems if not problem.startswith("it ")] == []


@pytest.mark.parametrize("name", ["gone.png", "loop.png", "self", "up"])
def test_links_to_nowhere_and_in_circles_are_named(tmp_path, name):
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/a/x.png").write_bytes(encoded())
    target = {"gone.png": "nowhere", "loop.png": "loop.png", "self": ".", "up": "../.."}[name]
    (tmp_path / "root/a" / name).symlink_to(target)
    with pytest.raises(DatasetError, match=rf"evaluation\.dataset\.path .* cannot be used: .*{name}"):
        read(ImageFolderConfig(kind="image_folder", path=tmp_path / "root"))


def test_two_folders_that_link_to_each_other_are_named(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "x.png").write_bytes(encoded())
        (tmp_path / "root" / name / "in").symlink_to(tmp_path / "root" / other)
    with pytest.raises(DatasetError, match="in/in is reached twice through symbolic links"):
        read(ImageFolderConfig(kind="image_folder", path=tmp_path / "root"))


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/x.png").write_bytes(encoded())
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "there")
    ((images, _),) = read(ImageFolderConfig(kind="image_folder", path=tmp_path / "root"))
    assert images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_a_pipe_with_the_name_of_a_picture_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a/x.png")
    with pytest.raises(DatasetError, match=r"a/x\.png is not a regular file"):
        read(ImageFolderConfig(kind="image_folder", path=tmp_path))


def test_names_that_are_not_text_are_read_and_shown_in_errors(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9/a\xff"))
    folder.mkdir(parents=True)
    file = folder / os.fsdecode(b"x\xfe.png")
    file.write_bytes(encoded())
    config = ImageFolderConfig(kind="image_folder", path=folder.parent)
    assert len(read(config)) == 1
    assert config.open().fingerprint
    file.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"a\\udcff/x\\udcfe\.png'?: it is damaged") as raised:
        read(config)
    assert str(raised.value).isprintable()
    for path in ("\ud800", "a\0b", str(folder)):
        with pytest.raises(DatasetError) as raised:
            ParquetConfig(kind="parquet", path=path).open()
        assert str(raised.value).isprintable()


def test_only_one_module_opens_pictures():
    root = Path(dfnas_ray.__file__).parent
    opened = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = (
                isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image")
            )
            name = isinstance(node, ast.ImportFrom) and node.module == "PIL.Image"
            loader = isinstance(node, ast.Name) and node.id in ("pil_loader", "default_loader", "ImageFolder")
            if attribute or name or loader:
                opened.append(path.relative_to(root).as_posix())
    assert set(opened) == {"storage/pictures.py"}
