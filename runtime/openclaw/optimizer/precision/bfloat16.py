"""bfloat16: products of floats whose factors are rounded to 8 bits of mantissa, summed in 32 bits.

The model stays one of 32-bit floats, for onnxruntime's CPU provider has no kernels for MatMul, Gemm or Conv on bfloat16
tensors; a property asks whoever opens it to multiply in bfloat16 (see ``execute.engines``). On x86-64 (AVX512_BF16,
AMX) that is OpenVINO. On ARM it is onnxruntime's own kernels for matrix products, by an option of its sessions
(``mlas.enable_gemm_fastmath_arm64_bfloat16``).
"""

from __future__ import annotations

from openclaw.errors import NotApplicable
from openclaw.execute.engines import BF16, OPENVINO, OWN, PRECISION, PROPERTY
from openclaw.optimizer.model.contents import portable
from openclaw.optimizer.model.properties import with_properties
from openclaw.optimizer.precision.elsewhere import need
from openclaw.optimizer.recipe import Judge, Made, Material, Recipe


def _on_own_kernels(material: Material, _judge: Judge) -> Made:
    _need(material)
    # Words that only ARM has; see ``devices.instructions``.
    if "neon" not in material.instructions:
        raise NotApplicable(f"onnxruntime's own kernels multiply in bfloat16 on ARM alone, {OPENVINO} on this CPU")
    return Made(with_properties(material.fused, {PRECISION: BF16}))


def _on_openvino(material: Material, _judge: Judge) -> Made:
    _need(material)
    need(OPENVINO)
    model = material.fused if portable(material.fused) else material.exported
    return Made(with_properties(model, {PROPERTY: OPENVINO, PRECISION: BF16}))


def _need(material: Material) -> None:
    if BF16 not in material.instructions:
        raise NotApplicable("this CPU has no instructions for bfloat16")


RECIPES: tuple[Recipe, ...] = (
    Recipe("bf16", BF16, _on_own_kernels, engine=OWN),
    Recipe(f"bf16-{OPENVINO}", BF16, _on_openvino, engine=OPENVINO),
)
