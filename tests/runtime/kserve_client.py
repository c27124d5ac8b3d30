"""KServe's own clients against a server; run by the tests in an environment that has KServe in it.

python kserve_client.py REST_URL GRPC_ADDRESS
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.constants.constants import PredictorProtocol
from kserve.inference_client import RESTConfig

IMAGES = np.random.default_rng(3).random((4, 64), dtype=np.float32)


def request(*, binary: bool) -> InferRequest:
    image = InferInput("image", list(IMAGES.shape), "FP32")
    image.set_data_from_numpy(IMAGES, binary_data=binary)
    return InferRequest("digits", [image])


async def over_rest(url: str) -> list[np.ndarray]:
    client = InferenceRESTClient(RESTConfig(protocol=PredictorProtocol.REST_V2))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "digits")
    answers = [await client.infer(url, request(binary=binary), model_name="digits") for binary in (False, True)]
    await client.close()
    return [answer.outputs[0].as_numpy() for answer in answers]


async def over_v1(url: str) -> np.ndarray:
    client = InferenceRESTClient(RESTConfig(protocol=PredictorProtocol.REST_V1))
    answer = await client.infer(url, {"instances": IMAGES.tolist()}, model_name="digits")
    await client.close()
    return np.array(answer["predictions"], dtype=np.float32)


async def over_grpc(address: str) -> np.ndarray:
    client = InferenceGRPCClient(address)
    assert await client.is_server_ready()
    answer = await client.infer(request(binary=False))
    await client.close()
    return answer.outputs[0].as_numpy()


async def main(url: str, address: str) -> None:
    first, *others = [*await over_rest(url), await over_v1(url), await over_grpc(address)]
    assert first.shape == (4, 10)
    for other in others:
        np.testing.assert_allclose(other.reshape(first.shape), first, rtol=1e-5)
    print("all agree")


asyncio.run(main(*sys.argv[1:]))
