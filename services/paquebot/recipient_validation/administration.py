"""`Directory`: domains, accounts, aliases and app passwords, for administrators.

Refusals are raised as `DirectoryError`; the boundary gives them their gRPC status.
"""
# ruff: noqa: N802 - the methods' names are the contract's

import contextlib
import datetime
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message
from grpc.aio import ServicerContext

from paquebot.directory import accounts, aliases, app_passwords, domains
from paquebot.directory.accounts import Account, AccountChange
from paquebot.directory.aliases import Alias
from paquebot.directory.app_passwords import AppPassword
from paquebot.directory.domains import Domain, DomainChange
from paquebot.directory.errors import InvalidValue
from paquebot.directory.names import local_address
from paquebot.directory.passwords import BadPassword, check_strength, prepared
from paquebot.mailstore import Usage
from paquebot.observability.log import Log, shown
from paquebot.queue import Queue
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.pages import page_key, page_size, page_token
from paquebot.recipient_validation.recording import record
from paquebot.recipient_validation.validation import UsageOf
from paquebot.runtime.postgres.pool import Postgres
from paquebot.v1 import directory_pb2 as pb
from paquebot.v1.directory_pb2_grpc import DirectoryServicer

Context = ServicerContext[Any, Any]

_log = Log("paquebot.recipient_validation")
_NOTHING = Usage(total_size=0, messages=0)


class Administration(DirectoryServicer):
    """Publishes a hint after the commit of a change that may end sessions; `queue` may be away, the change is made."""

    def __init__(
        self,
        postgres: Postgres,
        hashing: Hashing,
        usage_of: UsageOf,
        queue: Queue,
        *,
        quota_bytes: int,
        min_password_length: int,
    ) -> None:
        """`quota_bytes`: the default for new accounts; 0: none."""
        self._postgres = postgres
        self._hashing = hashing
        self._usage_of = usage_of
        self._queue = queue
        self._quota_bytes = quota_bytes
        self._min_password_length = min_password_length

    # --- domains ------------------------------------------------------------------------------------------

    async def CreateDomain(self, request: pb.CreateDomainRequest, context: Context) -> pb.Domain:
        domain = await domains.create_domain(
            self._postgres,
            request.name,
            alias_of=request.alias_of,
            catch_all=request.catch_all,
            default_quota_bytes=request.default_quota_bytes,
        )
        _log.info("domain_created", domain=domain.name)
        return _domain(domain)

    async def GetDomain(self, request: pb.GetDomainRequest, context: Context) -> pb.Domain:
        return _domain(await domains.get_domain(self._postgres, request.name))

    async def ListDomains(self, request: pb.ListDomainsRequest, context: Context) -> pb.ListDomainsResponse:
        (after,) = page_key(request.page_token, 1)
        size = page_size(request.page_size)
        page = await domains.list_domains(self._postgres, after=after, limit=size)
        token = page_token(page[-1].name) if len(page) == size else ""
        return pb.ListDomainsResponse(domains=map(_domain, page), next_page_token=token)

    async def UpdateDomain(self, request: pb.UpdateDomainRequest, context: Context) -> pb.Domain:
        change = DomainChange(
            alias_of=request.alias_of if request.HasField("alias_of") else None,
            catch_all=request.catch_all if request.HasField("catch_all") else None,
            enabled=request.enabled if request.HasField("enabled") else None,
            default_quota_bytes=request.default_quota_bytes if request.HasField("default_quota_bytes") else None,
        )
        domain = await domains.update_domain(self._postgres, request.name, change)
        if request.HasField("enabled"):
            await self._queue.hint_directory(None, "domain")
        _log.info("domain_updated", domain=domain.name, fields=_fields(request))
        return _domain(domain)

    async def DeleteDomain(self, request: pb.DeleteDomainRequest, context: Context) -> pb.DeleteDomainResponse:
        await domains.delete_domain(self._postgres, request.name)
        _log.info("domain_deleted", domain=request.name)
        return pb.DeleteDomainResponse()

    # --- sessions -----------------------------------------------------------------------------------------

    async def RecordSessions(
        self, request: pb.RecordSessionsRequest, context: Context
    ) -> AsyncIterator[pb.TranscriptLine]:
        account = await accounts.get_account(self._postgres, request.address)
        async with contextlib.aclosing(record(self._queue, account.account_id, request.seconds)) as lines:
            async for line in lines:
                yield line

    # --- accounts -----------------------------------------------------------------------------------------

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Context) -> pb.Account:
        # Before the password is checked: a caller that only ensures that the account exists needs no valid password.
        await accounts.check_free(self._postgres, request.address)
        account = await accounts.create_account(
            self._postgres,
            request.address,
            await self._hash(request.password, request.address),
            name=request.display_name,
            quota_bytes=request.quota_bytes if request.HasField("quota_bytes") else None,
            default_quota_bytes=self._quota_bytes,
        )
        _log.info("account_created", account_id=account.account_id, address=shown(str(account.address)))
        return _account(account, _NOTHING)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.Account:
        return await self._with_usage(await accounts.get_account(self._postgres, request.address))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Context) -> pb.ListAccountsResponse:
        domain, local = page_key(request.page_token, 2)
        size = page_size(request.page_size)
        page = await accounts.list_accounts(self._postgres, request.domain, after=(domain, local), limit=size)
        usage = await self._usage_of([account.account_id for account in page])
        return pb.ListAccountsResponse(
            accounts=[_account(account, usage.get(account.account_id, _NOTHING)) for account in page],
            next_page_token=(page_token(page[-1].address.domain, page[-1].address.local) if len(page) == size else ""),
        )

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Context) -> pb.Account:
        change = AccountChange(
            password_hash=await self._hash(request.password, request.address) if request.HasField("password") else None,
            display_name=request.display_name if request.HasField("display_name") else None,
            enabled=request.enabled if request.HasField("enabled") else None,
            quota_bytes=request.quota_bytes if request.HasField("quota_bytes") else None,
        )
        account = await accounts.update_account(self._postgres, request.address, change)
        for field in ("password", "enabled"):
            if request.HasField(field):
                await self._queue.hint_directory((account.account_id,), field)
        _log.info("account_updated", account_id=account.account_id, fields=_fields(request))
        return await self._with_usage(account)

    async def DeleteAccount(self, request: pb.DeleteAccountRequest, context: Context) -> pb.DeleteAccountResponse:
        account_id = await accounts.delete_account(self._postgres, request.address)
        await self._queue.hint_directory((account_id,), "removed")
        _log.info("account_deleted", account_id=account_id)
        return pb.DeleteAccountResponse(account_id=account_id)

    # --- aliases ------------------------------------------------------------------------------------------

    async def CreateAlias(self, request: pb.CreateAliasRequest, context: Context) -> pb.Alias:
        alias = await aliases.create_alias(self._postgres, request.address, list(request.targets))
        _log.info("alias_created", address=shown(str(alias.address)), targets=len(alias.targets))
        return _alias(alias)

    async def GetAlias(self, request: pb.GetAliasRequest, context: Context) -> pb.Alias:
        return _alias(await aliases.get_alias(self._postgres, request.address))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        domain, local = page_key(request.page_token, 2)
        size = page_size(request.page_size)
        page = await aliases.list_aliases(self._postgres, request.domain, after=(domain, local), limit=size)
        return pb.ListAliasesResponse(
            aliases=map(_alias, page),
            next_page_token=(page_token(page[-1].address.domain, page[-1].address.local) if len(page) == size else ""),
        )

    async def UpdateAlias(self, request: pb.UpdateAliasRequest, context: Context) -> pb.Alias:
        alias = await aliases.update_alias(
            self._postgres,
            request.address,
            targets=list(request.targets) or None,
            enabled=request.enabled if request.HasField("enabled") else None,
        )
        _log.info("alias_updated", address=shown(str(alias.address)), fields=_fields(request))
        return _alias(alias)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        await aliases.delete_alias(self._postgres, request.address)
        _log.info("alias_deleted", address=shown(request.address))
        return pb.DeleteAliasResponse()

    # --- app passwords ------------------------------------------------------------------------------------

    async def CreateAppPassword(
        self, request: pb.CreateAppPasswordRequest, context: Context
    ) -> pb.CreateAppPasswordResponse:
        made, password = await app_passwords.create_app_password(self._postgres, request.address, request.name)
        _log.info("app_password_created", app_password_id=made.app_password_id)
        return pb.CreateAppPasswordResponse(app_password=_app_password(made), password=password)

    async def ListAppPasswords(
        self, request: pb.ListAppPasswordsRequest, context: Context
    ) -> pb.ListAppPasswordsResponse:
        found = await app_passwords.list_app_passwords(self._postgres, request.address)
        return pb.ListAppPasswordsResponse(app_passwords=map(_app_password, found))

    async def DeleteAppPassword(
        self, request: pb.DeleteAppPasswordRequest, context: Context
    ) -> pb.DeleteAppPasswordResponse:
        if not request.app_password_id.isdecimal() or len(request.app_password_id) > 18:
            raise InvalidValue(f"{request.app_password_id[:40]!r} is not the id of an app password")
        app_password_id = int(request.app_password_id)
        account_id = await app_passwords.delete_app_password(self._postgres, request.address, app_password_id)
        await self._queue.hint_directory((account_id,), "app_password")
        _log.info("app_password_deleted", app_password_id=app_password_id)
        return pb.DeleteAppPasswordResponse()

    async def _hash(self, password: str, address: str) -> str:
        """Raises InvalidValue: a bad address, or a password that is too weak for it."""
        at = local_address(address)
        try:
            new = prepared(password)
            check_strength(new, at, self._min_password_length)
        except BadPassword as error:
            raise InvalidValue(str(error)) from None
        return await self._hashing.hash(new)

    async def _with_usage(self, account: Account) -> pb.Account:
        usage = await self._usage_of([account.account_id])
        return _account(account, usage.get(account.account_id, _NOTHING))


def _fields(request: Message) -> list[str]:
    """The names of the changed fields, for the log; never their values."""
    return [field.name for field, _ in request.ListFields() if field.name not in ("name", "address")]


def _ms(at: datetime.datetime) -> int:
    return round(at.timestamp() * 1000)


def _domain(domain: Domain) -> pb.Domain:
    return pb.Domain(
        name=domain.name,
        alias_of=domain.alias_of,
        catch_all=domain.catch_all,
        enabled=domain.enabled,
        default_quota_bytes=domain.default_quota_bytes,
        created_at_ms=_ms(domain.created_at),
        accounts=domain.accounts,
        aliases=domain.aliases,
    )


def _account(account: Account, usage: Usage) -> pb.Account:
    return pb.Account(
        account_id=account.account_id,
        address=str(account.address),
        display_name=account.display_name,
        enabled=account.enabled,
        quota_bytes=account.quota_bytes,
        used_bytes=usage.total_size,
        used_messages=usage.messages,
        created_at_ms=_ms(account.created_at),
    )


def _alias(alias: Alias) -> pb.Alias:
    return pb.Alias(
        address=str(alias.address),
        targets=alias.targets,
        enabled=alias.enabled,
        created_at_ms=_ms(alias.created_at),
    )


def _app_password(entry: AppPassword) -> pb.AppPassword:
    used = entry.last_used_on
    midnight = datetime.datetime.combine(used, datetime.time(), datetime.UTC) if used else None
    return pb.AppPassword(
        app_password_id=str(entry.app_password_id),
        name=entry.name,
        created_at_ms=_ms(entry.created_at),
        last_used_at_ms=_ms(midnight) if midnight else 0,
    )
