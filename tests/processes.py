"""Several processes on this machine that form a group, for tests of what they compute together."""

import os
import sys
import tempfile

import torch


def run(function, world, *args):
    """Call ``function(rank, *args)`` in ``world`` processes; what one of them raises is raised here."""
    # All are forked from one process, which has imported what takes long.
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "torchmetrics"])
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            _enter, args=(function, world, f"{folder}/store", args), nprocs=world, start_method="forkserver"
        )


def leave():
    """End this process of a group, once all of them got here.

    At once: threads that the group leaves behind can abort an interpreter that shuts down.
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _enter(rank, function, world, store, args):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    function(rank, *args)
    leave()
