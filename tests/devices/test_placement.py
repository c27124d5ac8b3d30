"""Which device a task goes to, and that it really runs there."""

import gc
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import openclaw
from openclaw import ConfigInvalid, DeviceManager, DeviceUnavailable, ModelInvalid
from openclaw.devices.device import Device
from openclaw.devices.inventory import read_devices
from openclaw.devices.placement import Wish, choose, free_bytes, parse_wish
from openclaw.devices.routes import CPU, CUDA, OPENVINO
from openclaw.execute.providing import open_on
from support.recorded import laid_out, put

CPU_ONLY = frozenset({"CPUExecutionProvider"})
ROCM = CPU_ONLY | {"MIGraphXExecutionProvider"}
CUDA_TOO = CPU_ONLY | {"CUDAExecutionProvider"}
GIB = 1 << 30


def machine(*devices: Device) -> list[Device]:
    return [replace(each, id=number) for number, each in enumerate(devices)]


def gpu(address: str, **known: Any) -> Device:
    made = Device(type="GPU", vendor="NVIDIA", name="GPU", address=address, route=CUDA, installed=CUDA_TOO)
    return replace(made, **known)


def cpu(**known: Any) -> Device:
    made = Device(type="CPU", vendor="Intel", name="CPU", address="cpu", route=CPU, installed=CPU_ONLY)
    return replace(made, **known)


def test_a_model_runs_where_it_was_assigned(doubling: Path) -> None:
    manager = DeviceManager()
    number = next(each.id for each in manager.list_devices() if each.type == "CPU")
    assignment = manager.assign_task("inference", device_id=number)
    model = openclaw.load(doubling, device=assignment)
    assert model.device is assignment
    assert model.threads == assignment.threads >= 1
    assert model.run({"x": [[1, 2, 3, 4]]})["y"].tolist() == [[2, 4, 6, 8]]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_word_names_a_device_as_well(doubling: Path, device: str) -> None:
    model = openclaw.load(doubling, device=device, threads=1)
    assert model.device is not None
    assert model.device.device.type == "CPU"
    assert model.threads == 1
    assert np.array_equal(model.run({"x": np.ones((1, 4), np.float32)})["y"], np.full((1, 4), 2, np.float32))


def test_a_gpu_without_its_provider_is_refused_with_what_to_install(tmp_path: Path, doubling: Path) -> None:
    manager = DeviceManager(laid_out("nvidia-two-gpus", tmp_path), installed=CPU_ONLY)
    with pytest.raises(DeviceUnavailable, match=r"GPU 0 \(NVIDIA .* cannot take it: .*pip install onnxruntime-gpu"):
        manager.assign_task("inference", device_id=0)
    assert openclaw.load(doubling, device=manager.assign_task("inference")).device is not None


def test_no_session_is_made_on_another_device_than_the_assigned_one(tmp_path: Path, doubling: Path) -> None:
    manager = DeviceManager(laid_out("amd-dgpu-apu", tmp_path), installed=ROCM)
    assignment = manager.assign_task("inference", device_id=0)
    assert assignment.providers == [("MIGraphXExecutionProvider", {"device_id": "0"}), "CPUExecutionProvider"]
    with pytest.raises(DeviceUnavailable, match=r"GPU 0 \(AMD Radeon .* pip install onnxruntime-migraphx"):
        openclaw.load(doubling, device=assignment)


def test_where_no_device_was_named_the_next_one_is_taken(tmp_path: Path, doubling: Path) -> None:
    manager = DeviceManager(laid_out("amd-dgpu-apu", tmp_path), installed=ROCM)
    assignment = manager.assign_task("inference")
    assert assignment.device.name.startswith("Radeon")
    model = openclaw.load(doubling, device=assignment)
    assert model.device is not None
    assert model.device.device.type == "CPU", "this machine has none of AMD's GPUs"


def test_a_device_that_vanished_is_told(tmp_path: Path, doubling: Path) -> None:
    root = laid_out("amd-dgpu-apu", tmp_path)
    manager = DeviceManager(root, installed=ROCM)
    assignment = manager.assign_task("inference", device_id=0)
    shutil.rmtree(root / "sys/bus/pci/devices/0000:03:00.0")
    with pytest.raises(DeviceUnavailable, match=r"at 0000:03:00.0\) was there when .* is gone; list the devices again"):
        openclaw.load(doubling, device=assignment)


def test_a_device_that_vanished_is_replaced_where_none_was_named(tmp_path: Path) -> None:
    root = laid_out("nvidia-two-gpus", tmp_path)
    manager = DeviceManager(root, installed=CUDA_TOO)
    assignment = manager.assign_task("inference", kind="gpu")
    shutil.rmtree(root / f"sys/bus/pci/devices/{assignment.device.address}")
    shutil.rmtree(root / f"proc/driver/nvidia/gpus/{assignment.device.address}")
    assert manager.confirm(assignment).device.address == "0000:41:00.0"
    shutil.rmtree(root / "sys/bus/pci")
    shutil.rmtree(root / "proc/driver")
    with pytest.raises(DeviceUnavailable, match="there is no GPU here; there is CPU 0"):
        manager.confirm(assignment)


def test_another_gpu_in_the_same_slot_is_not_the_one_that_was_assigned(tmp_path: Path) -> None:
    root = laid_out("nvidia-two-gpus", tmp_path)
    manager = DeviceManager(root, installed=CUDA_TOO)
    assignment = manager.assign_task("inference", device_id=0)
    file = root / "proc/driver/nvidia/gpus/0000:21:00.0/information"
    file.write_text(file.read_text().replace("000000000001", "000000000009"))
    with pytest.raises(DeviceUnavailable, match="is gone"):
        manager.confirm(assignment)


def test_a_device_that_lost_its_driver_says_so(tmp_path: Path) -> None:
    root = laid_out("amd-dgpu-apu", tmp_path)
    manager = DeviceManager(root, installed=ROCM)
    assignment = manager.assign_task("inference", device_id=0)
    put(root, "sys/bus/pci/devices/0000:03:00.0/uevent", b"DRIVER=vfio-pci\n")
    with pytest.raises(DeviceUnavailable, match="cannot be used any more: the driver vfio-pci has it"):
        manager.confirm(assignment)


def test_tasks_are_spread_and_come_back_when_they_end(tmp_path: Path) -> None:
    manager = DeviceManager(laid_out("nvidia-two-gpus", tmp_path), installed=CUDA_TOO)
    tasks = [manager.assign_task("inference") for _ in range(4)]
    assert [each.device.id for each in tasks] == [0, 1, 0, 1]
    del tasks[0], tasks[1]
    gc.collect()
    assert [manager.assign_task("inference").device.id for _ in range(1)] == [0]


def test_several_vendors_work_side_by_side(tmp_path: Path) -> None:
    root = laid_out("amd-dgpu-apu", tmp_path)
    laid_out("intel-arc-igpu", root / "other")
    for part in ("sys/bus/pci/devices/0000:00:02.0", "dev/dri"):
        shutil.copytree(root / "other" / part, root / part, dirs_exist_ok=True)
    manager = DeviceManager(root, installed=ROCM | {"OpenVINOExecutionProvider"})
    vendors = [manager.assign_task("inference", each.id).providers[0] for each in manager.list_devices()]
    assert vendors == [
        ("MIGraphXExecutionProvider", {"device_id": "0"}),
        ("MIGraphXExecutionProvider", {"device_id": "1"}),
        ("OpenVINOExecutionProvider", {"device_type": "GPU.0"}),
        "CPUExecutionProvider",
    ]


def test_a_broken_model_is_not_a_broken_device(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelInvalid):
        openclaw.load(tmp_path / "broken.onnx", device="auto")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"task": "training"}, "task is 'training'; allowed: inference"),
        ({"task": "inference", "device_id": "first"}, "device is 'first'; allowed: auto, gpu, npu, cpu, or a number"),
        ({"task": "inference", "device_id": True}, "device is True"),
        ({"task": "inference", "device_id": -1}, "device is -1"),
        ({"task": "inference", "kind": "tpu"}, "device is 'tpu'"),
        ({"task": "inference", "memory": -5}, "memory is -5; a whole number of bytes is needed"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigInvalid) as refusal:
        DeviceManager().assign_task(**arguments)
    assert says in str(refusal.value)


def test_a_number_that_no_device_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    manager = DeviceManager(laid_out("plain-vm", tmp_path))
    with pytest.raises(DeviceUnavailable, match=r"there is no device 3; there is CPU 0 \(AMD EPYC-Milan Processor"):
        manager.assign_task("inference", 3)


def test_a_task_goes_to_a_device_with_the_memory_for_it() -> None:
    devices = machine(gpu("a", memory=8 * GIB, memory_free=GIB), gpu("b", memory=4 * GIB, memory_free=3 * GIB), cpu())
    assert choose(devices, Wish(), memory=2 * GIB, reserved={}).address == "b"
    assert choose(devices, Wish(), memory=5 * GIB, reserved={}).address == "cpu", "whose memory is unknown"
    with pytest.raises(DeviceUnavailable, match=r"no device can take it: GPU 0 .* needed and 1,073,741,824 are free"):
        choose(devices[:2], Wish(), memory=5 * GIB, reserved={})


def test_memory_of_tasks_that_have_not_loaded_yet_is_taken_too() -> None:
    devices = machine(gpu("a", memory=8 * GIB, memory_free=8 * GIB), cpu())
    reserved = {devices[0].key: [3 * GIB, 3 * GIB]}
    assert free_bytes(devices[0], reserved[devices[0].key]) == 2 * GIB
    assert choose(devices, Wish(), memory=3 * GIB, reserved=reserved).type == "CPU"


def test_weights_that_lie_beside_a_model_count_as_memory_that_it_needs(tmp_path: Path) -> None:
    path, weights = tmp_path / "outside.onnx", np.ones((512, 512), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "outside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 512])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
    needed = weights.nbytes + path.stat().st_size
    assert needed < weights.nbytes + 10_000
    placed = openclaw.load(path, device="auto")
    assert placed.device is not None
    assert placed.device.memory == needed


def test_of_devices_that_are_alike_the_idle_one_is_taken() -> None:
    devices = machine(gpu("a", load=0.9), gpu("b", load=0.1), gpu("c", load=0.5), cpu())
    assert choose(devices, Wish(), memory=0, reserved={}).address == "b"
    assert choose(devices, Wish(), memory=0, reserved={devices[1].key: [0]}).address == "c"


def test_an_npu_is_taken_only_if_it_is_asked_for(tmp_path: Path) -> None:
    providers = CPU_ONLY | {"OpenVINOExecutionProvider"}
    devices = [
        each for each in read_devices(laid_out("intel-core-ultra", tmp_path), installed=providers) if each.type != "GPU"
    ]
    assert choose(devices, Wish(), memory=0, reserved={}).type == "CPU"
    assert choose(devices, Wish(kind="NPU"), memory=0, reserved={}).type == "NPU"


numbers = st.none() | st.integers(0, 2**40)
shares = st.none() | st.floats(0, 1)
gpus = st.builds(
    lambda memory, free, load: gpu("x", memory=memory, memory_free=free, load=load), numbers, numbers, shares
)


@given(st.lists(gpus, max_size=5), st.integers(0, 2**41), st.lists(st.integers(0, 4), max_size=12))
def test_what_is_chosen_has_the_memory_and_nothing_like_it_is_less_busy(
    found: list[Device], memory: int, tasks: list[int]
) -> None:
    devices = machine(*(replace(each, address=str(number)) for number, each in enumerate(found)), cpu())
    reserved = {devices[task].key: [0] * tasks.count(task) for task in tasks if task < len(found)}
    fitting = [each for each in devices[:-1] if (free := free_bytes(each, ())) is None or free >= memory]

    def tasks_and_load(device: Device) -> float:
        return len(reserved.get(device.key, ())) + (device.load or 0)

    chosen = choose(devices, Wish(), memory=memory, reserved=reserved)
    assert chosen in (fitting or devices[-1:])
    assert tasks_and_load(chosen) == min(map(tasks_and_load, fitting or devices[-1:]))


@given(st.text(max_size=6))
def test_words_for_devices_are_understood_or_refused(text: str) -> None:
    if text.strip().lower() in ("auto", "gpu", "npu", "cpu") or re.fullmatch("[0-9]{1,4}", text.strip()):
        assert (parse_wish(text).number is None) != text.strip().isdigit()
    else:
        with pytest.raises(ConfigInvalid, match="allowed: auto, gpu, npu, cpu"):
            parse_wish(text)


def test_a_session_runs_on_the_provider_and_device_that_were_assigned(doubling: Path) -> None:
    pytest.importorskip("onnxruntime_ep_openvino", reason="the only other engine that runs on any machine")
    providers = CPU_ONLY | {"OpenVINOExecutionProvider"}
    # The CPU as OpenVINO offers it stands for a device of Intel's.
    device = replace(cpu(), route=OPENVINO, options=(("device_type", "CPU"),), installed=providers)
    manager = DeviceManager(installed=providers)
    assignment = replace(manager.assign_task("inference", kind="cpu"), device=device)
    session = open_on(assignment, doubling, onnxruntime.SessionOptions())
    assert session.get_providers()[0] == "OpenVINOExecutionProvider"
    answer = session.run(None, {"x": np.array([[1, 2, 3, 4]], np.float32)})[0]
    assert np.allclose(answer, [[2, 4, 6, 8]])
    absent = replace(assignment, device=replace(device, options=(("device_type", "GPU.7"),)))
    with pytest.raises(DeviceUnavailable, match="OpenVINOExecutionProvider does not find it here"):
        open_on(absent, doubling, onnxruntime.SessionOptions())
