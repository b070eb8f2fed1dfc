"""a folder as IMAP has it: flags, UIDs, what other programs do, and what a crash leaves"""

from __future__ import annotations

import os
import pathlib
import time

import pytest

from tripost.delivery.mailbox import folder_changes as changes
from tripost.delivery.mailbox import keywords
from tripost.delivery.mailbox.cache import NAME as CACHE
from tripost.delivery.mailbox.cache import Cache, Layout
from tripost.delivery.mailbox.flags import DELETED, FLAGGED, SEEN, mask_for, mask_of, named, names_of
from tripost.delivery.mailbox.folder import Folder
from tripost.delivery.mailbox.folder_changes import NewFile
from tripost.delivery.mailbox.index import NAME as INDEX
from tripost.delivery.mailbox.journal import NAME as JOURNAL
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.session import open_mailbox
from tripost.delivery.mailbox.tree import Tree
from tripost.delivery.mailbox.uids import file_name

NOW = 1_700_000_000.0


def fill(box: pathlib.Path, *numbers: int, part: str = "new", info: str = "") -> None:
    make_mailbox(str(box))
    for n in numbers:
        text = b"Subject: %d\r\n\r\nx\r\n" % n
        (box / part / (file_name(f"M{n:04}_0", NOW + n, "h", len(text)) + info)).write_bytes(text)


def opened(box: pathlib.Path, *, claim: bool = True) -> Folder:
    folder = Folder(str(box), NOW)
    folder.refresh(claim=claim)
    return folder


def flags(folder: Folder) -> dict[int, list[str]]:
    rows = folder.rows
    return {uid: names_of(mask, folder.keywords) for uid, mask in zip(rows.uids, rows.masks, strict=True)}


def infos(box: pathlib.Path) -> list[str]:
    return sorted(name.partition(":2,")[2] for name in os.listdir(box / "cur"))


def test_flags_in_names() -> None:
    mask, fresh = mask_for(["\\Seen", "\\Draft", "$Junk", "new", "NEW"], ["a", "$junk"])
    assert (mask, fresh) == (SEEN | 16 | 1 << 6, ["new"])
    assert named("base", mask, "base:2,PTx") == "base:2,DPSb"
    assert mask_of("base:2,DPSb") == mask
    assert mask_of("base") == 0
    assert names_of(mask, ["a", "$junk"]) == ["\\Seen", "\\Draft", "$junk"]


def test_flags_survive_and_show_in_the_names(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1, 2, 3)
    folder = opened(tmp_path)
    assert folder.rows.uids == [1, 2, 3]
    assert folder.fresh == {1, 2, 3}
    mask = changes.mask_in(folder, ["\\Seen", "$Label1"])
    before = folder.journal.highest
    assert changes.store(folder, [1, 3, 9], lambda old: old | mask) == []
    assert folder.journal.highest > before
    assert infos(tmp_path) == ["", "Sa", "Sa"]
    assert not folder.changed
    again = opened(tmp_path)
    assert flags(again) == {1: ["\\Seen", "$Label1"], 2: [], 3: ["\\Seen", "$Label1"]}
    assert again.rows.modseqs == folder.rows.modseqs
    assert (tmp_path / keywords.NAME).read_text() == "0 $Label1\n"
    assert changes.store(again, [1, 2], lambda old: old | FLAGGED, unchanged_since=before) == [1]


def test_what_other_programs_do(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1, 2, 3)
    folder = opened(tmp_path)
    version = folder.version
    names = sorted(os.listdir(tmp_path / "cur"))
    os.rename(tmp_path / "cur" / names[0], tmp_path / "cur" / f"{names[0]}FS")
    os.unlink(tmp_path / "cur" / names[1])
    fill(tmp_path, 4)
    assert folder.changed
    assert folder.refresh(claim=True)
    assert folder.version > version
    assert flags(folder) == {1: ["\\Seen", "\\Flagged"], 3: [], 4: []}
    assert folder.journal.gone_after(0) is None
    assert folder.journal.gone_after(folder.journal.highest - 2) == [2]


def test_a_promised_flag_that_no_name_shows_yet(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 1, 2)
    folder = opened(tmp_path)
    monkeypatch.setattr(Folder, "rename", lambda self, rows: None)  # the machine dies before the renames
    changes.store(folder, [2], lambda old: old | SEEN)
    monkeypatch.undo()
    assert infos(tmp_path) == ["", ""]
    again = opened(tmp_path)
    assert flags(again) == {1: [], 2: ["\\Seen"]}
    assert infos(tmp_path) == ["", "S"]
    name = next(name for name in os.listdir(tmp_path / "cur") if name.endswith("S"))
    os.rename(tmp_path / "cur" / name, tmp_path / "cur" / name.removesuffix("S"))  # now that is somebody's will
    assert flags(opened(tmp_path)) == {1: [], 2: []}


def test_a_cut_journal_and_a_lost_one(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1, 2)
    folder = opened(tmp_path)
    changes.store(folder, [1], lambda old: SEEN)
    highest, box_id = folder.journal.highest, folder.journal.id
    journal = tmp_path / JOURNAL
    with journal.open("ab") as file:
        file.write(b"\x10\0\0\0torn")
    again = opened(tmp_path)
    assert (flags(again), again.journal.id) == ({1: ["\\Seen"], 2: []}, box_id)
    changes.store(again, [2], lambda old: FLAGGED)
    assert again.journal.highest > highest
    assert flags(opened(tmp_path)) == {1: ["\\Seen"], 2: ["\\Flagged"]}
    time.sleep(0.002)
    journal.unlink()
    anew = opened(tmp_path)
    assert flags(anew) == {1: ["\\Seen"], 2: ["\\Flagged"]}
    assert anew.journal.id != box_id


def test_a_lost_index_means_other_uids(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1, 2)
    folder = opened(tmp_path)
    changes.store(folder, [1], lambda old: SEEN)
    validity = folder.index.validity
    (tmp_path / INDEX).unlink()
    folder.dirty = True
    folder.refresh()
    assert folder.index.validity > validity
    assert flags(folder) == {1: ["\\Seen"], 2: []}


def test_uids_are_not_used_twice(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, 1, 2, 3)
    folder = opened(tmp_path)
    changes.store(folder, [3], lambda old: DELETED)
    assert changes.expunge(folder, [3]) == [3]
    fill(tmp_path, 4)
    assert opened(tmp_path).rows.uids == [1, 2, 4]
    with (tmp_path / INDEX).open("r+b") as file:  # the end is lost: nobody knows which UIDs it had given
        file.truncate((tmp_path / INDEX).stat().st_size - 3)
    found = opened(tmp_path).rows.uids
    assert found[:2] == [1, 2]
    assert found[-1] > 4


def test_pop3_and_imap_have_the_same_uids(tmp_path: pathlib.Path) -> None:
    box = tmp_path / "marc"
    fill(box, 1, 2)
    folder = opened(box)
    fill(box, 3)
    session = open_mailbox(str(tmp_path), "marc", NOW)
    fill(box, 4)
    folder.refresh(claim=True)
    assert folder.rows.uids == [1, 2, 3, 4]
    assert folder.rows.names[:3] == session.names
    changes.store(folder, [2], lambda old: SEEN)
    assert session.read(1).startswith(b"Subject: 2")  # the file has another name now
    changes.expunge(folder, [1])
    with pytest.raises(FileNotFoundError):
        session.open(0)
    session.remove([0, 2])
    session.close()
    folder.refresh()
    assert folder.rows.uids == [2, 4]


def test_taking_in_copying_and_moving(tmp_path: pathlib.Path) -> None:
    fill(tmp_path / "a", 1, 2, 3)
    make_mailbox(str(tmp_path / "b"))
    source, target = opened(tmp_path / "a"), opened(tmp_path / "b")
    new = tmp_path / "a" / "tmp" / "x"
    new.write_bytes(b"Subject: y\n\n")
    assert changes.put(source, [NewFile(str(new), 12, 14, ("\\Seen", "k1"))], "h") == [4]
    assert source.rows.sizes[3] == 14
    changes.mask_in(target, ["other"])
    assert changes.copy(source, [1, 4], target, "h") == [(1, 1), (4, 2)]
    assert flags(target) == {1: [], 2: ["\\Seen", "k1"]}
    assert changes.origin(target.rows.names[0]) == changes.origin(source.rows.names[0])
    assert changes.move(source, [2, 4, 9], target) == [(2, 3), (4, 4)]
    assert source.rows.uids == [1, 3]
    assert changes.move(source, [1], source) == [(1, 5)]
    assert source.rows.uids == [3, 5]
    with pytest.raises(changes.Vanished):
        changes.copy(source, [3, 4], target, "h")
    assert len(target.rows) == 4
    for folder in (source, target):
        again = opened(pathlib.Path(folder.path))
        assert (again.rows.uids, flags(again)) == (folder.rows.uids, flags(folder))


def test_a_full_disk_takes_nothing_in(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 1)
    folder = opened(tmp_path)
    new = tmp_path / "tmp" / "x"
    new.write_bytes(b"Subject: y\r\n\r\n")
    real = os.fdatasync

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        changes.put(folder, [NewFile(str(new), 14, 14)], "h")
    with pytest.raises(OSError, match="No space"):
        changes.store(folder, [1], lambda old: SEEN)
    monkeypatch.setattr(os, "fdatasync", real)
    folder.refresh()
    assert flags(folder) == {1: []}
    changes.store(folder, [1], lambda old: SEEN)
    assert flags(opened(tmp_path)) == {1: ["\\Seen"]}


def test_folders(tmp_path: pathlib.Path) -> None:
    tree = Tree(str(tmp_path))
    tree.prepare()
    tree.create("A.B", NOW)
    tree.create("A", NOW)
    first = Folder(tree.path("A"), NOW).index.validity
    with pytest.raises(FileExistsError):
        tree.create("A", NOW)
    assert tree.rename("A", "C") == [("A", "C"), ("A.B", "C.B")]
    assert tree.names() == ["C", "C.B"]
    tree.create("A", NOW)
    with pytest.raises(FileExistsError):
        tree.rename("C", "A")
    tree.delete("C")
    assert tree.names() == ["A", "C.B"]
    tree.create("C", NOW)
    assert Folder(tree.path("C"), NOW).index.validity > first
    tree.subscribe("A", yes=True)
    tree.subscribe("A", yes=True)
    tree.subscribe("B", yes=False)
    assert tree.subscribed() == ["A"]
    (tmp_path / "subscriptions").write_text("V\t2\n\nA\tB\nC\n")
    assert tree.subscribed() == ["A.B", "C"]
    with pytest.raises(FileNotFoundError):
        tree.rename("nowhere", "x")
    assert os.listdir(tmp_path / "tmp") == []


def test_what_was_found_out_is_kept(tmp_path: pathlib.Path) -> None:
    layout = Layout(1, 2, 2)
    cache = Cache(str(tmp_path), 7, layout)
    for uid in range(1, 400):
        cache.put(uid, (uid, -uid), (b"x" * uid, b"%d" % uid))
    cache.close()
    path = tmp_path / CACHE
    with path.open("ab") as file:
        file.write(b"torn")
    again = Cache(str(tmp_path), 7, layout)
    assert again.missing([1, 399, 400]) == [400]
    entry = again.get(300)
    assert entry is not None
    assert (entry.numbers, entry.blobs) == ((300, -300), (b"x" * 300, b"300"))
    again.put(1, (0, 0), (b"y" * 3_000_000, b""))
    again.put(1, (0, 0), (b"new", b""))
    again.keep([1, 2])
    assert path.stat().st_size < 1000
    entry = again.get(1)
    assert entry is not None
    assert entry.blobs[0] == b"new"
    assert again.get(300) is None
    again.close()
    assert Cache(str(tmp_path), 8, layout).missing([1]) == [1]  # another UIDVALIDITY
    data = bytearray(path.read_bytes())
    other = Cache(str(tmp_path), 8, layout)
    other.put(1, (1, 1), (b"abc", b""))
    other.put(2, (1, 1), (b"abc", b""))
    other.close()
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    assert Cache(str(tmp_path), 8, layout).missing([1, 2]) == [2]
