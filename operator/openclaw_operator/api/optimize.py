"""`spec.runtime.optimize`: whether the model is made faster before it is served, and what that may cost."""

from typing import ClassVar, Literal

from pydantic import Field

from openclaw_operator.api.base import ApiModel, Rule, matches
from openclaw_operator.api.uri import STORES, absolute, readable, scheme_known

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(e-?[0-9]+)?"
_BOUND = rf" *((top1|cosine|cosine-worst|overlap) *>=|(max-abs|relative) *<=) *{_NUMBER} *"
BUDGET = rf"^{_BOUND}(,{_BOUND})*$"


class Calibration(ApiModel):
    """Samples of what the model will be asked."""

    uri: str = Field(min_length=1, max_length=2048)
    """Where they lie: an .npz file with an array for every input by its name, whose first axis counts samples. Read
    with the model's credentials."""

    rules: ClassVar[tuple[Rule, ...]] = readable("uri", "samples.npz")


class Optimize(ApiModel):
    """What is done before the server starts: once for all pods on nodes of one kind, by the first that comes. Whatever
    fails, the model is served as it is, and status.model.optimization says why.
    """

    mode: Literal["off", "fp32", "auto"] = "off"
    """fp32: only forms whose answers are equal within 1e-4; auto: those of lower precision, too, as far as calibration
    data shows that they stay within the accuracy budget. Write "off" in quotes: YAML takes the bare word for false."""
    calibration: Calibration | None = None
    """Samples: one half calibrates, the other half judges. Default: none; then only equal forms are tried."""
    accuracy_budget: str | None = Field(default=None, min_length=1, max_length=256)
    """What a form of lower precision must reach, as `openclaw optimize --accuracy-budget` takes it: top1>=0.998, or
    cosine>=0.99,cosine-worst>=0.98. Default: what the kind of the outputs asks for."""
    cache_uri: str | None = Field(default=None, min_length=1, max_length=2048)
    """Where results are shared: s3://BUCKET/PREFIX, gs://, az://, or file:///PATH of a volume that all pods have. The
    model's credentials must allow to list, read, write and delete there. Default: the operator's optimizer.cacheUri."""
    timeout_seconds: int | None = Field(default=None, ge=10, le=86400)
    """Seconds, beside the download, after which a pod serves the model as it is. Default: 600."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!has(self.accuracyBudget) || self.accuracyBudget.matches(r'{BUDGET}')",
            message=(
                "accuracyBudget must be bounds separated by commas, as in top1>=0.998 or "
                "cosine>=0.99,cosine-worst>=0.98; there are top1, cosine, cosine-worst and overlap with >=, "
                "max-abs and relative with <="
            ),
            holds=lambda optimize: optimize.accuracy_budget is None or matches(BUDGET, optimize.accuracy_budget),
        ),
        Rule(
            cel="!has(self.accuracyBudget) || has(self.calibration)",
            message="accuracyBudget needs calibration.uri: accuracy is judged on samples; without them none is lost",
            holds=lambda optimize: optimize.accuracy_budget is None or optimize.calibration is not None,
        ),
        Rule(
            cel="!has(self.accuracyBudget) || self.mode != 'fp32'",
            message=(
                "accuracyBudget is for mode: auto; with fp32 all answers stay equal: remove it, or write mode: auto"
            ),
            holds=lambda optimize: optimize.accuracy_budget is None or optimize.mode != "fp32",
        ),
        scheme_known("cache_uri", "cacheUri", schemes=STORES, example="optimized"),
        absolute("cache_uri", "cacheUri", example="optimized"),
    )

    @property
    def seconds(self) -> int:
        """Seconds that the step may take beside the download."""
        return self.timeout_seconds or 600
