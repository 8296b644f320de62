"""``ts.torch_handler.vllm_handler``."""

from mlserve.handlers.vllm_handler import VLLMHandler

__all__ = ["VLLMHandler"]
