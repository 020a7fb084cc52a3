"""Answers with a model that is an ONNX graph, without PyTorch."""
