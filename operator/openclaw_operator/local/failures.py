"""What keeps local mode from doing what a command asks for; each message says what to do.

LocalError
├── ClientError      the daemon refuses, or does not answer
├── DocumentError    a file cannot be used: names file, line, field
├── GatewayError     Envoy does not come up
├── HomeError        the runtime folder cannot be used
├── RefusedError     a container needs something that exists only in a cluster
└── UpError          it does not come up, or not in time
"""


class LocalError(Exception):
    """Something that a user can put right."""


class ClientError(LocalError):
    """The daemon refuses, or does not answer."""


class DocumentError(LocalError):
    """A file cannot be used; the message names file, line, field and what is allowed."""


class GatewayError(LocalError):
    """Envoy does not come up."""


class HomeError(LocalError):
    """The runtime folder cannot be used."""


class RefusedError(LocalError):
    """A container needs something that exists only in a cluster."""


class UpError(LocalError):
    """Local mode does not come up, or not in time."""
