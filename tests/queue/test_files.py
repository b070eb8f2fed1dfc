"""the real disk and the fake one behave alike, so that what the fake proves holds for the real"""

from __future__ import annotations

import os
import pathlib

import pytest
import trio

from support.fake_files import FakeFiles
from tripost.queue import apart
from tripost.queue.errors import SpoolLocked
from tripost.queue.files import Files, RealFiles, RealHandle


@pytest.fixture(params=["real", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[Files, str]:
    files: Files = RealFiles() if request.param == "real" else FakeFiles()
    folder = str(tmp_path / "deep" / "spool")
    files.make_folder(folder)
    return files, folder


def test_folders(disk: tuple[Files, str]) -> None:
    files, folder = disk
    files.make_folder(folder)  # there is one: nothing happens
    assert files.names(folder) == []
    for name in ("b", "a", "c"):
        files.create(f"{folder}/{name}").close()
    assert files.names(folder) == ["a", "b", "c"]
    files.sync_folder(folder)
    octets, inodes = files.free(folder)
    assert octets > 0
    assert inodes > 0


def test_what_is_missing_or_there_already(disk: tuple[Files, str]) -> None:
    files, folder = disk
    files.create(f"{folder}/one").close()
    with pytest.raises(FileExistsError):
        files.create(f"{folder}/one")
    for call in (files.open, files.open_to_write, files.unlink):
        with pytest.raises(FileNotFoundError):
            call(f"{folder}/two")
    for call in (files.names, files.sync_folder):
        with pytest.raises(FileNotFoundError):
            call(f"{folder}/nowhere")
    with pytest.raises(FileNotFoundError):
        files.create(f"{folder}/nowhere/one")


def test_octets(disk: tuple[Files, str]) -> None:
    files, folder = disk
    one = files.create(f"{folder}/one")
    one.write_at(0, b"hello")
    one.write_at(8, b"world")  # the gap reads as zeros
    one.write_at(1, b"E")
    assert (one.read_at(0, 99), one.size()) == (b"hEllo\0\0\0world", 13)
    assert one.read_at(11, 1) == b"l"
    assert one.read_at(13, 5) == b""
    assert one.read_at(50, 5) == b""
    assert one.read_now(1, 4) in (b"Ello", None)
    assert one.read_now(11, 40) in (b"ld", None)
    one.sync()
    one.close()


def test_sizes(disk: tuple[Files, str]) -> None:
    files, folder = disk
    one = files.create(f"{folder}/one")
    one.write_at(0, b"abc")
    one.reserve(10)
    assert (one.size(), one.read_at(0, 20)) == (10, b"abc" + bytes(7))
    one.reserve(5)  # never smaller
    assert one.size() == 10
    one.truncate(2)
    one.truncate(4)
    assert (one.size(), one.read_at(0, 9)) == (4, b"ab\0\0")
    one.close()


def test_several_handles(disk: tuple[Files, str]) -> None:
    files, folder = disk
    one = files.create(f"{folder}/one")
    two, three = files.open(f"{folder}/one"), files.open_to_write(f"{folder}/one")
    one.write_at(0, b"first")
    three.write_at(0, b"F")
    assert two.read_at(0, 9) == b"First"
    with pytest.raises(OSError, match="Bad file descriptor"):  # opened for reading
        two.write_at(0, b"x")
    files.unlink(f"{folder}/one")
    assert files.names(folder) == []
    assert two.read_at(0, 9) == b"First"  # as long as it is open
    files.create(f"{folder}/one").close()  # another file of that name
    assert two.read_at(0, 9) == b"First"
    for handle in (one, two, three):
        handle.close()


def test_the_lock(disk: tuple[Files, str]) -> None:
    files, folder = disk
    held = files.lock(f"{folder}/lock")
    with pytest.raises(SpoolLocked):
        files.lock(f"{folder}/lock")
    held.close()
    files.lock(f"{folder}/lock").close()
    with pytest.raises(FileNotFoundError):
        files.lock(f"{folder}/nowhere/lock")


def test_what_only_the_real_one_has(tmp_path: pathlib.Path) -> None:
    files, folder = RealFiles(), str(tmp_path / "spool")
    files.make_folder(folder)
    files.create(f"{folder}/one").close()
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(f"{folder}/one").st_mode & 0o777 == 0o600
    big = files.create(f"{folder}/big")
    big.write_at(0, b"x" * (5 << 20))  # more than one write may take
    assert big.read_at(0, 6 << 20) == b"x" * (5 << 20)
    assert not os.get_inheritable(big._fd)
    big.close()


async def test_the_kernel_syncs_while_others_run(tmp_path: pathlib.Path) -> None:
    files = RealFiles()
    syncer = files.syncer()
    if syncer is None:
        pytest.skip("this kernel has no io_submit, or no room for it")
    one = files.create(str(tmp_path / "one"))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        for number in range(20):
            one.write_at(number * 4096, b"x" * 4096)
            assert await syncer.sync(one)
        nursery.cancel_scope.cancel()
    assert turns > 20
    read, write = os.pipe()  # what cannot be synced is not taken, and that is said
    assert not await syncer.sync(RealHandle(write))
    one.write_at(0, b"y")
    assert await syncer.sync(one)
    one.close()
    assert not await syncer.sync(one)  # EBADF
    os.close(read)
    os.close(write)
    syncer.close()


async def test_a_sync_of_the_kernel_is_waited_for_by_who_is_cancelled(tmp_path: pathlib.Path) -> None:
    files = RealFiles()
    syncer = files.syncer()
    if syncer is None:
        pytest.skip("this kernel has no io_submit, or no room for it")
    one = files.create(str(tmp_path / "one"))
    one.write_at(0, b"x" * (1 << 20))
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await syncer.sync(one)
    assert await syncer.sync(one)  # nothing of the first is left over
    syncer.close()
    one.close()


def test_no_room_for_syncs_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    assert RealFiles().syncer() is None
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setitem(apart._NUMBERS, "x86_64", (-1, -1, -1, -1))  # as under a filter of system calls
    assert RealFiles().syncer() is None
