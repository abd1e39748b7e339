"""What the program asks the retention process to do."""

from pydantic import BaseModel, ConfigDict

from components.retention.policy import Retention
from components.storage.options import TargetOptions


class RetentionRequest(BaseModel):
    """Everything the retention process needs; it holds no secret. It answers with Pruned.

    run: the run that prunes; nothing of later runs is touched.
    verified: of which archives it is known whether they were read back, by key.
    not_pruned: why nothing may be removed; empty if the run is good.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    cluster: str
    target: str
    target_options: TargetOptions
    policy: Retention
    verified: dict[str, bool]
    not_pruned: str
