"""Settings of the delivery service."""

import enum
from dataclasses import dataclass

from paquebot.mailstore import MailstoreLimits
from paquebot.notification import SuccessLimits
from paquebot.runtime.engine_settings import (
    DirectoryClientSettings,
    NatsSettings,
    PostgresSettings,
    ProcessSettings,
    S3Settings,
)
from paquebot.runtime.settings import ByteSize, Seconds, setting
from paquebot.spool import SpoolSettings

_LONGEST_PACE = 10.0


class OverQuotaPolicy(enum.Enum):
    """What happens to a message for an account that is over quota."""

    BOUNCE = "bounce"  # its sender is told at once
    DEFER = "defer"  # it is tried again until its lifetime ends, then its sender is told


@dataclass(frozen=True, slots=True)
class DeliveryLoadSettings:
    """How much at once."""

    workers: int = setting("DELIVERY_WORKERS", 2, help="batches under way at once in a process")
    jobs: int = setting("DELIVERY_JOBS", 64, help="most jobs of one batch")
    recipients: int = setting("DELIVERY_RECIPIENTS", 500, help="most deliveries of one transaction")
    pace: Seconds = setting(
        "DELIVERY_PACE", Seconds(0.05), help="under load, from one batch to the next, so that many messages share one"
    )
    tries: int = setting("DELIVERY_TRIES", 8, help="times a job fails before it is held as poison")

    def __post_init__(self) -> None:
        if min(self.workers, self.jobs, self.recipients, self.tries) < 1:
            raise ValueError("PAQUEBOT_DELIVERY_WORKERS, _JOBS, _RECIPIENTS and _TRIES must each be at least one")
        if self.pace > _LONGEST_PACE:
            raise ValueError(
                f"PAQUEBOT_DELIVERY_PACE: mail under load would wait {self.pace:g} s: {_LONGEST_PACE:g} s is the most"
            )


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """Accounts that are over quota."""

    over_quota: str = setting("DELIVERY_OVER_QUOTA", "bounce", help="bounce: tell the sender at once; or defer")
    lifetime: Seconds = setting("DELIVERY_LIFETIME", Seconds(5 * 86400.0), help="how long to defer")
    retry: Seconds = setting("DELIVERY_RETRY", Seconds(900.0), help="shortest wait of a deferred message")
    retry_most: Seconds = setting("DELIVERY_RETRY_MOST", Seconds(4 * 3600.0), help="longest wait")

    def __post_init__(self) -> None:
        if self.over_quota not in {policy.value for policy in OverQuotaPolicy}:
            raise ValueError(f"PAQUEBOT_DELIVERY_OVER_QUOTA: {self.over_quota!r} is neither bounce nor defer")

    @property
    def policy(self) -> OverQuotaPolicy:
        return OverQuotaPolicy(self.over_quota)


@dataclass(frozen=True, slots=True)
class DeliveryReportSettings:
    """Notifications to senders."""

    full_up_to: ByteSize = setting(
        "DELIVERY_REPORT_FULL", ByteSize(64 * 1024), help="largest message returned whole when the sender did not say"
    )


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    process: ProcessSettings
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    directory: DirectoryClientSettings
    spool: SpoolSettings
    load: DeliveryLoadSettings
    quota: QuotaSettings
    account: MailstoreLimits
    report: DeliveryReportSettings
    success: SuccessLimits
