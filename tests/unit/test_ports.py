"""Ports of the local stack: two stacks that start in the same second get different ones."""

import subprocess
import sys

from xinfu_local import free_port

ASK = "import sys; from xinfu_local import free_port; print(free_port(int(sys.argv[1])), flush=True); sys.stdin.read()"


def test_a_port_is_given_to_one_process_only_until_it_ends() -> None:
    wanted = free_port()
    first = subprocess.Popen([sys.executable, "-c", ASK, str(wanted + 1)], stdin=-1, stdout=-1, text=True)
    assert first.stdin is not None
    assert first.stdout is not None
    taken = int(first.stdout.readline())
    try:
        # nothing listens there yet
        assert free_port(taken) != taken
    finally:
        first.stdin.close()
        first.wait(10)
        first.stdout.close()
    assert free_port(taken) == taken
    assert free_port(taken) == taken, "a process may ask again for what it has"
