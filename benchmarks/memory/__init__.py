"""What onnxruntime's arena holds, and what the whole process takes, with its defaults and with settings of our own."""
