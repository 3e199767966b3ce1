"""Operators of onnxruntime's own domain other than attention: fused ones, experts, stand-ins."""
