"""The errors a user can meet, each with its documented exit code.

A message is one line: which file or option, what is wrong with it, how to mend it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line (a signal n ends the program with 128 + n)."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    INPUT_REFUSED = 3
    SOME_FAILED = 4
    RESOURCES = 5


class SodiumPrepError(Exception):
    """Base of all errors that are reported to the user as one line.

    Parameters
    ----------
    where : str
        The file, option or step that is at fault.
    problem : str
        What is wrong with it, with the value found.
    mend : str
        What the user can do about it.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, where: object, problem: str, mend: str) -> None:
        self.where = str(where)
        self.problem = problem
        self.mend = mend
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.mend}."

    def __reduce__(self) -> tuple[type[SodiumPrepError], tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.mend)


class UsageError(SodiumPrepError):
    """An option or argument that cannot be used as given."""

    exit_code = ExitCode.USAGE


class InputError(SodiumPrepError):
    """An input file, image or sidecar that is refused."""

    exit_code = ExitCode.INPUT_REFUSED


class ResourceError(SodiumPrepError):
    """Disk, memory or a worker process gave out."""

    exit_code = ExitCode.RESOURCES
