"""HTTP/1.1 on the data port: bytes on a socket to requests, and answers back. Knows nothing of models."""
