"""what the processes of one spool tell each other through shared memory

One page that the supervisor makes and every process maps. The log is the truth:
here stands only how far it may be read, how far it was, and what is queued.

Layout   numbers of 64 bits, each written by one process only: first the
         manager's figures, then ROW numbers for each ingress process. Aligned
         numbers of that size are read and written whole.
States   a writer's `run` is set by the supervisor before the process begins, and
         0 again once its death is certain: what it has written since is final.
Why      a process that was killed leaves what it said; a message on a socket
         would have gone with it.
"""

from __future__ import annotations

from tripost.queue.rows import OFFSET_BITS

HEAD = 8  # numbers
ROW = 8
MESSAGES, OCTETS, BEATS, OPEN, READY = 0, 1, 2, 3, 4  # of the head
RUN, PLACE, TAKEN, TURN, ROW_BEATS, ROW_OPEN, ROW_READY = 0, 1, 2, 3, 4, 5, 6  # of a row
CLOSED = 1  # lowest bit of PLACE: nothing more comes in that segment


class Board:
    """`memory`: `size(writers)` octets, zeros at first. Writers are counted from 1."""

    def __init__(self, memory: memoryview, writers: int) -> None:
        self._cells = memory[: size(writers)].cast("Q")
        self.writers = range(1, writers + 1)

    # --- the supervisor's ---

    def enter(self, writer: int, run: int) -> None:
        """A process is to begin, or (0) it is dead."""
        at = _row(writer)
        if run:
            self._cells[at + PLACE] = self._cells[at + TURN] = 0
        self._cells[at + ROW_OPEN] = self._cells[at + ROW_READY] = 0
        self._cells[at + RUN] = run

    def run(self, writer: int) -> int:
        return self._cells[_row(writer) + RUN]

    def runs(self) -> set[int]:
        """Of all that are alive."""
        return {self.run(one) for one in self.writers} - {0}

    # --- the writer's ---

    def publish(self, writer: int, segment: int, end: int) -> None:
        """The writer's records are durable up to there; `end` 0: the segment is closed."""
        self._cells[_row(writer) + PLACE] = segment << OFFSET_BITS | (end or CLOSED)

    def durable(self, writer: int, segment: int) -> tuple[int, bool]:
        """Up to where the segment may be read, 0 when that is not known, and whether no more will come."""
        place = self._cells[_row(writer) + PLACE]
        newest = place >> OFFSET_BITS
        if newest != segment:
            return 0, newest > segment
        return place & ((1 << OFFSET_BITS) - 2), bool(place & CLOSED)

    def newest(self, writer: int) -> int:
        """The segment in which the writer writes, 0 for none yet."""
        return self._cells[_row(writer) + PLACE] >> OFFSET_BITS

    def accept(self, writer: int) -> None:
        """The writer takes connections now."""
        self._cells[_row(writer) + ROW_READY] = 1

    def accepts(self, writer: int) -> bool:
        return bool(self._cells[_row(writer) + ROW_READY])

    # --- of whoever `writer` is, 0 the manager ---

    def beat(self, writer: int) -> None:
        """It lives, and its loop turns."""
        self._cells[_row(writer) + ROW_BEATS if writer else BEATS] += 1

    def beats(self, writer: int) -> int:
        return self._cells[_row(writer) + ROW_BEATS if writer else BEATS]

    def count(self, writer: int, connections: int) -> None:
        """So many are open there."""
        self._cells[_row(writer) + ROW_OPEN if writer else OPEN] = connections

    def elsewhere(self, writer: int) -> int:
        """Connections that are open in other processes."""
        cells = self._cells
        found = sum(cells[_row(one) + ROW_OPEN] for one in self.writers if one != writer)
        return found + (cells[OPEN] if writer else 0)

    # --- the manager's ---

    def serve(self, ready: bool) -> None:
        """It takes mail; or (the supervisor says so) there is none that does."""
        self._cells[READY] = ready

    @property
    def ready(self) -> bool:
        return bool(self._cells[READY])

    def take(self, writer: int, place: int) -> None:
        """The manager enters all that stands before `place`. Said before anything of it can be settled, so that the
        next manager, which lets what comes behind it be taken in as new, takes in nothing twice."""
        self._cells[_row(writer) + TAKEN] = place

    def taken(self, writer: int) -> int:
        return self._cells[_row(writer) + TAKEN]

    def ask_turn(self, writer: int, segment: int) -> None:
        """The writer is to go on in another segment than this one, soon."""
        self._cells[_row(writer) + TURN] = segment

    def turn(self, writer: int) -> int:
        return self._cells[_row(writer) + TURN]

    def tell(self, messages: int, octets: int) -> None:
        """What is queued."""
        self._cells[MESSAGES], self._cells[OCTETS] = messages, octets

    def queued(self) -> tuple[int, int]:
        """Messages, octets."""
        return self._cells[MESSAGES], self._cells[OCTETS]

    def close(self) -> None:
        """Let go of the memory."""
        self._cells.release()


def _row(writer: int) -> int:
    return HEAD + (writer - 1) * ROW


def size(writers: int) -> int:
    """Octets."""
    return 8 * (HEAD + ROW * writers)
