"""Classifies the held-out digits through a served model, over the Open Inference Protocol.

    python classify.py http://127.0.0.1:8080/default/digits
    python classify.py http://digits.default.svc --count 100

The standard library is all it needs: copy it to begin a client of your own.
"""

import argparse
import http.client
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

Image = list[list[int]]
"""8 rows of 8 pixels, brightness 0 to 16."""

HELD_OUT = Path(__file__).parent / "build" / "held-out.json"
SHADES = " ░▒▓█"


class ServiceError(Exception):
    """The service did not answer, or refused; the message says what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says about one image.

    Attributes:
        digit: The most probable digit.
        probability: Its probability, 0 to 1.
        seconds: From sending the request to having its answer.
    """

    digit: int
    probability: float
    seconds: float


class Client:
    """One connection to a served model, kept open from request to request.

    Args:
        url: Where the service answers, as `kubectl get claw` and `openclaw local get` show it.
        model: Name of the model: that of the service, unless `spec.model.name` says otherwise.
    """

    def __init__(self, url: str, *, model: str = "digits", timeout: float = 10) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ServiceError(f"{url!r} is not the URL of a service; write for example http://127.0.0.1:8080")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._path = f"{parts.path.rstrip('/')}/v2/models/{model}/infer"

    def classify(self, image: Image) -> Answer:
        """Sends one image.

        Raises:
            ServiceError: there was no answer, or it was an error.
        """
        began = time.perf_counter()
        answer = self._infer({"inputs": [tensor(image)]})
        seconds = time.perf_counter() - began
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        digit = outputs["digit"][0]
        return Answer(digit, outputs["probabilities"][digit], seconds)

    def _infer(self, request: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        try:
            self._connection.request("POST", self._path, json.dumps(request), headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{self._connection.host}:{self._connection.port}: {error}") from error
        if response.status != 200:
            raise ServiceError(f"{self._path}: {response.status}: {body.decode(errors='replace')[:500]}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._connection.close()


def tensor(image: Image) -> dict[str, Any]:
    """The image as the protocol's input tensor: a batch of one."""
    pixels = [pixel for row in image for pixel in row]
    return {"name": "image", "datatype": "FP32", "shape": [1, 8, 8], "data": pixels}


def curl_command(url: str, image: Image, *, model: str = "digits") -> str:
    """A command that asks the service about one image."""
    body = json.dumps({"inputs": [tensor(image)]}, separators=(",", ":"))
    return f"curl {url.rstrip('/')}/v2/models/{model}/infer -d '{body}'"


def side_by_side(images: Sequence[Image], captions: Sequence[str]) -> str:
    """The images as text, each over its caption."""
    rows = ["   ".join(_row(image[line]) for image in images) for line in range(8)]
    return "\n".join([*rows, "   ".join(f"{caption:<16}" for caption in captions)])


def _row(pixels: list[int]) -> str:
    return "".join(2 * SHADES[pixel * (len(SHADES) - 1) // 16] for pixel in pixels)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` percent of them do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def summary(answers: Sequence[Answer], digits: Sequence[int]) -> str:
    """Accuracy and latency, in two lines."""
    right = sum(answer.digit == digit for answer, digit in zip(answers, digits, strict=True))
    milliseconds = [answer.seconds * 1000 for answer in answers]
    p50, p99 = percentile(milliseconds, 50), percentile(milliseconds, 99)
    return (
        f"accuracy {right / len(answers):.4f}: {right} of {len(answers)} images that were never trained on\n"
        f"latency  p50 {p50:.2f} ms, p99 {p99:.2f} ms: one image a request, one request at a time"
    )


def gallery(images: Sequence[Image], answers: Sequence[Answer], digits: Sequence[int]) -> str:
    """Four images with their answers, and the first two that the model got wrong."""
    wrong = [number for number, answer in enumerate(answers) if answer.digit != digits[number]]
    shown = [*range(min(4, len(answers))), *[number for number in wrong if number >= 4][:2]]
    captions = [_caption(answers[number], digits[number]) for number in shown]
    return side_by_side([images[number] for number in shown], captions)


def _caption(answer: Answer, digit: int) -> str:
    said = f"{answer.digit} ({answer.probability:.0%})"
    return said if answer.digit == digit else f"{said}, is {digit}"


def held_out(path: Path = HELD_OUT) -> tuple[list[Image], list[int]]:
    """The images and the digits they show.

    Raises:
        ServiceError: there is no such file.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ServiceError(f"{path} cannot be read ({error.strerror}): run train.py first") from error
    return content["images"], content["digits"]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images, 1 or more")
    return int(text)


def main() -> None:
    """Classifies, shows a few images, and prints accuracy and latency."""
    parser = argparse.ArgumentParser(description="Classifies the held-out digits through a served model.")
    parser.add_argument("url", help="where the service answers, as in http://127.0.0.1:8080/default/digits")
    parser.add_argument("--model", default="digits", help="name of the model (digits)")
    parser.add_argument("--count", type=_positive, help="images to classify (all)")
    parser.add_argument("--images", type=Path, default=HELD_OUT, help="file that train.py wrote (build/held-out.json)")
    arguments = parser.parse_args()
    try:
        images, digits = held_out(arguments.images)
        images, digits = images[: arguments.count], digits[: arguments.count]
        with Client(arguments.url, model=arguments.model) as client:
            answers = [client.classify(image) for image in images]
    except ServiceError as error:
        raise SystemExit(f"classify.py: {error}") from error
    print(gallery(images, answers, digits))
    print(summary(answers, digits))


if __name__ == "__main__":
    main()
