"""Asks torch for four threads and no gradients when it is loaded; answers what the calling thread has of both."""

import torch


def handle(data, context):
    if data is None:
        torch.set_num_threads(4)
        torch.set_grad_enabled(False)
        return None
    return [f"{torch.get_num_threads()} {torch.is_grad_enabled()}" for _ in data]
