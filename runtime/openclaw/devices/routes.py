"""Which execution provider of onnxruntime serves which kind of device, and what brings it.

A build of onnxruntime has the providers that it was made with; installing another replaces it, so the sentences say to
remove the plain one first. Plugins are installed beside it. Sources: onnxruntime.ai/docs/execution-providers, and the
pages of each vendor.
"""

from __future__ import annotations

from openclaw.devices.device import Route
from openclaw.devices.providers import CPU_PROVIDER, CUDA_PROVIDER, OPENVINO_PROVIDER, TENSORRT_PROVIDER


def _wheel(package: str, needs: str) -> str:
    return (
        "no execution provider for it is installed: pip uninstall onnxruntime, "
        f"then pip install {package} (needs {needs})"
    )


CPU = Route((CPU_PROVIDER,), "the installed onnxruntime has no CPU provider: pip install onnxruntime")

CUDA = Route(
    (CUDA_PROVIDER, "NvTensorRTRTXExecutionProvider", TENSORRT_PROVIDER),
    _wheel("onnxruntime-gpu", "NVIDIA's driver, CUDA and cuDNN"),
)

JETSON = Route(
    CUDA.providers,
    "no execution provider for it is installed: pip uninstall onnxruntime, then install NVIDIA's onnxruntime-gpu wheel "
    "for this JetPack (elinux.org/Jetson_Zoo; the wheel of other machines does not fit)",
)

MIGRAPHX = Route(
    ("MIGraphXExecutionProvider", "ROCMExecutionProvider"),
    _wheel("onnxruntime-migraphx", "ROCm and MIGraphX, of the version that fits it"),
)

OPENVINO = Route(
    (OPENVINO_PROVIDER,),
    "no execution provider for it is installed: pip install onnxruntime-ep-openvino (needs Intel's compute runtime)",
)

OPENVINO_NPU = Route(
    OPENVINO.providers,
    "no execution provider for it is installed: pip install onnxruntime-ep-openvino (needs Intel's NPU driver)",
)

VITIS_AI = Route(
    ("VitisAIExecutionProvider",),
    "no execution provider for it is installed: install AMD's Ryzen AI software, whose onnxruntime-vitisai has it "
    "(ryzenai.docs.amd.com)",
)

CANN = Route(("CANNExecutionProvider",), _wheel("onnxruntime-cann", "Huawei's CANN toolkit"))

HAILO = Route(
    ("HailoExecutionProvider",),
    "no execution provider for it is installed: build the onnxruntime of github.com/hailo-ai/onnxruntime, and compile "
    "the model with Hailo's Dataflow Compiler",
)

RK1808 = Route(
    ("RknpuExecutionProvider",), "no execution provider for it is installed: build onnxruntime with --use_rknpu"
)

ROCKCHIP = Route(
    (),
    "onnxruntime has no execution provider for it; its models are made with Rockchip's RKNN toolkit "
    "(rknn-toolkit2, and rknn-toolkit-lite2 on the board)",
)

CORAL = Route((), "onnxruntime has no execution provider for it; it runs TensorFlow Lite models compiled for Edge TPU")

GAUDI = Route((), "onnxruntime has no execution provider for it; it runs models of PyTorch")

AI_100 = Route((), "onnxruntime has no execution provider for it; it runs what Qualcomm's Cloud AI SDK compiled")

UNKNOWN = Route((), "onnxruntime has no execution provider for it that is known here")
