"""Every message as recorded bytes: a running supervisor may start the trainer of a newer checkout."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from typing import Any, get_args

import numpy as np
import pytest

from workers import frames, protocol
from workers.inspection import protocol as inspection

SITE = {"name": "encoder.0.self", "kind": "self", "heads": 2, "matrices": ["W_q"]}
# What is given (all else has its default), and the JSON that is sent.
FROM_TRAINER: list[tuple[dict[str, Any], str]] = [
    (
        {"type": "ready", "pid": 7, "torch": "2.7.0", "capability": "AVX2"},
        '{"type":"ready","pid":7,"torch":"2.7.0","capability":"AVX2"}',
    ),
    (
        {"type": "started", "device": "cpu", "parameters": 12, "sites": [SITE]},
        '{"type":"started","device":"cpu","parameters":12,"sites":[{"name":"encoder.0.self","kind":"self","heads":2,'
        '"matrices":["W_q"],"kv_heads":null}],"notices":[],"inputs":{},"data_digest":"","revision":null,'
        '"device_kind":""}',
    ),
    (
        {
            "type": "started",
            "device": "NVIDIA H100",
            "parameters": 12,
            "sites": [SITE | {"kv_heads": 1}],
            "notices": [
                {"kind": "unreached", "text": "1 parameter", "items": ["head.bias"]},
                {"kind": "k", "text": ""},
            ],
            "inputs": {"digits": "ab"},
            "data_digest": "cd",
            "revision": 3,
            "device_kind": "cuda",
        },
        '{"type":"started","device":"NVIDIA H100","parameters":12,"sites":[{"name":"encoder.0.self","kind":"self",'
        '"heads":2,"matrices":["W_q"],"kv_heads":1}],"notices":[{"kind":"unreached","text":"1 parameter","items":'
        '["head.bias"]},{"kind":"k","text":"","items":[]}],"inputs":{"digits":"ab"},"data_digest":"cd","revision":3,'
        '"device_kind":"cuda"}',
    ),
    (
        {"type": "schema", "group": "train", "names": ["loss/total", "lr"]},
        '{"type":"schema","group":"train","names":["loss/total","lr"]}',
    ),
    (
        {"type": "flush", "lo": 0, "hi": 5, "groups": [{"group": "train", "rows": 5, "size": 3}]},
        '{"type":"flush","lo":0,"hi":5,"groups":[{"group":"train","rows":5,"size":3}]}',
    ),
    ({"type": "log", "text": "step 1"}, '{"type":"log","level":"info","text":"step 1"}'),
    (
        {"type": "log", "level": "warning", "text": "é\x00"},
        '{"type":"log","level":"warning","text":"é\\u0000"}',
    ),
    (
        {"type": "artifact", "kind": "map", "name": "m", "path": "/s/m.png", "media_type": "image/png"},
        '{"type":"artifact","kind":"map","name":"m","path":"/s/m.png","media_type":"image/png","step":null,"meta":{}}',
    ),
    (
        {
            "type": "artifact",
            "kind": "prediction",
            "name": "m",
            "path": "/s/m.png",
            "media_type": "image/png",
            "step": 4,
            "meta": {"n": 1},
        },
        '{"type":"artifact","kind":"prediction","name":"m","path":"/s/m.png","media_type":"image/png","step":4,'
        '"meta":{"n":1}}',
    ),
    (
        {"type": "checkpoint", "step": 5, "path": "/s/c", "sha256": "ef", "size": 9},
        '{"type":"checkpoint","step":5,"path":"/s/c","sha256":"ef","size":9}',
    ),
    ({"type": "result", "step": 5}, '{"type":"result","step":5}'),
    ({"type": "stopped", "why": "cancel", "step": 3}, '{"type":"stopped","why":"cancel","step":3}'),
    (
        {"type": "failure", "reason": "nan", "message": "m"},
        '{"type":"failure","reason":"nan","message":"m","traceback":""}',
    ),
]
TO_TRAINER: list[tuple[dict[str, Any], str]] = [
    (
        {"type": "orders", "run": 1, "fence": 2, "spec": {"seed": 1}, "scratch": "/s"},
        '{"type":"orders","run":1,"fence":2,"spec":{"seed":1},"scratch":"/s","start_step":0,"checkpoint":null,'
        '"forked":false,"parent":null,"time_offset":0.0}',
    ),
    (
        {
            "type": "orders",
            "run": 1,
            "fence": 2,
            "spec": {"seed": 1},
            "scratch": "/s",
            "start_step": 10,
            "checkpoint": "/s/c",
            "forked": True,
            "parent": {"seed": 2},
            "time_offset": 1.5,
        },
        '{"type":"orders","run":1,"fence":2,"spec":{"seed":1},"scratch":"/s","start_step":10,"checkpoint":"/s/c",'
        '"forked":true,"parent":{"seed":2},"time_offset":1.5}',
    ),
    ({"type": "stop", "why": "preempt"}, '{"type":"stop","why":"preempt"}'),
]
INSPECTION: list[tuple[type[inspection.InspectionMessage], dict[str, Any], str]] = [
    (
        inspection.QuestionMessage,
        {
            "question": 1,
            "spec": {"seed": 1},
            "checkpoint": "/c",
            "sha256": "ab",
            "ask": {"sample": 0},
            "most_bytes": 10,
        },
        '{"question":1,"spec":{"seed":1},"checkpoint":"/c","sha256":"ab","ask":{"sample":0},"most_bytes":10}',
    ),
    (inspection.Warm, {}, '{"warm":true}'),
    (inspection.AnswerMessage, {"question": 1, "answer": "{}"}, '{"question":1,"answer":"{}","problem":""}'),
    (inspection.AnswerMessage, {"question": 1, "problem": "no"}, '{"question":1,"answer":"","problem":"no"}'),
]


def _class(union: Any, kind: str) -> type[protocol.Message]:
    """The message of a union (`Annotated[A | B, …]`) whose `type` is this."""
    members = get_args(get_args(union)[0])
    kinds: dict[str, type[protocol.Message]] = {each.model_fields["type"].default: each for each in members}
    return kinds[kind]


@pytest.mark.parametrize(("given", "text"), FROM_TRAINER)
def test_a_trainers_message_is_the_recorded_bytes(given: dict[str, Any], text: str) -> None:
    message, header = _class(protocol.FromTrainer, given["type"])(**given), text.encode()
    payload = b"abc" if given["type"] == "flush" else b""
    written = io.BytesIO()
    protocol.write_message(written, message, payload)
    assert written.getvalue() == struct.pack("<II", len(header), len(payload)) + header + payload
    assert protocol.read_message(io.BytesIO(written.getvalue())) == (message, payload)


@pytest.mark.parametrize(("given", "text"), TO_TRAINER)
def test_a_supervisors_message_is_the_recorded_bytes(given: dict[str, Any], text: str) -> None:
    message, written = _class(protocol.ToTrainer, given["type"])(**given), io.BytesIO()
    protocol.send(written, message)  # type: ignore[arg-type]  # one of the union
    assert written.getvalue() == text.encode() + b"\n"
    assert protocol.receive(written.getvalue()) == message


@pytest.mark.parametrize(("kind", "given", "text"), INSPECTION)
def test_a_message_about_a_question_is_the_recorded_bytes(
    kind: type[inspection.InspectionMessage], given: dict[str, Any], text: str
) -> None:
    assert kind(**given).bytes() == text.encode() + b"\n"
    assert kind.model_validate_json(text) == kind(**given)


def test_every_message_is_recorded() -> None:
    for union, recorded in ((protocol.FromTrainer, FROM_TRAINER), (protocol.ToTrainer, TO_TRAINER)):
        kinds = {each.model_fields["type"].default for each in get_args(get_args(union)[0])}
        assert kinds == {given["type"] for given, _ in recorded}
    assert {kind for kind, _, _ in INSPECTION} == set(inspection.InspectionMessage.__subclasses__())
    assert all(json.loads(text) for _, text in [*FROM_TRAINER, *TO_TRAINER])


def test_a_frame_is_the_recorded_bytes() -> None:
    values = np.array([[1, 2], [3, np.nan]], np.float32)
    data = frames.encode(frames.Frame(np.arange(2), np.array([0.5, 1.5]), values))
    assert len(data) == 616
    assert hashlib.sha256(data).hexdigest() == "88d26a79c9489abf7f018f1071eab923509e1c3716fcb3538a032a5d89c6797b"
