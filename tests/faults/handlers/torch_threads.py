"""Asks torch for four threads when it is loaded, and answers how many the calling thread has."""

import torch


def handle(data, context):
    if data is None:
        torch.set_num_threads(4)
        return None
    return [str(torch.get_num_threads()) for _ in data]
