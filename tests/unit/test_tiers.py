"""Whom to ask for the tier of a model, what answers say, and what is told of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_operator.api.v1alpha1 import InferenceServiceStatus
from openclaw_operator.names import Key, Manifest
from openclaw_operator.tiers import TIERS, address, counted, hint, incarnation, question, said, told

SERVICE = Key("vision", "digits")


def pod(ip: str = "10.0.0.7", *, restarts: int = 0, **status: Any) -> Manifest:
    servers = [{"name": "sidecar", "restartCount": 9}, {"name": "server", "restartCount": restarts}]
    return {
        "metadata": {"name": "p", "uid": "u"},
        "status": {"podIP": ip, "containerStatuses": servers, **status},
    }


def answer(*entries: Any) -> bytes:
    return json.dumps({"model_stats": entries}).encode()


def test_a_pod_is_asked_at_its_own_address_and_the_port_that_it_was_rendered_with() -> None:
    asked = question(pod(restarts=2), service=SERVICE, model="digits")
    assert asked is not None
    assert (asked.host, asked.port, asked.model, asked.service) == ("10.0.0.7", 8080, "digits", SERVICE)
    assert asked.asked == ("u", 2)
    assert address(pod("fd00::7")) == ("fd00::7", 8080)


def test_in_local_mode_a_pod_has_a_port_of_its_own() -> None:
    assert address(pod("127.0.0.1", local={"pid": 7, "port": 4711})) == ("127.0.0.1", 4711)
    assert address(pod("127.0.0.1", local={"pid": 0, "port": 0})) is None


@pytest.mark.parametrize(
    "ip",
    [
        "", "0.0.0.0", "127.0.0.1", "169.254.169.254", "224.0.0.1", "::", "::1", "fe80::1%eth0", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "metadata.internal", "10.0.0.7:80", "10.0.0.7/admin", "2130706433x",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_pod_is_not_asked(ip: str) -> None:
    assert address(pod(ip)) is None
    assert question(pod(ip), service=SERVICE, model="digits") is None
    assert said(pod(ip), {incarnation(pod(ip)): "packed"}) == ""


def test_a_pod_without_a_status_is_not_asked() -> None:
    assert address({"metadata": {"name": "p"}}) is None


def test_a_server_that_was_restarted_has_said_nothing_yet() -> None:
    known = {incarnation(pod()): "packed"}
    assert said(pod(), known) == "packed"
    assert said(pod(restarts=1), known) is None


@pytest.mark.parametrize("tier", TIERS)
def test_the_tier_stands_in_the_statistics(tier: str) -> None:
    assert told(answer({"name": "digits", "tier": tier, "inference_count": 3})) == tier


@given(
    st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_any_bytes_are_an_answer_that_names_no_tier(body: bytes) -> None:
    assert told(body) == ""


@pytest.mark.parametrize(
    "document",
    [
        answer(), answer({}), answer({"tier": "lost"}), answer({"tier": ["packed"]}), answer({"tier": None}),
        answer("packed"), answer([{"tier": "packed"}]), b"[" * 100_000, b'{"model_stats": {"tier": "packed"}}',
    ],
)  # fmt: skip
def test_an_answer_that_is_no_statistics_with_a_tier_names_none(document: bytes) -> None:
    assert told(document) == ""


answers = st.lists(st.sampled_from([*TIERS, ""]), max_size=8)
entries = st.lists(
    st.builds(lambda tier, pods: {"tier": tier, "pods": pods}, st.sampled_from(TIERS), st.integers(1, 9)),
    max_size=3,
    unique_by=lambda entry: entry["tier"],
)


@given(answers, entries)
def test_every_pod_that_named_a_tier_counts_once_whatever_their_order(every: list[str], before: list[Manifest]) -> None:
    shown = counted(every, before)
    named = [tier for tier in every if tier]
    assert sum(entry["pods"] for entry in shown) == len(named)
    assert {entry["tier"] for entry in shown} == set(named)
    assert shown == counted(reversed(every), before) == counted(every, shown)
    assert [entry["tier"] for entry in shown] == sorted({*named}, key=TIERS.index)
    InferenceServiceStatus.model_validate({"conditions": [], "model": {"tiers": shown}})


@given(answers, entries, st.integers(0, 8))
def test_while_one_is_yet_to_be_asked_what_was_told_stays(every: list[str], before: list[Manifest], place: int) -> None:
    assert counted([*every[:place], None, *every[place:]], before) == before


@given(entries)
def test_a_hint_is_given_where_a_model_is_mapped_and_only_there(shown: list[Manifest]) -> None:
    mapped = [entry["pods"] for entry in shown if entry["tier"] == "mapped"]
    assert bool(hint(shown)) == bool(mapped)
    if mapped:
        every = sum(entry["pods"] for entry in shown)
        assert f"in {mapped[0]} of {every} pod{'' if every == 1 else 's'} " in hint(shown)
        assert "raise resources.limits.memory" in hint(shown)
