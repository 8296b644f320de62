"""``ts.torch_handler.trt_llm_handler``."""

from mlserve.handlers.trt_llm_handler import TRTLLMHandler

__all__ = ["TRTLLMHandler"]
