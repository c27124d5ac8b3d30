"""bfloat16: why there is no form of the model for it on a CPU.

onnxruntime's CPU provider has no kernels for MatMul, Gemm or Conv on bfloat16 tensors: a model in bfloat16 does not
load, or is cast back to float around every operator. On ARM with the instructions there is arithmetic in bfloat16 for
products of floats, but it is an option of the session (``mlas.enable_gemm_fastmath_arm64_bfloat16``), which no model
can ask for. Whether this still holds is tested, by loading such a product.
"""

from __future__ import annotations

import functools

import onnx
import onnxruntime
from onnx import TensorProto, helper

from openclaw.devices.providers import CPU_PROVIDER
from openclaw.errors import NotApplicable
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe


def make(material: Material, judge: Judge) -> Made:
    """Refuses with the reason.

    Raises:
        NotApplicable: always; see the module.
    """
    if "bf16" not in material.instructions:
        raise NotApplicable("this CPU has no instructions for bfloat16")
    if not multiplies():
        raise NotApplicable(
            "onnxruntime's CPU provider has no product of bfloat16 tensors; on ARM it can multiply floats in "
            "bfloat16, as a setting of the session (mlas.enable_gemm_fastmath_arm64_bfloat16) and not of a model"
        )
    raise NotApplicable("onnxruntime's CPU provider multiplies bfloat16 since this version; no form is made of it yet")


@functools.cache
def multiplies() -> bool:
    """Whether onnxruntime loads a product of bfloat16 matrices on the CPU."""
    x = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [2, 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "product", [x], [y])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU_PROVIDER])
    except Exception:
        # onnxruntime's exceptions have no common base below Exception; NotImplemented is what is expected.
        return False
    return True


RECIPES: tuple[Recipe, ...] = (Recipe("bf16", "bf16", make),)
