"""Memory that is used again: buffers of this process, pages that stay in memory, segments that processes share."""
