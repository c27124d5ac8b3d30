"""The Open Inference Protocol over gRPC: messages, codec, service and server."""
