"""What `make demo` runs: train, serve on this machine, classify the held-out images, clean up.

Leaves nothing but the files in build/. Exits with 1 if the model is not served or not as accurate as it should be.
"""

# ruff: noqa: E402 - the clock starts before the imports, which are part of what a user waits for

import time

BEGAN = time.monotonic()

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import classify

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"
LEAST_ACCURACY = 0.95
START_SECONDS = 60
STOP_SECONDS = 30
LONGEST_FOLDER = 80
"""Bytes of a path that still leave room for the name of a Unix socket in it, of which the kernel allows 107."""


def main() -> int:
    """The whole demo; returns the exit code."""
    try:
        say("1. A model: a small network for handwritten digits")
        train()
        return asyncio.run(serve_and_classify())
    except (asyncio.CancelledError, KeyboardInterrupt):
        say("stopped; everything is cleaned up")
        return 130
    except (classify.ServiceError, RuntimeError) as error:
        say(f"the demo failed: {error}")
        return 1


def train() -> None:
    """Trains, unless the files are there and newer than the script."""
    script = FOLDER / "train.py"
    results = [BUILD / "digits.onnx", BUILD / "held-out.json"]
    if all(file.exists() and file.stat().st_mtime > script.stat().st_mtime for file in results):
        say("   trained before")
        return
    import train

    train.main()


async def serve_and_classify() -> int:
    """Serves the model until the images are classified; returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say("2. A service: openclaw local up -f service.yaml")
    say(indented((FOLDER / "service.yaml").read_text(encoding="utf-8")))
    async with local_mode() as url:
        return await asyncio.to_thread(classify_all, url)


@asynccontextmanager
async def local_mode() -> AsyncIterator[str]:
    """`openclaw local up`, as a child that takes everything with it when it ends; gives the URL of the service.

    Raises:
        RuntimeError: the service does not become Ready; the message is what was printed.
    """
    folder = BUILD / "local"
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        folder = Path(tempfile.mkdtemp(prefix="openclaw-demo-"))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openclaw", "local", "up", "--filename", str(FOLDER / "service.yaml")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "OPENCLAW_LOCAL_DIR": str(folder), "OPENCLAW_CACHE_DIR": str(BUILD / "cache")},
    )
    try:
        yield await until_ready(child)
    finally:
        say("5. Clean up")
        await stop(child)
        shutil.rmtree(folder, ignore_errors=True)
        say("   no process, port or file is left, but the model in build/")


async def until_ready(child: Process) -> str:
    """The URL of the service, once it is Ready."""
    assert child.stdout is not None
    said = []
    try:
        async with asyncio.timeout(START_SECONDS):
            async for line in child.stdout:
                said.append(text := line.decode(errors="replace").rstrip())
                say(f"   {text}")
                if text.startswith("digits is Ready"):
                    return text.rpartition(" ")[2]
    except TimeoutError:
        raise RuntimeError(f"the service was not Ready within {START_SECONDS} s") from None
    raise RuntimeError(f"openclaw local ended with code {await child.wait()}")


async def stop(child: Process) -> None:
    """Ends the child as Ctrl-C does. On a terminal it has had that signal already; a second one does no harm."""
    if child.returncode is None:
        child.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()


def classify_all(url: str) -> int:
    """Classifies every held-out image and says how it went; returns the exit code."""
    images, digits = classify.held_out()
    with classify.Client(url) as client:
        answers = [client.classify(images[0])]
        say(f"   first inference answered {time.monotonic() - BEGAN:.1f} s after this demo began")
        say(f"3. {len(images)} images, over HTTP and through the gateway")
        answers += [client.classify(image) for image in images[1:]]
    say(indented(classify.gallery(images, answers, digits)))
    say(indented(classify.summary(answers, digits)))
    say("4. Try it yourself")
    command = os.path.relpath(Path(sys.executable).parent / "openclaw")
    say(f"   {command} local up -f {os.path.relpath(FOLDER / 'service.yaml')} --detach")
    say(f"   {classify.curl_command(url, images[0])}")
    say(f"   {command} local down")
    right = sum(answer.digit == digit for answer, digit in zip(answers, digits, strict=True))
    if right < LEAST_ACCURACY * len(digits):
        say(f"the accuracy is below {LEAST_ACCURACY}: this is not the model that was trained")
        return 1
    return 0


def indented(text: str) -> str:
    """The text behind three spaces."""
    return "\n".join(f"   {line}" for line in text.splitlines())


def say(text: str) -> None:
    """Prints now, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
