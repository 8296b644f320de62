"""The requests that wait in a model's queue, oldest first.

A ``deque`` would do, but compiled code calls one as Python does, by the name of the method, where a class of its own
costs a tenth of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from mlserve.core.job import Job

_SPENT: Final = 64  # places of those that have left, before which the list is not cut


class Waiting:
    """Jobs in line. All but what says so takes the same time however many there are."""

    __slots__ = ("_at", "_jobs")

    def __init__(self) -> None:
        self._jobs: list[Job | None] = []
        self._at = 0  # of the first; the places before are None

    def __len__(self) -> int:
        return len(self._jobs) - self._at

    def __iter__(self) -> Iterator[Job]:
        """A copy is gone through: jobs may end, and leave, meanwhile."""
        return iter([job for job in self._jobs if job is not None])

    def first(self) -> Job:
        """The oldest one, which stays. Raises IndexError if there is none."""
        job = self._jobs[self._at]
        assert job is not None
        return job

    def append(self, job: Job) -> None:
        """To the end."""
        self._jobs.append(job)

    def pop(self) -> None:
        """Take the newest one out."""
        self._jobs.pop()

    def popleft(self) -> Job:
        """Take the oldest one out. Raises IndexError if there is none."""
        jobs, at = self._jobs, self._at
        job = jobs[at]
        assert job is not None
        jobs[at] = None  # what it holds is not to wait for the list to be cut
        at += 1
        if at == len(jobs):
            jobs.clear()
            at = 0
        elif at >= _SPENT and at * 2 >= len(jobs):
            del jobs[:at]
            at = 0
        self._at = at
        return job

    def put_back(self, jobs: Iterable[Job]) -> None:
        """In front, in their order; in proportion to how many there are."""
        self._jobs[: self._at] = jobs
        self._at = 0

    def keep(self, jobs: Iterable[Job]) -> None:
        """These only; in proportion to how many there are."""
        self._jobs = [*jobs]
        self._at = 0
