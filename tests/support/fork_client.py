"""What asks `fork_server` for a process; it imports little, since the `python` that DVC finds is made of it.

A request is nine bytes with the streams beside them, its length, and JSON; the answers are a line with the process id
and, at the end, one with the status that `waitpid` gave. Whoever asked keeps the connection: the process ends with it.
"""

import json
import os
import signal
import socket


def ask(
    address: str, words: list[str], streams: dict[int, int], environment: dict[str, str], **place: object
) -> socket.socket:
    """Have `python WORDS` run.

    Args:
        address: path of the server's socket.
        words: of the command line after `python`.
        streams: file descriptors by the number that each is to have: stdin, stdout, stderr, and what else it needs.
        environment: all of it.
        place: `cwd`, and statements to run `before`.

    Returns:
        What the answers come from.
    """
    request = json.dumps({"words": words, "environment": environment, "streams": list(streams), **place}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"%9d" % len(request)], list(streams.values()))
    connection.sendall(request)
    return connection


def run(address: str, words: list[str]) -> int:
    """Stand for a process in its parent's eyes until it has ended; how it ended."""
    # Not pathlib's, whose import takes as long as all the rest here.
    folder = os.getcwd()  # noqa: PTH109
    streams = {number: number for number in map(int, os.listdir("/proc/self/fd")) if _is_inherited(number)}  # noqa: PTH208
    with (
        ask(address, words, streams, dict(os.environ), cwd=folder) as connection,
        connection.makefile() as answers,
    ):
        pid = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        status = int(answers.readline())
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _is_inherited(number: int) -> bool:
    # What Python opens by itself is closed in what it starts.
    try:
        return os.get_inheritable(number)
    except OSError:
        return False
