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

_MAX_PACE = 10.0


class OverQuotaPolicy(enum.Enum):
    """What becomes of a message for an account that is over quota."""

    BOUNCE = "bounce"  # its sender is notified at once
    DEFER = "defer"  # it is tried again until its lifetime ends, then its sender is notified


@dataclass(frozen=True, slots=True)
class DeliveryLoadSettings:
    """How much at once."""

    workers: int = setting("DELIVERY_WORKERS", 2, help="maximum batches under way at once in a process")
    jobs: int = setting("DELIVERY_JOBS", 64, help="maximum jobs of one batch")
    recipients: int = setting("DELIVERY_RECIPIENTS", 500, help="maximum deliveries of one transaction")
    pace: Seconds = setting(
        "DELIVERY_PACE",
        Seconds(0.05),
        help="time from one batch to the next under load, so that messages share one",
    )
    tries: int = setting("DELIVERY_TRIES", 8, help="number of failures after which a job is held as poison")

    def __post_init__(self) -> None:
        if min(self.workers, self.jobs, self.recipients, self.tries) < 1:
            raise ValueError("PAQUEBOT_DELIVERY_WORKERS, _JOBS, _RECIPIENTS and _TRIES must each be at least 1")
        if self.pace > _MAX_PACE:
            raise ValueError(
                f"PAQUEBOT_DELIVERY_PACE: must be at most {_MAX_PACE:g} s, the time that mail waits under load"
            )


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """Accounts that are over quota."""

    over_quota: str = setting("DELIVERY_OVER_QUOTA", "bounce", help="bounce (notify the sender at once) or defer")
    lifetime: Seconds = setting("DELIVERY_LIFETIME", Seconds(5 * 86400.0), help="maximum time in which it is deferred")
    retry: Seconds = setting("DELIVERY_RETRY", Seconds(900.0), help="minimum wait of a deferred message")
    retry_max: Seconds = setting("DELIVERY_RETRY_MAX", Seconds(4 * 3600.0), help="maximum wait of a deferred message")

    def __post_init__(self) -> None:
        if self.over_quota not in {policy.value for policy in OverQuotaPolicy}:
            raise ValueError(f"PAQUEBOT_DELIVERY_OVER_QUOTA: {self.over_quota!r} must be bounce or defer")

    @property
    def policy(self) -> OverQuotaPolicy:
        return OverQuotaPolicy(self.over_quota)


@dataclass(frozen=True, slots=True)
class DeliveryReportSettings:
    """Notifications to senders."""

    full_up_to: ByteSize = setting(
        "DELIVERY_REPORT_FULL",
        ByteSize(64 * 1024),
        help="maximum size of a message returned whole if the sender did not say",
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
