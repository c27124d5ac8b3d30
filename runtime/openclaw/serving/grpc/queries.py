"""Every method of the service but inference: what the server, a model, the repository and shared memory are."""

from __future__ import annotations

from collections.abc import Iterable

from openclaw.errors import InvalidRequest, NotReady, Unsupported
from openclaw.graph.signature import TensorSpec
from openclaw.serving.controlling import check_parameters
from openclaw.serving.grpc import inference_pb2 as pb
from openclaw.serving.grpc.ports import Loading, Repository, Served, Spent
from openclaw.serving.metadata import BACKEND, PLATFORM, data_type, extensions
from openclaw.serving.sharedmemory import Regions
from openclaw.serving.shown import shown
from openclaw.version import __version__

_READY = "READY"


class Queries:
    """Answers requests of the protocol with its messages; raises RequestError.

    Args:
        repository: the models.
        loading: loads and unloads them; None where clients may not.
        regions: shared memory; None where clients may not use it.
        statistics: whether the models' statistics are shown.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        loading: Loading | None = None,
        regions: Regions | None = None,
        statistics: bool = False,
    ) -> None:
        self._repository = repository
        self._loading = loading
        self._regions = regions
        self._statistics = statistics

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """ServerLive."""
        return pb.ServerLiveResponse(live=self._repository.live)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """ServerReady."""
        return pb.ServerReadyResponse(ready=self._repository.ready)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """ModelReady; a model that is not there is an error, one that is loading is not ready."""
        return pb.ModelReadyResponse(ready=self._repository.is_ready(request.name, request.version or None))

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """ServerMetadata; the extensions are those that are allowed here."""
        on = extensions(
            model_control=self._loading is not None,
            shared_memory=self._regions is not None,
            statistics=self._statistics,
        )
        return pb.ServerMetadataResponse(name="openclaw", version=__version__, extensions=on)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """ModelMetadata."""
        served = self._find(request)
        return pb.ModelMetadataResponse(
            name=served.name,
            versions=served.versions,
            platform=PLATFORM,
            inputs=_tensors(served.signature.inputs),
            outputs=_tensors(served.signature.outputs),
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """ModelConfig."""
        served = self._find(request)
        config = pb.ModelConfig(name=served.name, platform=PLATFORM, backend=BACKEND)
        for spec in served.signature.inputs:
            config.input.add(name=spec.name, data_type=data_type(spec), dims=spec.shape)
        for spec in served.signature.outputs:
            config.output.add(name=spec.name, data_type=data_type(spec), dims=spec.shape)
        config.model_transaction_policy.decoupled = False
        return pb.ModelConfigResponse(config=config)

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """ModelStatistics, of one version or of every model."""
        if not self._statistics:
            raise Unsupported("model statistics are not shown by this server")
        served = [self._find(request)] if request.name else self._all()
        return pb.ModelStatisticsResponse(model_stats=[_statistics(each) for each in served])

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """RepositoryIndex."""
        _check_repository(request.repository_name)
        answer = pb.RepositoryIndexResponse()
        for name, version, state, reason in self._repository.index():
            if state == _READY or not request.ready:
                answer.models.add(name=name, version=version, state=state, reason=reason)
        return answer

    async def repository_model_load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """RepositoryModelLoad."""
        await self._loads(request).load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """RepositoryModelUnload."""
        await self._loads(request).unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def system_shared_memory_status(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        """SystemSharedMemoryStatus, of one region or of all."""
        answer = pb.SystemSharedMemoryStatusResponse()
        for status in self._memory().status(request.name or None):
            region = answer.regions[status["name"]]
            region.name, region.key = status["name"], status["key"]
            region.offset, region.byte_size = status["offset"], status["byte_size"]
        return answer

    def system_shared_memory_register(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """SystemSharedMemoryRegister."""
        self._memory().register(request.name, key=request.key, offset=request.offset, byte_size=request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def system_shared_memory_unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """SystemSharedMemoryUnregister, of one region or of all."""
        self._memory().unregister(request.name or None)
        return pb.SystemSharedMemoryUnregisterResponse()

    def _find(self, request: _Named) -> Served:
        return self._repository.find(request.name, request.version or None)

    def _all(self) -> Iterable[Served]:
        for name in self._repository.names():
            try:
                yield self._repository.find(name, None)
            except NotReady:
                # It has not done anything yet.
                continue

    def _loads(self, request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> Loading:
        if self._loading is None:
            raise Unsupported("loading and unloading models is not allowed by this server")
        _check_repository(request.repository_name)
        check_parameters(request.parameters)
        return self._loading

    def _memory(self) -> Regions:
        if self._regions is None:
            raise Unsupported("shared memory is not allowed by this server")
        return self._regions


_Named = pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest


def _check_repository(name: str) -> None:
    if name:
        raise InvalidRequest(f"repository_name is {shown(name)}; this server has one repository, without a name")


def _tensors(specs: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    describe = pb.ModelMetadataResponse.TensorMetadata
    return [describe(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs]


def _statistics(served: Served) -> pb.ModelStatistics:
    found = served.statistics()
    inferences = pb.InferStatistics(
        success=_spent(found.success),
        fail=_spent(found.fail),
        queue=_spent(found.queue),
        compute_input=_spent(found.compute_input),
        compute_infer=_spent(found.compute_infer),
        compute_output=_spent(found.compute_output),
    )
    batches = [
        pb.InferBatchStatistics(batch_size=rows, compute_infer=_spent(spent))
        for rows, spent in sorted(found.batches.items())
    ]
    return pb.ModelStatistics(
        name=served.name,
        version=served.version,
        last_inference=found.last_inference_ms,
        inference_count=found.inference_count,
        execution_count=found.execution_count,
        inference_stats=inferences,
        batch_stats=batches,
    )


def _spent(spent: Spent) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=spent[0], ns=spent[1])
