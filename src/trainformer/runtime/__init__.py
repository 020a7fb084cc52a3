"""Answers with a model that is a graph of ONNX Runtime or OpenVINO, without PyTorch."""
