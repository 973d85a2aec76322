"""What is said on KIS's WebSocket beside the data: subscribe and unsubscribe, acknowledgements with their codes, and
the keep-alive PINGPONG.

Client and simulator share the table of codes. Texts marked as ours are not documented by KIS, only their codes are.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from pipeline.kis.columns import WireError

PING = "PINGPONG"
SUBSCRIBED, UNSUBSCRIBED, ALREADY, NOT_FOUND = "OPSP0000", "OPSP0001", "OPSP0002", "OPSP0003"
TOO_MANY, NO_APPROVAL = "OPSP0008", "OPSP0011"
BAD_TR_ID, BAD_TR_KEY, IN_USE, BAD_TR_TYPE, BAD_CUSTTYPE = "OPSP8991", "OPSP8993", "OPSP8996", "OPSP8997", "OPSP8998"
NO_JSON, NO_OBJECT, NO_FIELD = "OPSP9990", "OPSP9991", "OPSP9992"

# msg_cd -> (rt_cd, msg1). rt_cd 9 of OPSP8991 to 9999 is known of OPSP8996 only.
CODES: dict[str, tuple[str, str]] = {
    SUBSCRIBED: ("0", "SUBSCRIBE SUCCESS"),
    UNSUBSCRIBED: ("0", "UNSUBSCRIBE SUCCESS"),
    ALREADY: ("1", "ALREADY IN SUBSCRIBE"),
    NOT_FOUND: ("1", "UNSUBSCRIBE ERROR(not found!)"),
    TOO_MANY: ("1", "MAX SUBSCRIBE OVER"),
    NO_APPROVAL: ("1", "invalid approval : NOT FOUND"),
    BAD_TR_ID: ("9", "invalid tr_id"),  # text ours
    BAD_TR_KEY: ("9", "invalid tr_key"),  # text ours
    IN_USE: ("9", "ALREADY IN USE appkey"),
    BAD_TR_TYPE: ("9", "invalid tr_type"),  # text ours
    BAD_CUSTTYPE: ("9", "invalid custtype"),  # text ours
    NO_JSON: ("9", "JSON PARSING ERROR : not JSON"),  # text ours
    NO_OBJECT: ("9", "JSON PARSING ERROR : not an object"),  # text ours
    NO_FIELD: ("9", "JSON PARSING ERROR : field not found"),  # text ours
}


@dataclass(frozen=True)
class Control:
    """A control message of the server: a PINGPONG, or an acknowledgement with its code and the key and vector for
    encrypted frames."""

    tr_id: str
    tr_key: str = ""
    encrypted: bool = False
    rt_cd: str = ""
    code: str = ""
    text: str = ""
    iv: str = ""
    key: str = ""


@dataclass(frozen=True)
class Request:
    """What a client asks: subscribe or unsubscribe one TR of one symbol."""

    approval_key: str
    subscribe: bool
    tr_id: str
    tr_key: str


class Refusal(Exception):
    """A message of a client that cannot be taken; `code` is a key of CODES, the rest what could be read of it."""

    def __init__(self, code: str, tr_id: str = "", tr_key: str = "") -> None:
        super().__init__(code)
        self.code, self.tr_id, self.tr_key = code, tr_id, tr_key


def parse_request(text: str | bytes) -> Request | None:
    """Read a message of a client; None is the answer to a PINGPONG. Fields that are not needed are ignored. Raises
    Refusal."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise Refusal(NO_JSON) from None
    if not isinstance(message, dict):
        raise Refusal(NO_OBJECT)
    header, body = message.get("header"), message.get("body")
    if isinstance(header, dict) and header.get("tr_id") == PING:
        return None
    asked = body.get("input") if isinstance(body, dict) else None
    if not isinstance(header, dict) or not isinstance(asked, dict):
        raise Refusal(NO_FIELD)
    found = [asked.get("tr_id"), asked.get("tr_key"), header.get("tr_type"), header.get("approval_key", "")]
    if not all(isinstance(value, str) for value in found):
        raise Refusal(NO_FIELD)
    tr_id, tr_key, tr_type, approval_key = found
    if tr_type not in ("1", "2"):
        raise Refusal(BAD_TR_TYPE, tr_id, tr_key)
    if header.get("custtype", "P") not in ("P", "B"):
        raise Refusal(BAD_CUSTTYPE, tr_id, tr_key)
    return Request(approval_key, tr_type == "1", tr_id, tr_key)


def parse_control(text: str) -> Control:
    """Read a control message of the server. Raises WireError."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise WireError("control", "message", -1, text, "a JSON object") from None
    header = _object(message, "header", text)
    tr_id = _text(header, "tr_id", text)
    if tr_id == PING:
        return Control(PING)
    body = _object(message, "body", text)
    output = body.get("output") or {}
    if not isinstance(output, dict):
        raise WireError("control", "body.output", -1, text, "an object")
    words = [_text(body, name, text) for name in ("rt_cd", "msg_cd", "msg1")]
    keys = [_text(output, name, text, needed=False) for name in ("iv", "key")]
    tr_key = _text(header, "tr_key", text, needed=False)
    return Control(tr_id, tr_key, header.get("encrypt") == "Y", *words, *keys)


def _object(message: Any, name: str, text: str) -> dict[str, Any]:
    found = message.get(name) if isinstance(message, dict) else None
    if not isinstance(found, dict):
        raise WireError("control", name, -1, text, "an object")
    return found


def _text(found: dict[str, Any], name: str, text: str, *, needed: bool = True) -> str:
    value = found.get(name, None if needed else "")
    if not isinstance(value, str):
        raise WireError("control", name, -1, text, "a text")
    return value


def render_request(approval_key: str, tr_id: str, tr_key: str, *, subscribe: bool = True) -> str:
    """Write what a client sends to subscribe or unsubscribe."""
    header = {
        "approval_key": approval_key,
        "custtype": "P",
        "tr_type": "1" if subscribe else "2",
        "content-type": "utf-8",
    }
    return orjson.dumps({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}}).decode()


def render_ack(code: str, tr_id: str, tr_key: str, iv: str, key: str) -> str:
    """Write an acknowledgement. It always carries iv and key: clients in the wild read them from every one."""
    rt_cd, text = CODES[code]
    header = {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "N"}
    body = {"rt_cd": rt_cd, "msg_cd": code, "msg1": text, "output": {"iv": iv, "key": key}}
    return orjson.dumps({"header": header, "body": body}).decode()


def render_ping(now: datetime) -> str:
    """Write a PINGPONG; `now` is KST."""
    return orjson.dumps({"header": {"tr_id": PING, "datetime": f"{now:%Y%m%d%H%M%S}"}}).decode()
