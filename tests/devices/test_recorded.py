"""What is seen of each machine on record."""

from pathlib import Path
from typing import Any

import pytest

from openclaw.devices.backends import processor
from openclaw.devices.device import Device
from openclaw.devices.inventory import read_devices
from openclaw.devices.tree import Machine
from support.recorded import NAMES, laid_out, put

GIB = 1 << 30
ALL = frozenset(
    {
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "MIGraphXExecutionProvider",
        "OpenVINOExecutionProvider",
        "VitisAIExecutionProvider",
        "CANNExecutionProvider",
        "HailoExecutionProvider",
    }
)


def devices(name: str, at: Path) -> list[Device]:
    """As if every execution provider were installed."""
    return read_devices(laid_out(name, at), installed=ALL)


def facts(device: Device, *names: str) -> dict[str, Any]:
    return {name: device[name] for name in names}


def test_two_gpus_of_nvidia_are_counted_along_the_bus(tmp_path: Path) -> None:
    first, second, cpu = devices("nvidia-two-gpus", tmp_path)
    assert facts(first, "id", "type", "vendor", "name", "driver", "address", "uuid", "obstacle") == {
        "id": 0,
        "type": "GPU",
        "vendor": "NVIDIA",
        "name": "NVIDIA GeForce RTX 3090",
        "driver": "nvidia",
        "address": "0000:21:00.0",
        "uuid": "GPU-11111111-aaaa-4bbb-8ccc-000000000001",
        "obstacle": None,
    }
    assert [each["options"] for each in (first, second)] == [{"device_id": "0"}, {"device_id": "1"}]
    assert first.environment == (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
    assert first.provider == "CUDAExecutionProvider"
    assert first.memory is None
    assert first.notes == ("memory and load are unknown: only NVIDIA's management library tells them",)
    assert (cpu.vendor, cpu.name) == ("AMD", "AMD EPYC 7443P 24-Core Processor")


def test_a_gpu_whose_device_file_is_not_in_the_container_is_shown_and_not_numbered(tmp_path: Path) -> None:
    root = laid_out("nvidia-two-gpus", tmp_path)
    (root / "dev/nvidia0").unlink()
    first, second, _ = read_devices(root, installed=ALL)
    assert first.obstacle == "this process is not granted it: there is no /dev/nvidia0"
    assert second["options"] == {"device_id": "0"}, "CUDA counts only what it can open"


def test_a_gpu_that_another_driver_has_says_so(tmp_path: Path) -> None:
    root = laid_out("nvidia-two-gpus", tmp_path)
    (root / "proc/driver/nvidia/gpus/0000:21:00.0/information").unlink()
    put(root, "sys/bus/pci/devices/0000:21:00.0/uevent", b"DRIVER=nouveau\n")
    assert read_devices(root, installed=ALL)[0].obstacle == "the driver nouveau has it; install NVIDIA's driver"


def test_amds_gpus_tell_memory_and_load_and_the_discrete_one_comes_first(tmp_path: Path) -> None:
    discrete, integrated, cpu = devices("amd-dgpu-apu", tmp_path)
    assert repr([discrete]) == "[{'type': 'GPU', 'vendor': 'AMD', 'memory': 25753026560}]"
    assert facts(discrete, "name", "memory_free", "load", "integrated", "provider", "options", "notes") == {
        "name": "Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M",
        "memory_free": 25753026560 - 1288490188,
        "load": 0.07,
        "integrated": False,
        "provider": "MIGraphXExecutionProvider",
        "options": {"device_id": "0"},
        "notes": ["gfx1100"],
    }
    assert facts(integrated, "name", "memory", "integrated", "options", "notes") == {
        "name": "Raphael",
        "memory": 536870912 + 33583716352,
        "integrated": True,
        "options": {"device_id": "1"},
        "notes": ["gfx1036"],
    }
    assert "avx512_vnni" in cpu.instructions


def test_hip_counts_in_the_order_of_its_own_nodes(tmp_path: Path) -> None:
    root = laid_out("amd-dgpu-apu", tmp_path)
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    (nodes / "1").rename(nodes / "10")
    discrete, integrated, _ = read_devices(root, installed=ALL)
    assert (discrete["options"], integrated["options"]) == ({"device_id": "1"}, {"device_id": "0"})


def test_a_gpu_of_amd_needs_rocms_device_file(tmp_path: Path) -> None:
    root = laid_out("amd-dgpu-apu", tmp_path)
    (root / "dev/kfd").unlink()
    assert read_devices(root, installed=ALL)[0].obstacle == "this process is not granted it: there is no /dev/kfd"


def test_intels_gpus_are_numbered_as_openvino_does(tmp_path: Path) -> None:
    arc, integrated, _ = devices("intel-arc-igpu", tmp_path)
    assert facts(arc, "name", "memory", "driver", "options", "integrated", "load") == {
        "name": "Arc A770",
        "memory": 16 * GIB,
        "driver": "xe",
        "options": {"device_type": "GPU.1"},
        "integrated": False,
        "load": None,
    }
    assert facts(integrated, "name", "memory", "driver", "options") == {
        "name": "UHD Graphics 770",
        "memory": 32616544 * 1024,
        "driver": "i915",
        "options": {"device_type": "GPU.0"},
    }


@pytest.mark.parametrize(
    ("end", "memory", "notes"),
    [
        (0x3FFFFFFFF, 16 * GIB, ()),
        (0x0FFFFFFF, None, ("its memory is unknown: the driver does not tell, and resizable BAR is off",)),
    ],
)
def test_without_a_file_the_window_into_intels_memory_tells_its_size(
    tmp_path: Path, end: int, memory: int | None, *, notes: tuple[str, ...]
) -> None:
    root = laid_out("intel-arc-igpu", tmp_path)
    folder = "sys/bus/pci/devices/0000:03:00.0"
    (root / folder / "tile0/physical_vram_size_bytes").unlink()
    start = 0x6000000000
    lines = ["0x0 0x0 0x0", "0x0 0x0 0x0", f"{start:#018x} {start + end:#018x} 0x000000000014220c"]
    put(root, f"{folder}/resource", "\n".join(lines).encode())
    arc = read_devices(root, installed=ALL)[0]
    assert (arc.memory, arc.notes) == (memory, notes)


def test_npus_of_laptops_come_behind_their_gpus(tmp_path: Path) -> None:
    gpu, npu, _ = devices("intel-core-ultra", tmp_path / "intel")
    assert (gpu.name, npu.name) == ("Intel Arc Graphics", "Meteor Lake NPU")
    assert facts(npu, "type", "vendor", "address", "provider", "options") == {
        "type": "NPU",
        "vendor": "Intel",
        "address": "0000:00:0b.0",
        "provider": "OpenVINOExecutionProvider",
        "options": {"device_type": "NPU"},
    }
    npu, _ = devices("ryzen-ai", tmp_path / "amd")
    assert facts(npu, "vendor", "name", "provider", "address") == {
        "vendor": "AMD",
        "name": "RyzenAI-npu1",
        "provider": "VitisAIExecutionProvider",
        "address": "0000:c4:00.1",
    }


def test_a_jetson_has_one_gpu_that_shares_the_memory(tmp_path: Path) -> None:
    gpu, cpu = devices("jetson-orin", tmp_path)
    assert facts(gpu, "vendor", "name", "memory", "load", "integrated", "options") == {
        "vendor": "NVIDIA",
        "name": "Orin GPU (NVIDIA Jetson AGX Orin Developer Kit)",
        "memory": 31385032 * 1024,
        "load": 0.214,
        "integrated": True,
        "options": {"device_id": "0"},
    }
    assert (cpu.vendor, cpu.name) == ("ARM", "8x Cortex-A78AE (NVIDIA Jetson AGX Orin Developer Kit)")
    assert cpu.instructions == ("dotprod", "fp16", "neon")


def test_a_raspberry_pi_with_a_hailo_board(tmp_path: Path) -> None:
    hailo, cpu = devices("raspberry-pi-5-hailo", tmp_path)
    assert facts(hailo, "type", "vendor", "name", "address", "obstacle") == {
        "type": "NPU",
        "vendor": "Hailo",
        "name": "Hailo-8",
        "address": "0001:01:00.0",
        "obstacle": None,
    }
    assert (cpu.name, cpu.cores) == ("4x Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)", 4)


def test_a_hailo_board_without_its_driver_says_what_to_install(tmp_path: Path) -> None:
    root = laid_out("raspberry-pi-5-hailo", tmp_path)
    (root / "sys/class/hailo_chardev/hailo0/board_location").unlink()
    put(root, "sys/bus/pci/devices/0001:01:00.0/uevent", b"PCI_SLOT_NAME=0001:01:00.0\n")
    assert read_devices(root, installed=ALL)[0].obstacle == (
        "no driver has it; install Hailo's driver (hailort-drivers)"
    )


def test_rockchips_npu_tells_its_load_and_that_onnxruntime_cannot_use_it(tmp_path: Path) -> None:
    root = laid_out("rk3588", tmp_path)
    npu, cpu = read_devices(root, installed=ALL)
    assert facts(npu, "vendor", "name", "load", "provider") == {
        "vendor": "Rockchip",
        "name": "RK3588 NPU",
        "load": 0.37,
        "provider": None,
    }
    assert "Rockchip's RKNN toolkit" in (npu.obstacle or "")
    assert cpu.name == "4x Cortex-A55 + 4x Cortex-A76 (Radxa ROCK 5B)"
    put(root, "sys/class/devfreq/fdab0000.npu/device/power/runtime_status", b"suspended\n")
    put(root, "sys/class/devfreq/fdab0000.npu/load", b"100@1000000000Hz\n")
    assert read_devices(root)[0].load == 0.0, "it keeps the last value while it sleeps"
    put(root, "sys/class/devfreq/fdab0000.npu/device/power/runtime_status", b"active\n")
    put(root, "sys/kernel/debug/rknpu/load", b"NPU load:  Core0: 60%, Core1:  0%, Core2:  0%,\n")
    assert read_devices(root)[0].load == pytest.approx(0.2)


def test_rockchips_npu_is_found_under_the_mainline_driver_too(tmp_path: Path) -> None:
    npu, cpu = devices("rk3588-mainline", tmp_path)
    assert facts(npu, "type", "vendor", "name", "driver", "address", "integrated", "provider") == {
        "type": "NPU",
        "vendor": "Rockchip",
        "name": "NPU",
        "driver": "rocket",
        "address": "accel0",
        "integrated": True,
        "provider": None,
    }
    assert npu.memory == cpu.memory
    assert "Rockchip's RKNN toolkit" in (npu.obstacle or "")


def test_accelerators_that_onnxruntime_cannot_use_are_shown_with_what_they_run(tmp_path: Path) -> None:
    gaudi, cloud, cpu = devices("gaudi-cloud-ai", tmp_path)
    assert facts(gaudi, "type", "vendor", "name", "driver", "address", "memory", "integrated", "provider") == {
        "type": "NPU",
        "vendor": "Intel",
        "name": "GAUDI2",
        "driver": "habanalabs",
        "address": "0000:33:00.0",
        "memory": None,
        "integrated": False,
        "provider": None,
    }
    assert gaudi.obstacle == "onnxruntime has no execution provider for it; it runs models of PyTorch"
    assert facts(cloud, "type", "vendor", "name", "driver", "address", "memory", "integrated", "provider") == {
        "type": "NPU",
        "vendor": "Qualcomm",
        "name": "Cloud AI 100",
        "driver": "qaic",
        "address": "0000:9a:00.0",
        "memory": None,
        "integrated": False,
        "provider": None,
    }
    assert "Qualcomm's Cloud AI SDK" in (cloud.obstacle or "")
    assert cpu.name.startswith("Intel(R) Xeon(R) Gold 6338")


def test_an_accelerator_that_is_not_in_the_container_says_so_beside_what_it_runs(tmp_path: Path) -> None:
    root = laid_out("gaudi-cloud-ai", tmp_path)
    (root / "dev/accel/accel0").unlink()
    gaudi, cloud, _ = read_devices(root, installed=ALL)
    assert (gaudi.obstacle or "").startswith("this process is not granted it: there is no /dev/accel/accel0; ")
    assert "not granted" not in (cloud.obstacle or "")


@pytest.mark.parametrize(
    ("name", "architecture", "emulated"),
    [
        ("plain-vm", "aarch64", True),
        ("plain-vm", "armv7l", True),
        ("plain-vm", "x86_64", False),
        ("rk3588", "aarch64", False),
    ],
)
def test_a_cpu_that_is_emulated_is_not_called_what_the_machines_own_is(
    tmp_path: Path, name: str, architecture: str, *, emulated: bool
) -> None:
    (cpu,) = processor.find(Machine(laid_out(name, tmp_path), architecture=architecture))
    assert (cpu.name == f"{architecture}, emulated") == emulated
    assert ("it is emulated: /proc/cpuinfo tells of another CPU" in cpu.notes) == emulated
    assert cpu.vendor == ("ARM" if emulated or name == "rk3588" else "AMD")


def test_coral_on_the_bus_and_as_a_stick(tmp_path: Path) -> None:
    card, stick, cpu = devices("coral", tmp_path)
    assert [(each.vendor, each.name, each.address) for each in (card, stick)] == [
        ("Google", "Coral Edge TPU", "0000:02:00.0"),
        ("Google", "Coral Edge TPU (USB)", "usb 1-3"),
    ]
    assert all("TensorFlow Lite" in (each.obstacle or "") for each in (card, stick))
    assert cpu.vendor == "Intel"


def test_each_chip_of_an_ascend_card_is_a_device(tmp_path: Path) -> None:
    *chips, cpu = devices("ascend-310", tmp_path)
    assert [(each.name, each.address, each["options"]) for each in chips] == [
        ("Ascend 310", f"davinci{number}", {"device_id": str(number)}) for number in range(4)
    ]
    assert {each.provider for each in chips} == {"CANNExecutionProvider"}
    assert chips[0].driver == "davinci 24.1.rc3"
    assert (cpu.vendor, cpu.name) == ("HiSilicon", "2x Kunpeng 920")


def test_an_ascend_card_without_its_driver_is_shown(tmp_path: Path) -> None:
    root = laid_out("ascend-310", tmp_path)
    for node in (root / "dev").iterdir():
        node.unlink()
    *cards, _ = read_devices(root, installed=ALL)
    assert len(cards) == 4
    assert "install the Ascend driver" in (cards[0].obstacle or "")


def test_a_virtual_display_is_no_device_and_a_containers_limits_are_the_cpus(tmp_path: Path) -> None:
    (cpu,) = devices("plain-vm", tmp_path)
    assert facts(cpu, "id", "type", "vendor", "cores", "memory", "load") == {
        "id": 0,
        "type": "CPU",
        "vendor": "AMD",
        "cores": 1.5,
        "memory": 2 * GIB,
        "load": 0.225,
    }
    assert cpu.memory_free == 2 * GIB - 51200 * 4096


def test_broken_values_leave_a_device_with_those_unknown_and_a_note(tmp_path: Path) -> None:
    found = {each.address: each for each in devices("broken-values", tmp_path)}
    assert facts(found["0000:03:00.0"], "memory", "memory_free", "load", "name", "notes") == {
        "memory": None,
        "memory_free": None,
        "load": None,
        "name": "[2J Radeon Pro",
        "notes": [
            "gfx1100",
            "mem_info_vram_total says '-1', which cannot be true",
            "mem_info_vram_used says 'banana', which cannot be true",
            "gpu_busy_percent says '4294967295', which cannot be true",
        ],
    }
    assert found["0000:04:00.0"].memory is None
    assert "mem_info_vram_used cannot be read: Is a directory" in found["0000:04:00.0"].notes
    assert found["0000:05:00.0"].memory is None
    assert "it says that it has no memory, which cannot be true" in found["0000:05:00.0"].notes
    assert found["0000:06:00.0"].notes == ("tile0/physical_vram_size_bytes says '', which cannot be true",)
    assert found["0000:07:00.0"].memory is None
    assert "LAMED" in (found["0000:0a:00.0"].obstacle or "")
    assert found["fdab0000.npu"].notes == ("load says 'NaN@0Hz', which cannot be true",)
    assert "0000:08:00.0" not in found, "nobody knows whose it is"
    cpu = found["cpu"]
    assert facts(cpu, "memory", "memory_free", "load") == {"memory": None, "memory_free": None, "load": None}
    assert (cpu.vendor, cpu.instructions, cpu.cores) == ("ARM", ("dotprod", "neon"), 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_without_its_provider_a_device_says_what_to_install(name: str, tmp_path: Path) -> None:
    for device in read_devices(laid_out(name, tmp_path), installed=frozenset({"CPUExecutionProvider"})):
        if device.type == "CPU":
            assert device.obstacle is None
            continue
        said = device.obstacle or ""
        assert "install" in said or "onnxruntime has no execution provider for it" in said
        assert device.provider is None


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_positions_and_the_cpu_comes_last(name: str, tmp_path: Path) -> None:
    found = devices(name, tmp_path)
    assert [each.id for each in found] == list(range(len(found)))
    assert [each.type for each in found].index("CPU") == len(found) - 1
    assert len({each.key for each in found}) == len(found)
