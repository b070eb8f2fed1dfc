"""real ENOSPC and EIO below a real gateway, by a library that is loaded before the system's"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

SOURCE = pathlib.Path(__file__).with_name("faults.c")


class Disk:
    """`fail("sync 5", "pwrite 28")` until `heal()`; `environment` is for the program below which it lies."""

    def __init__(self, folder: pathlib.Path) -> None:
        library, self._file = folder / "faults.so", folder / "faults"
        self.heal()
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS": str(self._file)}

    def fail(self, *faults: str) -> None:
        self._put("\n".join(faults) + "\n")

    def heal(self) -> None:
        self._put("")

    def _put(self, text: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self._file)  # never seen half-written


@contextmanager
def below(disk: Disk) -> Iterator[None]:
    """Programs started meanwhile have the disk below them."""
    before = {name: os.environ.get(name) for name in disk.environment}
    os.environ.update(disk.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
