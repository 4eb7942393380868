"""Runner.test or Runner.val in one process of several, on the processor: CONFIG CHECKPOINT OUTPUT test|val.

RANK and WORLD_SIZE are in the environment. mmengine's own launcher asks for a GPU in every process; with a gloo group
already there, its samplers and metrics work distributed all the same.
"""

import json
import os
import sys

import processes
import torch
from mmengine.config import Config
from mmengine.runner import Runner

if __name__ == "__main__":
    config, checkpoint, output, phase = sys.argv[1:]
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{output}.store", rank=rank, world_size=world)
    full = Config.fromfile(config, format_python_code=False)
    full.load_from = checkpoint
    runner = Runner.from_cfg(full)
    scores = getattr(runner, phase)()
    if rank == 0:
        batches = len(getattr(runner, f"{phase}_dataloader"))
        with open(output, "w") as file:
            json.dump({"batches": batches, "scores": {key: float(value) for key, value in scores.items()}}, file)
    processes.leave()
