"""Images matched by name, and labels changed on their way: nothing is lost, and nothing changes twice."""

import itertools

import numpy as np
import pytest
import torch
from image_folders import make_image
from PIL import Image

from rankseg_plugins.files.cases import find_cases, one_against_rest, relabel
from rankseg_plugins.files.errors import InputError

PROBS, LABELS = make_image(0)
ONE = PROBS[1:2]
TRUTH = torch.from_numpy(LABELS.astype(np.int64))


def case_of(folder, probs, labels):
    np.savez(folder / "all.npz", probs=probs[None], labels=labels[None])
    (case,) = find_cases(folder / "all.npz").cases
    return case


def test_mapping_is_simultaneous_whatever_holds_the_labels(tmp_path):
    for dtype in (bool, np.uint8, np.int8, np.float32, np.uint16):
        drawn = (LABELS == 1).astype(dtype)
        for shape in ((16, 20), (1, 16, 20)):
            case = case_of(tmp_path, ONE, drawn.reshape(shape))
            for mapping in ({0: 255, 1: 0}, {1: 2}, {0: 1, 1: 0}, {1: -1}):
                expected = torch.where(TRUTH == 1, mapping.get(1, 1), mapping.get(0, 0))
                assert torch.equal(relabel(case, mapping).sample().labels, expected)


def test_mapping_and_one_class_against_all_others(tmp_path):
    """First the labels are changed, then one of them is chosen, in the order of the calls."""
    case = one_against_rest(relabel(case_of(tmp_path, PROBS, LABELS), {2: 1, 255: 0}), 1, None)
    assert torch.equal(case.sample().labels, torch.from_numpy(np.isin(LABELS, (1, 2)).astype(np.int64)))


def test_a_mask_for_each_class(tmp_path):
    masks = np.stack([label == LABELS for label in range(3)])
    for dtype in (bool, np.uint8, np.float64):
        case = case_of(tmp_path, PROBS, masks.astype(dtype))
        binary = one_against_rest(case, 2, 255).sample()
        assert torch.equal(binary.labels, (TRUTH == 2).long())
        assert torch.equal(binary.probs, torch.from_numpy(PROBS[2:]))
        with pytest.raises(InputError, match=r"all.npz: image 000000: holds a mask for each class, in which no"):
            relabel(case, {0: 1}).sample()
        with pytest.raises(InputError, match="in which no label but 255 can be changed"):
            relabel(case, {255: 1, 2: 1}).sample()


def test_masks_drawn_in_white_for_each_class(tmp_path):
    masks = np.stack([label == LABELS for label in range(3)])
    found = relabel(case_of(tmp_path, PROBS, 255 * masks.astype(np.uint8)), {255: 1}).sample()
    assert found.labels.tolist() == masks.astype(int).tolist()


def test_what_is_no_class_is_no_rest(tmp_path):
    labels = LABELS.copy()
    labels[0, 0] = 7
    with pytest.raises(InputError, match=r"holds the label 7, allowed are 0 to 2 \(--ignore-index 255\)"):
        one_against_rest(case_of(tmp_path, PROBS, labels), 1, 255).sample()
    with pytest.raises(InputError, match="has 1 channels: there is no class 0 with a rest"):
        one_against_rest(case_of(tmp_path, ONE, LABELS == 1), 0, 255).sample()


@pytest.mark.parametrize(
    "names",
    [("im0", "im0"), ("im0.png", "im0.npy"), ("im0.png", "im0"), ("im0.PNG", "im0.png"), ("im0.jpg", "im0.nii.gz")],
)
@pytest.mark.parametrize("beside", ["all", "folder", "labels"])
def test_equal_names_in_a_file_of_all(folders, names, beside):
    names = ["image00", "image01", *names]
    probs, labels = (np.stack([each] * 4) for each in (PROBS, LABELS))
    ours = {"names": names} if beside != "labels" else {}
    np.savez(folders / "all.npz", probs=probs, labels=labels, **ours)
    np.savez(folders / "other.npz", labels=labels, names=names)
    truth = {"all": None, "folder": folders / "labels", "labels": folders / "other.npz"}[beside]
    with pytest.raises(InputError, match=rf"npz: '{names[2]}' and '{names[3]}' are images of the same name"):
        find_cases(folders / "all.npz", truth)


ENDINGS = [".png", ".npy", ".NPY", ".nii", ".nii.gz"]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(ENDINGS, 2)))
def test_equal_names_in_a_folder(tmp_path, first, second):
    for name in ("probs", "labels"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "probs/a.npy", PROBS)
    np.savez(tmp_path / "all.npz", probs=PROBS[None], names=["a"])
    for suffix in (first, second):
        (tmp_path / f"labels/a{suffix}").write_bytes(b"")
    for probs in (tmp_path / "probs", tmp_path / "all.npz"):
        with pytest.raises(InputError, match=r"labels/a\..*: a\..* has the same name: which one is meant"):
            find_cases(probs, tmp_path / "labels")
    (tmp_path / "probs/a.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"probs/a.pt: a.npy has the same name"):
        find_cases(tmp_path / "probs", tmp_path / "labels")


@pytest.mark.parametrize("name", ["probs", "all.npz", "all.npy", "pt", "npy"])
def test_labels_that_are_nowhere_are_asked_for(folders, name):
    """What is wrong is not the array of the probabilities."""
    np.savez(folders / "all.npz", probs=PROBS[None])
    np.save(folders / "all.npy", PROBS[None])
    for suffix in ("pt", "npy"):
        (folders / suffix).mkdir()
    torch.save({"probs": torch.from_numpy(PROBS)}, folders / "pt/image00.pt")
    np.save(folders / "npy/image00.npy", PROBS)
    with pytest.raises(InputError, match=r"(all|image00)\.\w+: holds no labels.*; say where they are: --labels$"):
        find_cases(folders / name)
    if (folders / name).is_dir():
        assert find_cases(folders / name, folders / "labels").cases


def test_labels_beside_each_image_of_a_folder(tmp_path):
    np.savez(tmp_path / "a.npz", probs=PROBS, labels=LABELS)
    torch.save({"probs": torch.from_numpy(PROBS), "seg": TRUTH}, tmp_path / "b.pt")
    assert all(torch.equal(case.sample().labels, TRUTH) for case in find_cases(tmp_path).cases)


def test_images_without_labels_are_listed(folders):
    names = [b"image00.jpg", b"lost.jpg", b"image02.tif"]  # as bytes, as some write them
    np.savez(folders / "all.npz", probs=np.stack([PROBS] * 3), names=names)
    found = find_cases(folders / "all.npz", folders / "labels")
    assert [case.name for case in found.cases] == ["image00", "image02"]
    assert found.unmatched[0] == f"{folders / 'all.npz'}: image lost"
    assert found.unmatched[1] == str(folders / "labels/image01.png")
    assert len(found.unmatched) == 1 + 10


def test_two_files_of_all_in_different_orders(tmp_path):
    probs, labels = np.stack([PROBS] * 2), np.stack([LABELS, LABELS[::-1]])
    np.savez(tmp_path / "probs.npz", probs=probs, names=["a.jpg", "b.jpg"])
    np.savez(tmp_path / "labels.npz", labels=labels, names=["b.png", "a.png"])
    with pytest.raises(InputError, match=r"labels.npz: holds 'b' where probs.npz has 'a'; give both the same order"):
        find_cases(tmp_path / "probs.npz", tmp_path / "labels.npz")
    np.savez(tmp_path / "labels.npz", labels=labels, names=["a.png", "b.png"])
    assert [case.name for case in find_cases(tmp_path / "probs.npz", tmp_path / "labels.npz").cases] == ["a", "b"]
    np.save(tmp_path / "probs.npy", probs)
    assert [case.name for case in find_cases(tmp_path / "probs.npy", tmp_path / "labels.npz").cases] == ["a", "b"]
    np.savez(tmp_path / "probs.npz", probs=probs, names=["a.jpg"])
    with pytest.raises(InputError, match=r"probs.npz: holds 1 names for 2 images"):
        find_cases(tmp_path / "probs.npz", tmp_path / "labels.npz")


def test_links(folders):
    """What a link leads to is read; one that leads nowhere is a file that cannot be read, not none."""
    (folders / "probs/image03.npz").rename(folders / "elsewhere.npz")
    (folders / "probs/image03.npz").symlink_to(folders / "elsewhere.npz")
    (folders / "labels/image04.png").unlink()
    (folders / "labels/image04.png").symlink_to(folders / "nowhere.png")
    found = find_cases(folders / "probs", folders / "labels")
    assert [len(found.cases), found.unmatched] == [12, []]
    assert torch.equal(found.cases[3].sample().probs, torch.from_numpy(make_image(3)[0]))
    with pytest.raises(InputError, match=r"labels/image04.png: cannot be read: No such file or directory"):
        found.cases[4].sample()


def test_capital_suffixes_and_what_is_no_image(folders):
    for path in (folders / "labels").iterdir():
        path.rename(path.with_suffix(".PNG"))
    (folders / "labels/._image00.png").write_bytes(b"")
    (folders / "labels/image01.npy").mkdir()
    found = find_cases(folders / "probs", folders / "labels")
    assert [len(found.cases), found.unmatched] == [12, []]
    assert torch.equal(found.cases[0].sample().labels, TRUTH)


@pytest.mark.parametrize("content", [b"a\nb\nc\n\n  \n", "\ufeffa\r\nb\r\nc".encode(), b" a\nb \nc"])
def test_names_of_classes(folders, content):
    (folders / "labels/classes.txt").write_bytes(content)
    found = find_cases(folders / "probs", folders / "labels")
    assert found.class_names == ["a", "b", "c"]
    assert found.named_in == folders / "labels/classes.txt"


def test_names_of_classes_in_another_encoding(folders):
    (folders / "labels/classes.txt").write_bytes("Straße\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes.txt: cannot be read: 'utf-8' codec"):
        find_cases(folders / "probs", folders / "labels")


def test_labels_with_one_channel(folders):
    np.save(folders / "labels/image00.npy", LABELS[None])
    (folders / "labels/image00.png").unlink()
    assert torch.equal(find_cases(folders / "probs", folders / "labels").cases[0].sample().labels, TRUTH)
    Image.fromarray(LABELS[:8]).save(folders / "labels/image01.png")
    with pytest.raises(InputError, match=r"image01.png: labels of size 8 x 20 for probabilities of size 16 x 20"):
        find_cases(folders / "probs", folders / "labels").cases[1].sample()
