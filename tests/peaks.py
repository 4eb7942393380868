"""What a call takes at its peak beyond what was there before, as the operating system counts it; in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

needed = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell peaks apart")

PEAK = """
import json
import os
import sys
import traceback

def status(key):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(key)]
    return 1024 * int(line.split()[1])

def peak(call):
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak
    before = status("VmRSS")
    call()
    return status("VmHWM") - before

def each_apart(function, cases):
    # What is imported by now is imported once; every case has a process of its own.
    found = {}
    for case in cases:
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                os.write(write, str(function(*case.split("-"))).encode())
            except Exception:
                traceback.print_exc()
            os._exit(0)
        os.close(write)
        found[case] = float(os.read(read, 99))
        os.wait()
    return found
"""


def run(program, *arguments):
    """The number or numbers that a program prints as JSON.

    It can call ``peak(call)``, which gives bytes, and ``each_apart(function, cases)``: the float that the function
    gives for every case, called with its words; ``-`` is between these.
    """
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back
    command = [sys.executable, "-c", PEAK + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=exact)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
