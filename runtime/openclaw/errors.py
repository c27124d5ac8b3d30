"""Every error of the runtime.

    OpenClawError
    |-- StartupError                 the server or ``openclaw.load`` cannot begin; has a ``reason``
    |   |-- ConfigInvalid            78  a setting is wrong
    |   |-- ModelNotFound            78  nothing is stored at the URI
    |   |-- ModelAccessDenied        78  the store refuses these credentials
    |   |-- ModelDigestMismatch      78  the bytes are not those of ``sha256``
    |   |-- ModelTooLarge            78  larger than ``maxBytes``
    |   |-- ModelInvalid             78  not ONNX, truncated, or not supported
    |   |-- ModelWarmupFailed        78  loaded, but the first inference failed
    |   |-- OutOfMemory              78  does not fit into the memory granted
    |   |-- DeviceUnavailable        78  the device is not there, or nothing installed can use it
    |   |-- ModelDownloadTimeout     75  the store is too slow, or hangs
    |   `-- ModelDownloadFailed      75  the store, the network or the disk failed
    |-- NotApplicable                a recipe of the optimizer does not fit this model or machine
    |-- CannotMap                    a model's weights cannot be mapped into memory from the cache folder
    `-- RequestError                 one request is refused or failed; has an HTTP ``status``
        |-- InvalidRequest           400 the body, a tensor or a header is wrong
        |-- UnknownModel             404 no such model or version
        |-- RequestTooLarge          413
        |-- UnsupportedEncoding      415
        |-- Overloaded               429 the queue is full, or too long for the deadline; has ``retry_after``
        |-- InferenceFailed          500 the model failed, for a reason that is not in the request
        |-- Unsupported              501 the protocol has it, this server does not
        |-- NotReady                 503 loading or draining
        |-- OverBudget               503 the memory that was granted is in use; has ``retry_after``
        |-- DeadlineExceeded         504 the answer would have come too late
        `-- NoRoom                   507 a model does not fit beside those that are served

78 is EX_CONFIG (it will not heal by itself) and 75 is EX_TEMPFAIL (it may heal): the exit codes of
``openclaw serve``, from sysexits.h. The reasons are a contract with the operator, which shows them as
the reason of a condition.
"""

# ruff: noqa: N818 - the names are the reasons that users and the operator read.

from __future__ import annotations

from typing import ClassVar

EX_CONFIG = 78
EX_TEMPFAIL = 75


class OpenClawError(Exception):
    """Root of all errors raised on purpose by this package; its text is a sentence for the user."""


class NotApplicable(OpenClawError):
    """A recipe of the optimizer does not fit this model or this machine; the reason stands in the report."""


class CannotMap(OpenClawError):
    """A model's weights cannot be mapped into memory from the cache folder; they may still fit there otherwise."""


class StartupError(OpenClawError):
    """The model cannot be served; ``reason`` names the kind, ``exit_code`` says whether it may heal."""

    exit_code: ClassVar[int] = EX_CONFIG

    @property
    def reason(self) -> str:
        """The contract's word for this failure: the name of its class."""
        return type(self).__name__


class ConfigInvalid(StartupError):
    """A setting is missing, unknown or out of range."""


class ModelNotFound(StartupError):
    """There is no model at the URI."""


class ModelAccessDenied(StartupError):
    """The store or the file system refuses to hand out the model."""


class ModelDigestMismatch(StartupError):
    """The model's SHA-256 is not the one that was asked for."""


class ModelTooLarge(StartupError):
    """The model is larger than the limit."""


class ModelInvalid(StartupError):
    """The file is not a model that can be executed here."""


class ModelWarmupFailed(StartupError):
    """The model was loaded, but a first inference could not be built or failed."""


class OutOfMemory(StartupError):
    """The model does not fit into the memory that this process was granted."""


class DeviceUnavailable(StartupError):
    """The device that was asked for is not there, or nothing that is installed can run models on it."""


class ModelDownloadTimeout(StartupError):
    """The download did not finish in its time, or stopped moving."""

    exit_code = EX_TEMPFAIL


class ModelDownloadFailed(StartupError):
    """The store, the network or the local disk failed during the download."""

    exit_code = EX_TEMPFAIL


class RequestError(OpenClawError):
    """One request is refused or failed; ``status`` is its HTTP status."""

    status: ClassVar[int] = 500


class InvalidRequest(RequestError):
    """The request does not say what the protocol or the model's signature asks for."""

    status = 400


class UnknownModel(RequestError):
    """The model or its version is not served here."""

    status = 404


class RequestTooLarge(RequestError):
    """The body is larger than ``maxRequestBytes``."""

    status = 413


class UnsupportedEncoding(RequestError):
    """The body is compressed in a way that is not accepted."""

    status = 415


class Overloaded(RequestError):
    """More is asked for than can be answered in time; ``retry_after``: seconds after which it may be otherwise."""

    status = 429

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InferenceFailed(RequestError):
    """The model itself failed on a request that is valid."""

    status = 500


class Unsupported(RequestError):
    """The protocol knows what is asked for; this server, or its settings, do not offer it."""

    status = 501


class NotReady(RequestError):
    """The model is loading, or the server is stopping."""

    status = 503


class OverBudget(RequestError):
    """The memory that this process may take is in use.

    Attributes:
        needed: bytes that were asked for.
        free: bytes that were left.
        retry_after: seconds after which it may be otherwise.
    """

    status = 503
    retry_after = 1.0

    def __init__(self, needed: int, *, free: int) -> None:
        super().__init__(f"{needed:,} bytes of memory are needed and {max(0, free):,} are free; try again later")
        self.needed = needed
        self.free = max(0, free)


class DeadlineExceeded(RequestError):
    """The request's deadline passed before the model could answer."""

    status = 504


class NoRoom(RequestError):
    """There is not enough memory to load a model beside those that are served."""

    status = 507


STARTUP_ERRORS: dict[str, type[StartupError]] = {
    error.__name__: error
    for error in (
        ConfigInvalid,
        ModelNotFound,
        ModelAccessDenied,
        ModelDigestMismatch,
        ModelTooLarge,
        ModelInvalid,
        ModelWarmupFailed,
        OutOfMemory,
        DeviceUnavailable,
        ModelDownloadTimeout,
        ModelDownloadFailed,
    )
}
