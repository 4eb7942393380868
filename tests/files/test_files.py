"""Every format on disk: the same probabilities and labels come back; damaged files say which they are."""

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from image_folders import make_image
from PIL import Image

from rankseg_plugins.files.cases import find_cases, one_against_rest, relabel
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.reading import LABEL_KEYS, PROBABILITY_KEYS, Stack, read_labels, read_probs

PROBS, LABELS = make_image(0)


def save_probs(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(array), path)
    else:
        np.savez_compressed(path, probs=array)


def save_damaged_nifti(path):
    """The header says that the volume is larger than the disk."""
    nibabel.save(nibabel.Nifti1Image(LABELS, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
    path.write_bytes(data)


class Opener:
    def __reduce__(self):
        return Path.write_text, (Path("hacked"), "x")


def pickled():
    return np.array([Opener()], dtype=object)


def write_member(path, name, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)


def huge_header():
    """An array of a hundred million terabytes, as flipped bits make it."""
    header = io.BytesIO()
    shape = (10**10, 10**10)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def npz_bytes():
    file = io.BytesIO()
    np.savez(file, probs=PROBS)
    return file.getvalue()


def png(width, height, depth, kind, rows, *chunks):
    """A PNG made byte by byte, as no Pillow writes it."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pt"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities(tmp_path, suffix, dtype):
    path = tmp_path / f"a{suffix}"
    save_probs(path, PROBS.astype(dtype))
    found, reverse = read_probs(path)
    assert not reverse
    assert torch.equal(found, torch.from_numpy(PROBS.astype(dtype)))


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "longdouble", "<f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_that_numpy_writes(tmp_path, dtype, order):
    array = np.asarray(np.stack([PROBS, PROBS[::-1]]), dtype, order=order)
    np.save(tmp_path / "one.npy", array[1])
    np.save(tmp_path / "all.npy", array)
    np.savez(tmp_path / "all.npz", probs=array)
    expected = torch.from_numpy(array[1].astype(np.float64))
    for found in (
        read_probs(tmp_path / "one.npy")[0],
        Stack(tmp_path / "all.npy", PROBABILITY_KEYS).probs(1),
        Stack(tmp_path / "all.npz", PROBABILITY_KEYS).probs(1),
    ):
        assert torch.equal(found.double(), expected)
    np.save(tmp_path / "labels.npy", LABELS.astype(dtype))
    assert torch.equal(read_labels(tmp_path / "labels.npy"), torch.from_numpy(LABELS.astype(np.int64)))


def test_floats_of_eight_bits(tmp_path):
    probs = torch.tensor([[0.5, 0.25], [0.5, 0.75]])
    torch.save(probs.to(torch.float8_e4m3fn), tmp_path / "a.pt")
    assert torch.equal(read_probs(tmp_path / "a.pt")[0], probs)


def test_more_forms_of_probabilities(tmp_path):
    np.savez(tmp_path / "only.npz", anything=PROBS)
    assert torch.equal(read_probs(tmp_path / "only.npz")[0], torch.from_numpy(PROBS))
    torch.save({"probs": torch.from_numpy(PROBS).bfloat16(), "name": "x"}, tmp_path / "a.pt")
    assert torch.equal(read_probs(tmp_path / "a.pt")[0], torch.from_numpy(PROBS).bfloat16().float())
    for key in ("softmax", "probabilities"):
        np.savez(tmp_path / "nnunet.npz", **{key: PROBS})
        assert read_probs(tmp_path / "nnunet.npz")[1]


def test_labels(tmp_path):
    expected = torch.from_numpy(LABELS.astype(np.int64))
    Image.fromarray(LABELS).save(tmp_path / "grey.png")
    indexed = Image.fromarray(LABELS, mode="P")
    indexed.putpalette(list(range(256)) * 3)
    indexed.save(tmp_path / "palette.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "wide.png")
    np.save(tmp_path / "a.npy", LABELS.astype(np.float64))
    np.savez(tmp_path / "a.npz", seg=LABELS)
    torch.save(torch.from_numpy(LABELS), tmp_path / "a.pt")
    for name in ("grey.png", "palette.png", "wide.png", "a.npy", "a.npz", "a.pt"):
        assert torch.equal(read_labels(tmp_path / name), expected), name
    Image.fromarray(LABELS == 1).save(tmp_path / "binary.png")
    assert torch.equal(read_labels(tmp_path / "binary.png"), (expected == 1).long())


@pytest.mark.parametrize(
    ("depth", "kind", "row", "chunks", "expected"),
    [
        (1, 0, [0b10110000], [], [1, 0, 1, 1]),
        (2, 0, [0b00011011], [], [0, 1, 2, 3]),  # which Pillow reads as 0, 85, 170, 255
        (4, 0, [0x1F, 0x07], [], [1, 15, 0, 7]),
        (2, 0, [0b00011011], [(b"tRNS", b"\0\1")], [0, 1, 2, 3]),
        (8, 0, [3, 85, 170, 255], [], [3, 85, 170, 255]),
        (16, 0, [1, 44, 0, 5, 0, 0, 255, 255], [], [300, 5, 0, 65535]),
        (2, 3, [0b00011011], [(b"PLTE", bytes(12))], [0, 1, 2, 3]),
        (8, 3, [3, 0, 1, 2], [(b"PLTE", bytes(12)), (b"tRNS", b"\0\xff")], [3, 0, 1, 2]),
    ],
)
def test_png_as_stored(tmp_path, depth, kind, row, chunks, expected):
    (tmp_path / "a.PNG").write_bytes(png(4, 1, depth, kind, bytes([0, *row]), *chunks))
    assert read_labels(tmp_path / "a.PNG").tolist() == [expected]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nnunet_volume(tmp_path, suffix):
    """nnU-Net writes (C, z, y, x), a NIfTI file of the same volume holds (x, y, z)."""
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)  # (z, y, x)
    probs = np.eye(3, dtype=np.float32)[labels].transpose(3, 0, 1, 2)
    (tmp_path / "probs").mkdir()
    (tmp_path / "labels").mkdir()
    np.savez(tmp_path / "probs/case_1.npz", probabilities=probs)
    nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), np.eye(4)), tmp_path / f"labels/case_1{suffix}")
    sample = find_cases(tmp_path / "probs", tmp_path / "labels").cases[0].sample()
    assert torch.equal(sample.probs.argmax(0), sample.labels)
    np.savez(tmp_path / "probs/case_1.npz", probs=probs.transpose(0, 3, 2, 1))
    sample = find_cases(tmp_path / "probs", tmp_path / "labels").cases[0].sample()
    assert torch.equal(sample.probs.argmax(0), sample.labels)


def test_nnunet_plain_picture(tmp_path):
    (tmp_path / "probs").mkdir()
    (tmp_path / "labels").mkdir()
    np.savez(tmp_path / "probs/a.npz", probabilities=PROBS[:, None])
    Image.fromarray(LABELS).save(tmp_path / "labels/a.png")
    sample = find_cases(tmp_path / "probs", tmp_path / "labels").cases[0].sample()
    assert sample.labels.shape == (1, 16, 20)


def test_matching_by_stem(folders):
    (folders / "labels/image03.png").unlink()
    np.save(folders / "labels/other.npy", LABELS)
    (folders / "labels/notes.txt").write_text("not a label")
    found = find_cases(folders / "probs", folders / "labels")
    assert [case.name for case in found.cases] == [f"image{i:02d}" for i in range(12) if i != 3]
    assert found.unmatched == [str(folders / "probs/image03.npz"), str(folders / "labels/other.npy")]
    sample = found.cases[3].sample()
    probs, labels = make_image(4)
    assert torch.equal(sample.probs, torch.from_numpy(probs))
    assert torch.equal(sample.labels, torch.from_numpy(labels.astype(np.int64)))
    np.save(folders / "labels/image00.npy", LABELS)
    with pytest.raises(InputError, match=r"image00.png: image00.npy has the same name"):
        find_cases(folders / "probs", folders / "labels")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_all_images_in_one_file(tmp_path, save):
    images = [make_image(i) for i in range(5)]
    probs, labels = (np.stack(each) for each in zip(*images, strict=True))
    names = [f"image{i}.png" for i in range(5)]
    save(tmp_path / "all.npz", probs=probs, labels=labels, names=names, classes=["a", "b", "c"])
    found = find_cases(tmp_path / "all.npz")
    assert [case.name for case in found.cases] == [f"image{i}" for i in range(5)]
    assert found.class_names == ["a", "b", "c"]
    for index in (0, 1, 4, 2, 2):  # forwards and back
        sample = found.cases[index].sample()
        assert torch.equal(sample.probs, torch.from_numpy(probs[index]))
        assert torch.equal(sample.labels, torch.from_numpy(labels[index].astype(np.int64)))
    np.save(tmp_path / "probs.npy", probs)
    np.save(tmp_path / "labels.npy", labels)
    again = find_cases(tmp_path / "probs.npy", tmp_path / "labels.npy").cases
    assert torch.equal(again[3].sample().probs, torch.from_numpy(probs[3]))
    (tmp_path / "labels").mkdir()
    for index in (2, 0):
        Image.fromarray(labels[index]).save(tmp_path / f"labels/image{index}.png")
    matched = find_cases(tmp_path / "all.npz", tmp_path / "labels").cases
    assert [case.name for case in matched] == ["image0", "image2"]
    assert torch.equal(matched[1].sample().probs, torch.from_numpy(probs[2]))
    np.save(tmp_path / "labels.npy", labels[:4])
    with pytest.raises(InputError, match=r"labels.npy: holds labels of 4 images, probs.npy has 5"):
        find_cases(tmp_path / "probs.npy", tmp_path / "labels.npy")


def test_a_large_file_is_not_read_as_a_whole(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "all.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("probs.npy", "w", force_zip64=True) as file,
    ):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (5000, 2, 512, 512)}
        )
        file.write(header.getvalue())
        file.write(np.full((3, 2, 512, 512), 0.5, np.float32).tobytes())
    stack = Stack(tmp_path / "all.npz", PROBABILITY_KEYS)  # 10 GB, if it were all there
    assert len(stack) == 5000
    assert (stack.probs(2) == 0.5).all()
    with pytest.raises(InputError, match=r"all.npz: image 3: cannot be read: it ends before its last image"):
        stack.probs(3)
    write_member(tmp_path / "all.npz", "probs.npy", huge_header())
    with pytest.raises(InputError, match=r"all.npz: cannot be read: its header speaks of 10000000000 images, more"):
        Stack(tmp_path / "all.npz", PROBABILITY_KEYS)


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("a.npy", lambda p: np.save(p, np.float32(1)), r"images along the first axis, got the shape \(\)"),
        ("a.npz", lambda p: np.savez(p, probs=np.float32(1)), r"images along the first axis, got the shape \(\)"),
        ("a.npz", lambda p: np.savez(p, probs=np.zeros((0, 3, 4, 4))), r"got the shape \(0, 3, 4, 4\)"),
        ("a.npz", lambda p: np.savez(p, probs=pickled()), "cannot be read: Object arrays"),
        ("a.npy", lambda p: np.save(p, pickled()), "cannot be read: .*Python objects"),
        ("a.npz", lambda p: write_member(p, "probs.npy", b"no array"), "cannot be read: the magic string"),
        ("a.pt", lambda p: torch.save(torch.ones(2, 3, 4), p), "one file of all images must be .npz or .npy"),
        ("a.nii", save_damaged_nifti, "one file of all images must be .npz or .npy"),
    ],
)
def test_bad_files_of_all_images(tmp_path, name, save, message):
    save(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        find_cases(tmp_path / name)


def test_the_image_of_a_file_of_all_is_named(tmp_path):
    probs, labels = (np.stack([each] * 3) for each in (PROBS, LABELS.astype(float)))
    labels[1, 0, 0] = 0.5
    np.savez(tmp_path / "all.npz", probs=probs, labels=labels, names=["a.png", "b.png", "c.png"])
    cases = find_cases(tmp_path / "all.npz").cases
    assert cases[2].sample().name == "c"
    with pytest.raises(InputError, match=r"all.npz: image b: labels must be whole numbers .* got 0.5"):
        cases[1].sample()


def test_labels_changed_on_the_way(folders):
    case = find_cases(folders / "probs", folders / "labels").cases[0]
    sample, binary = case.sample(), one_against_rest(case, 2, 255).sample()
    assert torch.equal(binary.probs, sample.probs[2:3])
    assert torch.equal(binary.labels == 1, sample.labels == 2)
    assert torch.equal(binary.labels == 255, sample.labels == 255)
    changed = relabel(case, {255: 1, 1: 0}).sample().labels  # all at once, not one after the other
    assert torch.equal(changed == 1, sample.labels == 255)
    with pytest.raises(InputError, match=r"image00.npz: has 3 channels: there is no class 3"):
        one_against_rest(case, 3, None).sample()


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("a.npz", lambda p: p.write_bytes(b""), "no complete .npz archive"),
        ("a.npz", lambda p: np.savez(p, x=PROBS, y=PROBS), "must hold an array called probs or .* got x, y"),
        ("a.npz", lambda p: np.savez(p, probs=pickled()), "cannot be read: Object arrays"),
        ("a.npy", lambda p: np.save(p, pickled()), "cannot be read: Object arrays"),
        ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY"), "cannot be read"),
        ("a.npy", lambda p: np.save(p, LABELS), "probabilities must be floating point, got uint8"),
        ("a.npy", lambda p: np.save(p, PROBS[0, 0]), r"must have shape \(C, \*spatial\), got \(20,\)"),
        ("a.pt", lambda p: p.write_bytes(pickle.dumps(Opener())), "weights_only"),
        ("a.pt", lambda p: torch.save(Opener(), p), "weights_only"),
        ("a.pt", lambda p: torch.save({"x": torch.ones(2), "y": torch.ones(2)}, p), "must hold an array called"),
        ("a.pt", lambda p: torch.save([1], p), "must hold a tensor, got list"),
        ("a.pt", lambda p: torch.save(torch.from_numpy(PROBS).to_sparse(), p), "cannot be read: .*[Ss]parse"),
        ("a.pt", lambda p: torch.save(torch.quantize_per_tensor(torch.rand(3, 4), 0.1, 0, torch.quint8), p), "QUInt8"),
        ("a.pt", lambda p: torch.save(torch.rand(3, 4) + 1j, p), "must be floating point, got complex64"),
        ("a.pt", lambda p: torch.save(torch.empty(3, 4, device="meta"), p), "cannot be read: .*meta"),
        ("a.pt", lambda p: torch.save({0: torch.ones(2), 1: torch.ones(2)}, p), "must hold an array .* got 0, 1"),
        ("a.npz", lambda p: write_member(p, "probs.npy", b"no array"), "cannot be read: the magic string"),
        ("a.npz", lambda p: write_member(p, "probs", b"no array"), "must hold an array called .* got none"),
        ("a.npz", lambda p: write_member(p, "probs.npy", huge_header()), "cannot be read"),
        ("a.npz", lambda p: np.savez(p, probs=PROBS, softmax=PROBS), "both probs and softmax: which one is meant"),
        ("a.npy", lambda p: p.write_bytes(huge_header()), "cannot be read"),
        ("a.npy", lambda p: p.write_bytes(npz_bytes()), "cannot be read: the magic string"),
        ("a.npy", lambda p: np.save(p, (255 * PROBS).astype(np.uint8)), "got uint8: divide by what"),
        ("a.pt", lambda p: None, "No such file"),
        ("a.npz", lambda p: None, "No such file"),
        ("a.npy", lambda p: p.mkdir(), "Is a directory"),
    ],
)
# What torch says of such files itself is not the matter here.
@pytest.mark.filterwarnings(
    "ignore:Detected pickle protocol 4", "ignore:torch.quantize_per_tensor", "ignore:TypedStorage"
)
def test_bad_probabilities(tmp_path, monkeypatch, name, save, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_probs(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert not Path("hacked").exists()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.pt", "a.png", "a.nii.gz", "a.nii"])
def test_cut_off(tmp_path, name, keep):
    path, noise = tmp_path / name, np.random.default_rng(0).integers(0, 200, (40, 50, 3)).astype(np.uint8)
    if name.endswith(".png"):
        Image.fromarray(noise[..., 0]).save(path)
    elif ".nii" in name:
        nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    else:
        save_probs(path, noise.astype(np.float32) / 255)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        (read_labels if name.endswith((".png", ".nii", ".gz")) else read_probs)(path)


def test_damaged_inside(tmp_path):
    """The directory of the archive is whole, the compressed data are not."""
    save_probs(tmp_path / "a.npz", PROBS)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000:1040] = bytes(40)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match=r"a.npz: cannot be read"):
        read_probs(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("a.png", lambda p: Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(p), "one channel .* got mode RGB"),
        ("a.png", lambda p: p.write_text("no picture"), "cannot identify"),
        ("a.png", lambda p: Image.fromarray(LABELS).save(p, "JPEG"), "it is a JPEG by the name of a PNG"),
        (
            "a.png",
            lambda p: p.write_bytes(png(20000, 20000, 8, 0, b"")),
            "cannot be read: Image size .400000000 pixels",
        ),
        ("a.png", lambda p: p.write_bytes(png(1, 1, 8, 4, b"\0\1\2")), "got mode LA"),
        ("a.nii", lambda p: p.write_bytes(bytes(400)), "cannot be read"),
        ("a.nii", save_damaged_nifti, "cannot be read"),
        ("a.nii.gz", lambda p: p.write_bytes(gzip.compress(bytes(1000))[:20]), "cannot be read"),
        ("a.npy", lambda p: np.save(p, np.array([0.5])), "labels must be whole numbers below 2.63, got 0.5"),
        ("a.npy", lambda p: np.save(p, np.array([np.nan])), "labels must be whole numbers .* got nan"),
        ("a.npy", lambda p: np.save(p, np.array([0, np.inf])), "labels must be whole numbers .* got inf"),
        ("a.npy", lambda p: np.save(p, np.array([0, 1e30])), "labels must be whole numbers .* got 1e.30"),
        ("a.npy", lambda p: np.save(p, np.array([2**64 - 1], np.uint64)), "got 18446744073709551615"),  # not -1
        ("a.npy", lambda p: np.save(p, np.array([1j])), "labels must be whole numbers, got complex128"),
        ("a.npy", lambda p: np.save(p, np.array(["a"])), "labels must be whole numbers"),
    ],
)
def test_bad_labels(tmp_path, name, save, message):
    save(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / name)


def test_nothing_matches(folders, tmp_path):
    for name in ("empty", "other", "tif"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "other/zebra.npy", LABELS)
    for suffix in (".tif", ".jpg"):
        Image.fromarray(LABELS).save(tmp_path / f"tif/image00{suffix}")
    np.savez(tmp_path / "one.npz", labels=np.zeros((1, 2, 2)))
    for probs, labels, message in [
        (tmp_path / "none", None, "none: no such file or folder"),
        (folders / "probs", tmp_path / "empty", r"empty: holds no .png, .nii.gz, .* or .pt file$"),
        (tmp_path / "empty", folders / "labels", r"empty: holds no .npz, .npy or .pt file$"),
        (folders / "probs", tmp_path / "other", "1 labels, such as zebra; 12 probabilities, such as image00"),
        (folders / "probs", tmp_path / "tif", r"tif: holds no .png, .* or .pt file; it holds .jpg, .tif$"),
        (folders / "probs", tmp_path / "one.npz", "one.npz: must be a folder"),
        (tmp_path / "one.npz", None, "must hold an array called probs .* got labels"),
    ]:
        with pytest.raises(InputError, match=message):
            find_cases(probs, labels).cases[0].sample()
    assert len(Stack(tmp_path / "one.npz", LABEL_KEYS)) == 1


def test_size_of_labels(folders):
    Image.fromarray(LABELS[:8]).save(folders / "labels/image00.png")
    with pytest.raises(InputError, match=r"image00.png: labels of size 8 x 20 for probabilities of size 16 x 20 in"):
        find_cases(folders / "probs", folders / "labels").cases[0].sample()
