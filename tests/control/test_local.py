"""Local mode from end to end: the command line, real servers, a real gateway."""

import asyncio
import signal
import socket
from pathlib import Path

import aiohttp
import psutil

from support.local_mode import LocalMode, is_gone, load, service, write, write_model
from support.waiting import until


async def test_a_service_answers_by_path_and_by_host(local: LocalMode, session: aiohttp.ClientSession) -> None:
    assert await local.infer(session, "first") == [2, 4, 6, 8]
    url = f"http://127.0.0.1:{local.port}/v2/models/first"
    async with session.get(url, headers={"Host": f"first.default.localhost:{local.port}"}) as response:
        assert (await response.json())["name"] == "first"
    async with session.get(url) as response:
        assert response.status == 404
        assert f"http://127.0.0.1:{local.port}/default/first" in (await response.json())["error"]


async def test_a_saved_file_is_rolled_without_a_failed_request(local: LocalMode) -> None:
    file = write(local.folder / "rolled.yaml", service("rolled", "file://./two.onnx"))
    local.up(file)
    async with load(local, "rolled") as sent:
        await until(lambda: len(sent.answers) > 20)
        old = local.servers("rolled")
        write(file, service("rolled", "file://./three.onnx", runtime={"env": [{"name": "COLOUR", "value": "blue"}]}))
        await until(lambda: sent.answers[-1] == [3, 6, 9, 12])
        await until(lambda: is_gone(old))
        assert (await local.ready("rolled")).ready
    assert sent.failures == []
    assert {tuple(answer) for answer in sent.answers} == {(2, 4, 6, 8), (3, 6, 9, 12)}


async def test_a_killed_server_is_restarted(local: LocalMode, session: aiohttp.ClientSession) -> None:
    local.up(write(local.folder / "killed.yaml", service("killed", "file://./two.onnx")))
    (server,) = local.servers("killed")
    server.kill()

    async def is_restarted() -> bool:
        stands = await local.ready("killed")
        return stands.ready and not is_gone(local.servers("killed"))

    await until(lambda: is_gone([server]))
    await until(is_restarted)
    (restarted,) = local.servers("killed")
    assert restarted.pid != server.pid
    assert await local.infer(session, "killed") == [2, 4, 6, 8]


async def test_a_killed_gateway_is_started_again(local: LocalMode, session: aiohttp.ClientSession) -> None:
    (gateway,) = [process for process in local.members() if process.name() == "envoy"]
    gateway.kill()

    async def answers() -> bool:
        try:
            return await local.infer(session, "first") == [2, 4, 6, 8]
        except aiohttp.ClientError:
            return False

    await until(lambda: is_gone([gateway]))
    await until(answers)


async def test_a_server_that_hangs_gets_no_requests_and_is_restarted(
    local: LocalMode, session: aiohttp.ClientSession
) -> None:
    quick = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    spec = {"probes": {"liveness": quick}, "podTemplate": {"spec": {"terminationGracePeriodSeconds": 1}}}
    local.up(write(local.folder / "hangs.yaml", service("hangs", "file://./two.onnx", **spec)))
    (server,) = local.servers("hangs")
    server.suspend()

    async def is_restarted() -> bool:
        return is_gone([server]) and (await local.ready("hangs")).ready

    await until(is_restarted)
    assert await local.infer(session, "hangs") == [2, 4, 6, 8]


def test_a_missing_model_is_told_by_its_reason_and_file(local: LocalMode) -> None:
    ended = local.up(write(local.folder / "missing.yaml", service("missing", "file://./nowhere.onnx")))
    table = local.run("get", "missing").stdout
    assert ended.returncode == 1
    assert "ModelNotFound" in table.splitlines()[1]
    assert f"missing: there is no file {local.folder / 'nowhere.onnx'}" in table
    assert "nowhere.onnx" in local.run("logs", "missing").stdout


async def test_a_broken_revision_leaves_the_one_before_serving(local: LocalMode) -> None:
    file = write(local.folder / "broken.yaml", service("broken", "file://./two.onnx"))
    local.up(file)

    async def is_missing() -> bool:
        return (await local.ready("broken")).reason == "ModelNotFound"

    async def is_ready() -> bool:
        return (await local.ready("broken")).ready

    async with load(local, "broken", clients=1) as sent:
        write(file, service("broken", "file://./nowhere.onnx"))
        await until(is_missing)
        assert "1 pod of an earlier revision keeps serving" in (await local.ready("broken")).message
        write(file, service("broken", "file://./three.onnx"))
        await until(is_ready)
        await until(lambda: sent.answers[-1] == [3, 6, 9, 12])
    assert sent.failures == []


async def test_a_service_that_no_file_declares_any_more_is_deleted(local: LocalMode) -> None:
    pair = [service("left", "file://./two.onnx"), service("gone", "file://./two.onnx")]
    file = write(local.folder / "pair.yaml", *pair)
    local.up(file)
    servers = local.servers("gone")

    async def exist() -> set[str]:
        return {each["metadata"]["name"] for each in (await local.state()).services} & {"left", "gone"}

    async def one_is_deleted() -> bool:
        return await exist() == {"left"}

    async def both_are_deleted() -> bool:
        return not await exist()

    write(file, pair[0])
    await until(one_is_deleted)
    await until(lambda: is_gone(servers))
    assert len(servers) == 1
    assert (await local.ready("left")).ready
    file.unlink()
    await until(both_are_deleted)


async def test_a_file_that_became_wrong_changes_nothing_and_get_says_so(local: LocalMode) -> None:
    file = write(local.folder / "wrong.yaml", service("wrong", "file://./two.onnx"))
    local.up(file)
    before = await local.get("wrong")
    write(file, service("wrong", "ftp://models/two.onnx"))

    async def is_refused() -> bool:
        return (await local.state()).error.startswith(f"{file}:1: spec.model")

    async def is_accepted() -> bool:
        return not (await local.state()).error

    await until(is_refused)
    assert await local.get("wrong") == before
    assert "not applied: " in local.run("get").stderr
    write(file, service("wrong", "file://./three.onnx"))
    await until(is_accepted)
    assert await local.get("wrong") != before


async def test_down_leaves_no_process_no_port_and_no_file(tmp_path: Path) -> None:
    local = LocalMode(tmp_path)
    write_model(tmp_path / "two.onnx", factor=2)
    started = local.up(write(tmp_path / "service.yaml", service("digits", "file://./two.onnx")))
    assert started.returncode == 0, started.stdout + started.stderr
    members = local.members()
    ports = [local.port, *(each.laddr.port for server in local.servers("digits") for each in server.net_connections())]
    ended = local.run("down")
    assert ended.returncode == 0, ended.stderr
    assert len(members) >= 3
    assert is_gone(members)
    assert not any(map(_is_open, ports))
    assert not local.home.exists()


async def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    local = LocalMode(tmp_path)
    write_model(tmp_path / "two.onnx", factor=2)
    file = write(tmp_path / "service.yaml", service("digits", "file://./two.onnx"))
    command = local.command("up", "-f", str(file), "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *command, env=local.environment, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    told = ""
    while "Ctrl-C" not in told:
        line = (await process.stdout.readline()).decode()
        assert line, told
        told += line
    members = local.members()
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert "digits is Ready" in told
    assert "/infer -d '{" in told
    assert len(members) >= 3
    assert is_gone(members)
    assert not local.home.exists()


async def test_a_killed_daemon_takes_its_servers_along_and_up_starts_anew(tmp_path: Path) -> None:
    local = LocalMode(tmp_path)
    write_model(tmp_path / "two.onnx", factor=2)
    file = write(tmp_path / "service.yaml", service("digits", "file://./two.onnx"))
    local.up(file)
    daemon, *others = local.members()
    daemon.kill()
    await until(lambda: is_gone(others))
    assert len(others) >= 2
    assert "its daemon was killed" in local.run("get").stderr
    again = local.up(file)
    assert again.returncode == 0, again.stdout + again.stderr
    assert psutil.pid_exists(local.told()["pid"])
    local.run("down")
    assert not local.home.exists()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
