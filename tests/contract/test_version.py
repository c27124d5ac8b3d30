"""One version: of the distribution, of the library, of the chart."""

import tomllib

import yaml

import openclaw
from support.markdown import REPOSITORY


def test_the_distribution_the_library_and_the_chart_have_one_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((REPOSITORY / "charts/openclaw/Chart.yaml").read_text())
    assert openclaw.__version__ == project["version"] == chart["appVersion"]
