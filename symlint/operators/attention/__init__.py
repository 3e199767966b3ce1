"""Attention, of ONNX and of onnxruntime's own domain, over packed tokens and linear."""
