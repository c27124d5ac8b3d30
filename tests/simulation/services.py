"""InferenceServices as users write them: a least one, a full one, and any that is valid."""

from typing import Any

from hypothesis import strategies as st

from openclaw_operator.api.v1alpha1 import API_VERSION, KIND, InferenceService

Manifest = dict[str, Any]

LEAST: Manifest = {"model": {"uri": "s3://models/digits.onnx"}}

FULL: Manifest = {
    "model": {
        "uri": "s3://models/digits.onnx",
        "name": "digits-v2",
        "sha256": "0123456789abcdef" * 4,
        "format": "onnx",
        "credentials": {"secretName": "bucket"},
        "warmup": {"requests": 3},
    },
    "runtime": {
        "image": "registry.example/openclaw-runtime:1.2.3",
        "workers": 2,
        "threads": 4,
        "env": [
            {"name": "HTTP_PROXY", "value": "http://proxy:3128"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
        ],
        "args": ["--drain-delay=10"],
        "batching": {"maxBatchSize": 16, "latencyTargetMilliseconds": 500, "padding": "never"},
        "grpc": True,
    },
    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
    "scaling": {
        "minReplicas": 2,
        "maxReplicas": 8,
        "target": {"cpuUtilization": 60, "memoryUtilization": 75},
        "behavior": {
            "scaleUp": {
                "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
            },
            "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Min"},
        },
    },
    "probes": {
        "startup": {"periodSeconds": 2, "failureThreshold": 900},
        "readiness": {"periodSeconds": 3, "timeoutSeconds": 1, "failureThreshold": 2},
        "liveness": {"periodSeconds": 20},
    },
    "disruption": {"minAvailable": "50%"},
    "podTemplate": {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"example.org/owner": "vision"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "containers": [
                {"name": "server", "env": [{"name": "EXTRA", "value": "1"}]},
                {"name": "sidecar", "image": "registry.example/sidecar:1"},
            ],
        },
    },
    "suspend": False,
}

OPTIMIZED: Manifest = {
    "model": {"uri": "s3://models/digits.onnx", "credentials": {"secretName": "bucket"}},
    "runtime": {
        "threads": 2,
        "optimize": {
            "mode": "auto",
            "calibration": {"uri": "s3://models/samples.npz"},
            "accuracyBudget": "top1>=0.998,cosine>=0.99",
            "cacheUri": "s3://models/optimized",
            "timeoutSeconds": 300,
        },
    },
    "resources": {"limits": {"cpu": "2", "memory": "2Gi"}},
    "scaling": {"minReplicas": 2, "maxReplicas": 2},
    "podTemplate": {
        "spec": {
            "initContainers": [{"name": "first", "image": "registry.example/first:1"}],
            "containers": [{"name": "server", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}],
            "volumes": [{"name": "more", "emptyDir": {}}],
        }
    },
}


def manifest(
    spec: Manifest | None = None, *, name: str = "digits", namespace: str = "vision", uid: str = "uid-1", **rest: Any
) -> Manifest:
    """An InferenceService as the API server hands it out; `rest` goes into its metadata, but for `status`."""
    status = rest.pop("status", None)
    metadata = {"name": name, "namespace": namespace, "uid": uid, "generation": 1, "resourceVersion": "1", **rest}
    whole = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": LEAST if spec is None else spec}
    return {**whole, "status": status} if status is not None else whole


def service(spec: Manifest | None = None, **rest: Any) -> InferenceService:
    """The same, validated."""
    return InferenceService.parse(manifest(spec, **rest))


def having(**groups: Any) -> Manifest:
    """The least spec with further groups."""
    return {**LEAST, **groups}


_words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Manifest]:
    """Objects with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


_uris = st.builds(
    lambda scheme, bucket, key: f"{scheme}://{bucket}/{key}.onnx",
    st.sampled_from(["s3", "gs", "az", "http", "https"]),
    _words,
    _words,
) | st.builds(lambda key: f"file:///{key}.onnx", _words)

models = st.fixed_dictionaries(
    {"uri": _uris},
    optional={
        "name": st.from_regex(r"\A[A-Za-z0-9]([-A-Za-z0-9._]{0,20}[A-Za-z0-9])?\Z"),
        "sha256": st.text("0123456789abcdef", min_size=64, max_size=64),
        "format": st.just("onnx"),
        "credentials": st.builds(lambda word: {"secretName": word}, _words),
        "warmup": _maybe(requests=st.integers(0, 1000)),
    },
)

_environment = st.lists(
    st.fixed_dictionaries(
        {"name": st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,8}\Z")}, optional={"value": st.text(max_size=8)}
    ),
    max_size=3,
    unique_by=lambda variable: variable["name"],
)

_stores = st.builds("{}://{}/{}".format, st.sampled_from(["s3", "gs", "az"]), _words, _words)
_bounds = st.lists(
    st.builds("{}={}".format, st.sampled_from(["top1>", "cosine >", "cosine-worst>", "overlap>"]), st.floats(0.01, 1))
    | st.builds("{}={}".format, st.sampled_from(["max-abs<", "relative <"]), st.floats(1e-6, 10)),
    min_size=1,
    max_size=3,
    unique_by=lambda bound: bound.split("=")[0].strip(" <>"),
).map(",".join)
# Without a place of its own a service needs one of the operator's.
optimizations = st.fixed_dictionaries(
    {"mode": st.sampled_from(["off", "fp32", "auto"]), "cacheUri": _stores | st.just("file:///shared")},
    optional={"calibration": st.builds(lambda uri: {"uri": uri}, _uris), "timeoutSeconds": st.integers(10, 86400)},
) | st.fixed_dictionaries(
    {
        "mode": st.just("auto"),
        "cacheUri": _stores,
        "calibration": st.builds(lambda uri: {"uri": uri}, _uris),
        "accuracyBudget": _bounds,
    }
)
"""Every kind of `spec.runtime.optimize` that names its cache."""

runtimes = _maybe(
    image=st.builds("registry.example/{}:{}".format, _words, _words),
    workers=st.integers(1, 64),
    threads=st.integers(1, 256),
    env=_environment,
    args=st.lists(_words, max_size=3),
    grpc=st.booleans(),
    optimize=optimizations,
    batching=_maybe(
        maxBatchSize=st.integers(1, 4096),
        latencyTargetMilliseconds=st.integers(1, 3_600_000),
        maxQueueLength=st.integers(1, 1_000_000),
        padding=st.sampled_from(["auto", "never"]),
        mask=_words,
    ),
)

_cpu = st.sampled_from(["100m", "250m", 1, "1.5", "2"])
_cpu_limit = st.sampled_from(["2000m", 2, "4"])
_memory = st.sampled_from(["64Mi", "1Gi", 1073741824])
_memory_limit = st.sampled_from(["1Gi", "2G", "4096Mi"])
resources = _maybe(
    requests=_maybe(cpu=_cpu, memory=_memory),
    limits=_maybe(cpu=_cpu_limit, memory=_memory_limit),
)

_policies = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Pods", "Percent"]),
            "value": st.integers(1, 100),
            "periodSeconds": st.integers(1, 1800),
        }
    ),
    max_size=2,
)
_rules = _maybe(
    stabilizationWindowSeconds=st.integers(0, 3600),
    selectPolicy=st.sampled_from(["Max", "Min", "Disabled"]),
    policies=_policies,
)


def _ordered(scaling: Manifest) -> Manifest:
    if scaling.get("maxReplicas", 1000) < scaling.get("minReplicas", 1):
        scaling = {**scaling, "maxReplicas": scaling["minReplicas"]}
    return scaling


scalings = _maybe(
    minReplicas=st.integers(1, 6),
    maxReplicas=st.integers(1, 6),
    target=_maybe(cpuUtilization=st.integers(1, 1000), memoryUtilization=st.integers(1, 1000)),
    behavior=_maybe(scaleUp=_rules, scaleDown=_rules),
).map(_ordered)

_probe = _maybe(
    periodSeconds=st.integers(1, 86400),
    timeoutSeconds=st.integers(1, 86400),
    failureThreshold=st.integers(1, 100000),
)
probes = _maybe(startup=_probe, readiness=_probe, liveness=_probe)

_amounts = st.integers(0, 10) | st.builds("{}%".format, st.integers(0, 100))
disruptions = st.one_of(
    st.just({}),
    st.builds(lambda amount: {"minAvailable": amount}, _amounts),
    st.builds(lambda amount: {"maxUnavailable": amount}, _amounts),
)

pod_templates = _maybe(
    metadata=_maybe(
        labels=st.dictionaries(_words, _words, max_size=2), annotations=st.dictionaries(_words, _words, max_size=2)
    ),
    spec=_maybe(
        nodeSelector=st.dictionaries(_words, _words, max_size=2),
        terminationGracePeriodSeconds=st.none() | st.integers(60, 600),
        volumes=st.lists(
            st.builds(lambda name: {"name": name, "emptyDir": {}}, _words), max_size=2, unique_by=lambda v: v["name"]
        ),
        containers=st.sampled_from([[], [{"name": "server", "livenessProbe": None}], [{"name": "side", "image": "i"}]]),
    ),
)

specs = st.fixed_dictionaries(
    {"model": models},
    optional={
        "runtime": runtimes,
        "resources": resources,
        "scaling": scalings,
        "probes": probes,
        "disruption": disruptions,
        "podTemplate": pod_templates,
        "suspend": st.booleans(),
    },
)
"""Every kind of spec that the API accepts."""
