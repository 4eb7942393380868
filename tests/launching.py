"""The command in several processes, as torchrun starts them, but forked from one that has imported all already."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from datetime import timedelta
from types import SimpleNamespace

#: Seconds after which a process that waits for others in vain is ended.
PATIENCE = 120


class Launcher:
    """Starts commands; to be closed."""

    def __init__(self):
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, folders, *arguments):
        """Run ``rankseg-plugins`` with ``arguments`` in a process for each of these folders, where each writes to."""
        request = {"folders": list(map(str, folders)), "arguments": list(map(str, arguments))}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        codes = json.loads(self._server.stdout.readline())
        return [_Done(*each) for each in zip(codes, folders, range(len(codes)), strict=True)]

    def close(self):
        self._server.kill()
        self._server.communicate()


class _Done(SimpleNamespace):
    def __init__(self, returncode, folder, rank):
        words = {name: (folder / f"{name}{rank}").read_text() for name in ("stdout", "stderr")}
        super().__init__(returncode=returncode, **words)


def _serve():
    import scipy.stats  # noqa: F401
    import torch

    from rankseg_plugins import RankSEG, __main__, cli  # noqa: F401
    from rankseg_plugins.report import charts

    # Charts take longer than all else.
    charts.draw = lambda *ignored: None
    charts.in_both_themes = lambda figure: {"light": b"", "dark": b""}
    torch.set_num_threads(1)
    RankSEG()(torch.rand(1, 3, 16, 20))
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_run(__main__.main, **request)) + "\n")
        answers.flush()


def _run(main, folders, arguments):
    world, store = len(folders), _Store()
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    sizes = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    processes = []
    for rank, folder in enumerate(folders):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(_fork(_work, main, folder, arguments, rank, {**places, **sizes, **ranks}))
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in processes]
    store.close()
    return codes


class _Store:
    """What the agent of torchrun holds for its processes; threads of it would not survive a fork."""

    def __init__(self):
        mine, theirs = os.pipe()
        self._process = _fork(self._hold, theirs)
        os.close(theirs)
        with os.fdopen(mine) as file:
            self.port = int(file.readline())

    def _hold(self, pipe):
        from torch.distributed import TCPStore

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
        os.write(pipe, f"{store.port}\n".encode())
        os.close(pipe)
        signal.pause()

    def close(self):
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


def _fork(function, *arguments):
    process = os.fork()
    if process:
        return process
    signal.alarm(PATIENCE)
    with contextlib.suppress(BaseException):
        function(*arguments)
    os._exit(70)


def _work(main, folder, arguments, rank, variables):
    os.chdir(folder)
    for place, name in ((1, f"stdout{rank}"), (2, f"stderr{rank}")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, place)
    os.environ.update(variables)
    sys.argv = ["rankseg-plugins", *arguments]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
