"""The command ``sodium-prep``."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from sodium_prep.cli.parser import parse_args
from sodium_prep.errors import ExitCode, SodiumPrepError


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and end the program with its exit code."""
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; every foreseen error becomes one line and its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        settings, verbosity = parse_args(argv)
        if settings.analysis_level == "participant":
            from sodium_prep.cli.participant import run_participants

            return run_participants(settings, verbosity)
        from sodium_prep.cli.group import run_group_level

        return run_group_level(settings, verbosity)
    except SodiumPrepError as error:
        print(f"sodium-prep: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sodium-prep: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            print(f"sodium-prep: {error.filename}: {error.strerror}. Free some space and run again.", file=sys.stderr)
            return ExitCode.RESOURCES
        return _internal(error)
    except Exception as error:
        return _internal(error)


_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _internal(error: Exception) -> int:
    logging.getLogger("sodium_prep").debug("internal error", exc_info=error)
    print(
        f"sodium-prep: internal error: {type(error).__name__}: {error}. Run again with -vv and report the traceback.",
        file=sys.stderr,
    )
    return ExitCode.INTERNAL


def _end(number: int, _frame: FrameType | None) -> None:
    # Raising lets every 'finally' on the way out end its child processes.
    name = signal.Signals(number).name
    print(f"sodium-prep: ended by {name}; the same command goes on where it stopped.", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
