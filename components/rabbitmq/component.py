"""RabbitMQ, seen from the controller."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from components.service import ServiceBackup, ServiceSettings


class RabbitMQManagement(BaseModel):
    """A login for the management API of nodes older than 3.8.2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str | None = Field(
        None, description="A user with the tag administrator.", examples=["backup"]
    )
    password_file: str | None = Field(
        None,
        description="A file on each host that only root may read; its first line is the password.",
        examples=["/etc/epibackup-rabbitmq.password"],
    )
    url: str | None = Field(
        None,
        description="Where the API is, as each host sees it. Default: as the node says.",
        examples=["https://localhost:15671"],
    )
    ca_file: str | None = Field(
        None,
        description="Certificates on each host to check the API's with. Default: the system's.",
        examples=["/etc/rabbitmq/ca.pem"],
    )

    @field_validator("password_file", "ca_file")
    @classmethod
    def _is_absolute(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            raise ValueError("must be an absolute path on the hosts")
        return path

    @field_validator("url")
    @classmethod
    def _has_no_login(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https://, and name a host")
        if parts.username or parts.password:
            raise ValueError("must hold no login: user and password_file are for that")
        return url

    @model_validator(mode="after")
    def _is_whole(self) -> "RabbitMQManagement":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")
        return self


class RabbitMQSettings(ServiceSettings):
    """What is saved besides definitions and configuration."""

    messages: bool = Field(
        False,
        description="Save the messages of durable queues, too. Each node is stopped for it, one "
        "at a time, for as long as it takes to stop, to copy what has changed in the last "
        "moments, and to start.",
        examples=[True],
    )
    stop_limit_seconds: int = Field(
        300,
        ge=10,
        le=3600,
        description="How long a node may be stopped for a copy of its messages. Then systemd "
        "starts it, whatever became of the backup, and the copy is given up.",
        examples=[120],
    )
    management: RabbitMQManagement = Field(
        default_factory=RabbitMQManagement,
        description="How to log in to the management API, which is used where rabbitmqctl cannot "
        "export definitions (before 3.8.2). The plugin is never enabled by a backup.",
        examples=[{"user": "backup", "password_file": "/etc/epibackup-rabbitmq.password"}],
    )


class RabbitMQ(ServiceBackup):
    """Definitions and configuration of every node; messages if they are asked for."""

    service = "rabbitmq"
    groups = ("rabbitmq",)
    title = "RabbitMQ"
    settings_model = RabbitMQSettings

    @classmethod
    def one_at_a_time(cls, settings: ServiceSettings) -> bool:
        """Nodes are stopped for their messages, and never two at once."""
        return isinstance(settings, RabbitMQSettings) and settings.messages

    @classmethod
    def restored_with(cls, parts: Sequence[str]) -> tuple[str, ...]:
        """All nodes go back to their data together; other parts can be named for one host."""
        return () if parts and "messages" not in parts else (cls.service,)
