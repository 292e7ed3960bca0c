"""`RecipientValidation`: a verdict on each forward-path, and whether an account may use a reverse-path."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import grpc
from grpc.aio import ServicerContext

from paquebot.directory.resolution import LocalTarget, Lookup, RemoteTarget, Resolution, ResolutionRefusal, resolve
from paquebot.mailstore import Usage
from paquebot.observability.log import Log, shown
from paquebot.observability.metrics import counter
from paquebot.v1 import recipient_validation_pb2 as pb
from paquebot.v1.mail_pb2 import LocalRecipient, RemoteRecipient
from paquebot.v1.recipient_validation_pb2_grpc import RecipientValidationServicer

MAX_FORWARD_PATHS = 1000

_VERDICT_NAMES = {value: name.removeprefix("VERDICT_").lower() for name, value in pb.Verdict.items()}
VALIDATIONS = counter(
    "paquebot_recipient_validation_verdicts_total",
    "Validated forward-paths, by verdict",
    {"verdict": tuple(_VERDICT_NAMES.values())},
)
_COUNT = {value: VALIDATIONS.labels(name) for value, name in _VERDICT_NAMES.items()}

UsageOf = Callable[[Sequence[int]], Awaitable[Mapping[int, Usage]]]
"""The usage of accounts, by account id; an account without mail may be absent, and others may be included."""
_NOTHING = Usage(total_size=0, messages=0)

_VERDICTS = {
    ResolutionRefusal.BAD_ADDRESS: pb.VERDICT_BAD_ADDRESS,
    ResolutionRefusal.RELAY_DENIED: pb.VERDICT_RELAY_DENIED,
    ResolutionRefusal.DOMAIN_DISABLED: pb.VERDICT_DOMAIN_DISABLED,
    ResolutionRefusal.NO_SUCH_ACCOUNT: pb.VERDICT_NO_SUCH_ACCOUNT,
    ResolutionRefusal.DISABLED: pb.VERDICT_DISABLED,
    ResolutionRefusal.ALIAS_LOOP: pb.VERDICT_ALIAS_LOOP,
}
_log = Log("paquebot.recipient_validation")


class Validation(RecipientValidationServicer):
    """Ignores the reverse-path: every one, also the null one (RFC 5321 §4.5.5), may send to all recipients."""

    def __init__(
        self,
        lookup: Lookup,
        own_literals: Sequence[str],
        usage_of: UsageOf,
        max_messages: int,
        *,
        other_literals: bool = False,
    ) -> None:
        """`max_messages`: of an account."""
        self._lookup = lookup
        self._own_literals = frozenset(own_literals)
        self._other_literals = other_literals
        self._usage_of = usage_of
        self._max_messages = max_messages

    async def Validate(  # noqa: N802 - the contract's name
        self, request: pb.ValidateRequest, context: ServicerContext[pb.ValidateRequest, pb.ValidateResponse]
    ) -> pb.ValidateResponse:
        if len(request.forward_paths) > MAX_FORWARD_PATHS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"at most {MAX_FORWARD_PATHS} forward-paths")
        resolutions = await self._resolve(request.forward_paths, may_relay=request.may_relay)
        full = await self._full(resolutions, request.size)
        results = [
            _validation(path, resolution, full, request.size)
            for path, resolution in zip(request.forward_paths, resolutions, strict=True)
        ]
        for result in results:
            _COUNT[result.verdict].inc()
        return pb.ValidateResponse(results=results)

    async def AuthorizeSender(  # noqa: N802 - the contract's name
        self,
        request: pb.AuthorizeSenderRequest,
        context: ServicerContext[pb.AuthorizeSenderRequest, pb.AuthorizeSenderResponse],
    ) -> pb.AuthorizeSenderResponse:
        """The account's own address, with any detail; an alias that leads to this account alone; both also at
        alias domains; and the null reverse-path, with which clients send their notifications (RFC 8098 §3)."""
        if not request.address:
            return pb.AuthorizeSenderResponse(allowed=True)
        (resolution,) = await self._resolve([request.address], may_relay=False)
        alone = not resolution.remote and not resolution.dropped and resolution.by_name
        owners = [target.account_id for target in resolution.local]
        return pb.AuthorizeSenderResponse(allowed=alone and owners == [request.account_id])

    async def _resolve(self, forward_paths: Sequence[str], *, may_relay: bool) -> list[Resolution]:
        return await resolve(
            forward_paths,
            self._lookup,
            may_relay=may_relay,
            own_literals=self._own_literals,
            other_literals=self._other_literals,
        )

    async def _full(self, resolutions: Sequence[Resolution], size: int) -> frozenset[int]:
        """Accounts whose quota has no room for `size` more bytes; 0: unknown, one byte is enough."""
        quotas = {
            target.account_id: target.quota_bytes
            for resolution in resolutions
            for target in resolution.local
            if target.quota_bytes
        }
        if not quotas:
            return frozenset()
        usage = await self._usage_of(list(quotas))  # perhaps with accounts of other callers

        def full(account_id: int, quota: int) -> bool:
            stored = usage.get(account_id, _NOTHING)
            return stored.total_size + max(size, 1) > quota or stored.messages >= self._max_messages

        return frozenset(account_id for account_id, quota in quotas.items() if full(account_id, quota))


def _validation(path: str, resolution: Resolution, full: frozenset[int], size: int) -> pb.Validation:
    if resolution.refusal:
        return pb.Validation(verdict=_VERDICTS[resolution.refusal])
    if resolution.dropped:
        _log.warning("alias_targets_dropped", address=shown(path), dropped=resolution.dropped)
    # When other recipients have room, delivery decides about the full ones: it defers or sends a DSN.
    if not resolution.remote and all(target.account_id in full for target in resolution.local):
        never = all(0 < target.quota_bytes < size for target in resolution.local)
        return pb.Validation(verdict=pb.VERDICT_TOO_LARGE if never else pb.VERDICT_OVER_QUOTA)
    return pb.Validation(
        verdict=pb.VERDICT_ACCEPT,
        local=[_local(path, target) for target in resolution.local],
        remote=[_remote(path, target) for target in resolution.remote],
    )


def _local(path: str, target: LocalTarget) -> LocalRecipient:
    return LocalRecipient(
        account_id=target.account_id,
        address=str(target.address),
        forward_path=path,
        detail=target.detail,
        quota_bytes=target.quota_bytes,
    )


def _remote(path: str, target: RemoteTarget) -> RemoteRecipient:
    return RemoteRecipient(
        forward_path=str(target.address),
        domain=target.address.domain,
        original=path if target.aliased else "",
    )
