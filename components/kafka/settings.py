"""How a restore talks to the brokers."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class KafkaSettings(BaseModel):
    """How brokers are logged in to. Secrets are in files of the controller, never in here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As in Kafka's clients.", examples=["SSL"]
    )
    ca_file: str | None = Field(
        None,
        description="Certificates of authorities that brokers are checked against, PEM. Default: "
        "those of the system.",
        examples=["/etc/epibackup/kafka-ca.pem"],
    )
    check_hostname: bool = Field(
        True,
        description="Whether a broker's certificate has to have the name it is reached by.",
        examples=[False],
    )
    certificate_file: str | None = Field(
        None, description="The client's certificate, PEM.", examples=["/etc/epibackup/kafka.pem"]
    )
    key_file: str | None = Field(
        None,
        description="The client's private key, PEM, not encrypted, mode 0600.",
        examples=["/etc/epibackup/kafka.key"],
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How to log in with SASL.", examples=["SCRAM-SHA-512"]
    )
    username: str | None = Field(None, description="The user of SASL.", examples=["epibackup"])
    password_file: str | None = Field(
        None,
        description="File of the controller with the user's password, mode 0600.",
        examples=["/etc/epibackup/kafka-password"],
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        login = (self.sasl_mechanism, self.username, self.password_file)
        if self.security_protocol.startswith("SASL_") and not all(login):
            raise ValueError("SASL needs sasl_mechanism, username and password_file")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")
        return self
