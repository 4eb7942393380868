"""Processes that find slow packages imported: one process imports them, and forks for every command.

python forks.py MODULE ...    reads a command of each line, answers with the exit status of each of its processes
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

SECONDS = 300


class Forks:
    """Starts scripts in fresh processes, apart from the modules, which they find imported."""

    def __init__(self, modules, environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen([sys.executable, __file__, *modules], env=environment, **pipes)

    def run(self, command, folder, world=1):
        """As ``subprocess.run([python, *command])``, in ``world`` processes that tell themselves apart by RANK."""
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
        begun = {"argv": [str(word) for word in command], "folder": str(folder), "world": world, "port": port}
        print(json.dumps(begun), file=self._server.stdin, flush=True)
        codes = json.loads(self._server.stdout.readline())
        said = {name: Path(folder, f"{name}.txt").read_text() for name in ("stdout", "stderr")}
        return SimpleNamespace(returncode=next(filter(None, codes), 0), **said)

    def close(self):
        self._server.communicate(timeout=SECONDS)


def serve(modules):
    """The command and the rank, in a process that was forked; None when no command is left."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # packages may print when they are imported
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # so that no process looks through all of it again
    for line in sys.stdin:
        command, children = json.loads(line), []
        for name in ("stdout", "stderr"):
            Path(command["folder"], f"{name}.txt").write_text("")
        for rank in range(command["world"]):
            child = os.fork()
            if child == 0:
                return command, rank
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), file=answers, flush=True)
    return None


def begin(command, rank):
    """Become the script of a command; one that hangs is ended."""
    signal.alarm(SECONDS)
    os.chdir(command["folder"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{name}.txt", os.O_WRONLY | os.O_APPEND), stream)
    if command["world"] > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": command["world"], "MASTER_PORT": command["port"]}
        os.environ.update({name: str(value) for name, value in own.items()})
    script = command["argv"][0]
    sys.argv, sys.path[0] = command["argv"], os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    forked = serve(sys.argv[1:])
    if forked:
        begin(*forked)
