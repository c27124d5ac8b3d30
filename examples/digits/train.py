"""Trains a small network on scikit-learn's handwritten digits and exports it to ONNX.

    python train.py

Writes into build/:
  digits.onnx     the network: `image` FP32 [batch, 8, 8], brightness 0 to 16, row by row
                  -> `probabilities` FP32 [batch, 10], `digit` INT64 [batch]
  held-out.json   images that were never trained on, and the digits that they show

The digits are 1797 scans of 8 x 8 pixels from the UCI repository ("Optical Recognition of Handwritten Digits",
E. Alpaydin and C. Kaynak, 1998); scikit-learn carries them, so nothing is downloaded.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]

BUILD = Path(__file__).parent / "build"
MODEL = BUILD / "digits.onnx"
HELD_OUT = BUILD / "held-out.json"

SEED = 7
HELD_OUT_IMAGES = 450
BRIGHTEST = 16.0
TOLERANCE = 1e-5
"""Largest difference of a probability between the trained network, in double precision, and its export."""


def main() -> None:
    """Trains, exports, checks the export, and writes both files."""
    network, images, digits = train()
    model = export(network)
    worst = largest_difference(model, network, images)
    if worst > TOLERANCE:
        raise SystemExit(f"the export differs from the network by {worst:.1e}; at most {TOLERANCE:.0e} is allowed")
    accuracy = np.mean(network.predict(flat(images)) == digits)
    BUILD.mkdir(exist_ok=True)
    held_out = {"images": images.astype(int).tolist(), "digits": digits.tolist()}
    write(HELD_OUT, json.dumps(held_out).encode())
    write(MODEL, model.SerializeToString())
    print(f"{MODEL.name}: {MODEL.stat().st_size:,} bytes, differs from the trained network by at most {worst:.0e}")
    print(f"{HELD_OUT.name}: {len(images)} images never trained on, of which the network knows {accuracy:.1%}")


def train() -> tuple[Any, Floats, npt.NDArray[np.int64]]:
    """The trained network, the held-out images [n, 8, 8] and the digits [n] that they show."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    digits = load_digits()
    train_images, held_out, train_digits, answers = train_test_split(
        digits.images.astype(np.float32),
        digits.target,
        test_size=HELD_OUT_IMAGES,
        random_state=SEED,
        stratify=digits.target,
    )
    network = MLPClassifier(
        hidden_layer_sizes=(128,), learning_rate_init=0.005, max_iter=400, tol=1e-3, random_state=SEED
    )
    # The matrices are so small that threads only wait for each other.
    with threadpool_limits(1):
        network.fit(flat(train_images), train_digits)
    return network, held_out, answers


def flat(images: Floats) -> Floats:
    """Images as the network sees them: [n, 64], brightness 0 to 1."""
    return (images / BRIGHTEST).reshape(len(images), -1)


def export(network: Any) -> onnx.ModelProto:
    """The network as ONNX. What is done to an image before the network is in the graph: clients send it as it is."""
    (hidden_weights, output_weights), (hidden_bias, output_bias) = network.coefs_, network.intercepts_
    constants = {
        "brightest": np.array(BRIGHTEST),
        "hidden.weight": hidden_weights,
        "hidden.bias": hidden_bias,
        "output.weight": output_weights,
        "output.bias": output_bias,
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
        helper.make_node("Div", ["pixels", "brightest"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "hidden.weight", "hidden.bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "output.weight", "output.bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["digit"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        inputs=[helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        outputs=[
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
        ],
        initializer=[numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def largest_difference(model: onnx.ModelProto, network: Any, images: Floats) -> float:
    """How far a probability that the export gives is from the network's own, at most over `images`.

    Raises:
        SystemExit: the export names another digit than its own probabilities do.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities, digit = session.run(["probabilities", "digit"], {"image": images})
    if not np.array_equal(digit, probabilities.argmax(axis=1)):
        raise SystemExit("the export's digit is not the most probable one")
    return float(np.abs(probabilities - network.predict_proba(flat(images))).max())


def write(path: Path, content: bytes) -> None:
    """Writes a file as a whole: whoever is interrupted, or reads meanwhile, never sees half of it."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)


if __name__ == "__main__":
    main()
