"""Two CPU processes that run one pretraining together, without a launcher: what `torchrun` sets is set here."""

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

from promptlab.errors import PromptlabError


def run_two(folder: Path, arguments: dict[str, Any], *, stop_at: int | None = None) -> list[int]:
    """Adapt a model in two processes, and give their exit codes; `said-N.txt` holds what each of them said.

    Args:
        folder: Where what they say is written.
        arguments: Of `adapt_as_one_of_two`.
        stop_at: The step in which the second process alone is asked to stop.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["promptlab.pretraining.continuing", "accelerate"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [
        context.Process(target=adapt_as_one_of_two, args=(index, port, folder, arguments, stop_at))
        for index in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode is not None, "a process hangs"
    return [int(worker.exitcode or 0) for worker in workers]


def adapt_as_one_of_two(index: int, port: int, folder: Path, arguments: dict[str, Any], stop_at: int | None) -> None:
    """Be one of two processes: join, adapt, and leave with the exit code of promptlab."""
    import torch

    from promptlab.pretraining import continuing
    from promptlab.pretraining.masking import hide_words
    from promptlab.pretraining.processes import join_processes

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    steps: list[int] = []

    def stop(*args: Any, **more: Any) -> Any:
        steps.append(1)
        if index == 1 and len(steps) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return hide_words(*args, **more)

    continuing.hide_words = stop  # type: ignore[attr-defined]  # a name that the module imported
    said = (folder / f"said-{index}.txt").open("w", buffering=1)
    try:
        with join_processes("cpu") as processes:
            continuing.continue_pretraining(
                **arguments, report=lambda line: print(line, file=said), processes=processes
            )
    except PromptlabError as error:
        print(error, file=said)
        raise SystemExit(error.exit_code) from None
