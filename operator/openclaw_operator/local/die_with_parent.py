"""Becomes another program that is killed as soon as the process that started it is gone.

    python die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]

Run as a file, not imported: what stands here costs each start of a program its time. Linux only, prctl(2); elsewhere
it only becomes the program, and orphans are found by `home.clean`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went before the kernel was asked
            sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: cannot be run: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
