"""A vendor that answers 200 whatever happened, and says in the body what did: `{"code": "BUSY", "message": "…"}`.

The route says which codes mean what:

    policy_config: { success: ["OK"], retryable: [BUSY, QUOTA] }

Everything is decided from the arguments. What the module keeps is only its configuration, which `configure` sets once,
before any question.
"""

import json
from typing import Optional

import wit_world
from componentize_py_types import Err
from wit_world import attribute, log
from wit_world.imports.types import (
    Admission,
    Admission_Accept,
    Attempt,
    Decision,
    Fallback,
    Fault,
    Hooks,
    Interest,
    Level,
    Manifest,
    Message,
    Outcome,
    Outcome_Silence,
    Retry,
    Scope,
    Settlement,
    Verdict_Accept,
    Verdict_DeadLetter,
    Verdict_Retry,
)

CONFIG_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["retryable"],
    "properties": {
        "success": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Codes of an answer that is one. Default: OK.",
        },
        "retryable": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Codes of a failure that passes.",
        },
    },
}

# Faults after which the vendor has certainly done nothing.
UNTOUCHED = {Fault.RESOLVE, Fault.CONNECT, Fault.TLS, Fault.CREDENTIALS}

success: frozenset[str] = frozenset()
retryable: frozenset[str] = frozenset()


class WitWorld(wit_world.WitWorld):
    def describe(self) -> Manifest:
        # The host answers the questions that are not among the hooks itself.
        return Manifest("vendor-busy-py", "1.0.0", json.dumps(CONFIG_SCHEMA), Hooks.JUDGE)

    def configure(self, config: str) -> Interest:
        global success, retryable
        settings = json.loads(config)
        success = frozenset(settings.get("success", ["OK"]))
        retryable = frozenset(settings["retryable"])
        if both := sorted(success & retryable):
            # The operator reads this, and the configuration is refused.
            raise Err(f"{both[0]} is both a success and retryable")
        return Interest(headers=["x-quota-reset"], body_limit=4096, request_limit=0)

    def judge(self, attempt: Attempt, outcome: Outcome) -> Decision:
        if isinstance(outcome, Outcome_Silence):
            return silence(outcome.value)
        response = outcome.value
        if response.status >= 500:
            return retry(f"status {response.status}")
        if response.status != 200:
            return Decision(Verdict_DeadLetter(), f"status {response.status}")

        code = code_of(response.body or b"")
        if code is None:
            return retry("an answer that is not the vendor's JSON")
        if code in success:
            return Decision(Verdict_Accept(), code)
        if code not in retryable:
            return Decision(Verdict_DeadLetter(), code)
        reset = fields(response.headers).get("x-quota-reset", "")
        if not (reset.isascii() and reset.isdigit() and len(reset) <= 5):
            return retry(code)
        log(Level.INFO, f"{code}: the vendor's quota is reset in {reset} s")
        return retry(code, after=int(reset) * 1000)

    # The world has these questions too, so a policy must export them; `describe` says that they are not asked.

    def admit(self, message: Message) -> Admission:
        return Admission_Accept()

    def fall_back(self, attempt: Attempt, last: Outcome) -> Optional[Fallback]:
        return None

    def settle(self, outcome: Outcome) -> Settlement:
        return Settlement.UNKNOWN


def fields(lines: Optional[str]) -> dict[str, str]:
    """The header fields asked for, which come one a line: `name: value`."""
    return dict(line.split(": ", 1) for line in (lines or "").split("\n") if line)


def silence(fault: Fault) -> Decision:
    """No answer. Where the vendor may have done the work, only a person can say whether it may be done again: this
    vendor does not look at idempotency keys."""
    name = fault.name.lower()
    if fault in UNTOUCHED or attribute("method") == "GET":
        return retry(name)
    return Decision(Verdict_DeadLetter(), f"{name}: the vendor may have done it")


def retry(reason: str, after: Optional[int] = None) -> Decision:
    return Decision(Verdict_Retry(Retry(after, Scope.STANDARD)), reason)


def code_of(body: bytes) -> Optional[str]:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, str) else None
