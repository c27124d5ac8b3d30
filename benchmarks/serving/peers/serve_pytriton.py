"""PyTriton 0.7: Triton's C++ front, with a function of a few lines behind it.

Settings: metrics off, batches without delay (Triton's default: what waits anyway is taken together), two HTTP threads
for two cores. Triton joins requests of one shape only. It has binary tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.serving.peers import engine
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

_DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def main() -> None:
    """Serves until told to stop."""
    options = engine.parsed()
    session = engine.session(options)

    @batch  # type: ignore[untyped-decorator]  # pytriton is not in the environment that is checked
    def infer(**arrays: Any) -> dict[str, Any]:
        return dict(zip([each.name for each in session.get_outputs()], session.run(None, arrays), strict=True))

    address = "127.0.0.1"
    config = TritonConfig(
        http_address=address,
        http_port=options.port,
        http_thread_count=2,
        grpc_address=address,
        grpc_port=options.spare,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=options.name,
            infer_func=infer,
            inputs=[_tensor(each) for each in session.get_inputs()],
            outputs=[_tensor(each) for each in session.get_outputs()],
            config=ModelConfig(max_batch_size=options.batch, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()


def _tensor(argument: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape[1:])
    return Tensor(name=argument.name, dtype=_DTYPES[argument.type], shape=shape)


if __name__ == "__main__":
    main()
