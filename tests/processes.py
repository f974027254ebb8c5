"""Processes that work together through gloo, quickly: forked, so that none imports torch anew."""

import io
import multiprocessing
import socket
import traceback

import torch
import torch.distributed as dist


def run_together(count, work, *arguments):
    """Run `work(rank, *arguments)` in `count` processes; return what each of them returned.

    A fork may hang where torch has threads of its own, so tests fork while it has none, and the
    children begin none.
    """
    context = multiprocessing.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = context.SimpleQueue()
    torch.set_num_threads(1)
    children = [
        context.Process(target=_child, args=(rank, count, port, queue, work, arguments))
        for rank in range(count)
    ]
    for child in children:
        child.start()
    results = dict(queue.get() for _ in children)
    for child in children:
        child.join(30)
    for rank, (failed, _) in sorted(results.items()):
        assert failed is None, f"process {rank}:\n{failed}"
    found = (io.BytesIO(results[rank][1]) for rank in range(count))
    return [torch.load(result, weights_only=False) for result in found]


def _child(rank, count, port, queue, work, arguments):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    try:
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=count)
        # as bytes: tensors would stay in the memory of a process that has ended
        result = io.BytesIO()
        torch.save(work(rank, *arguments), result)
        queue.put((rank, (None, result.getvalue())))
    except BaseException:
        queue.put((rank, (traceback.format_exc(), None)))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
