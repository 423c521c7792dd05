"""Settings of the worker: `JOB_CONCURRENCY` is `settings.job.concurrency`, and so on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class JobSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    processes: int = Field(1, ge=1, le=256, description="Processes of a worker.")
    concurrency: int = Field(10, ge=1, le=1000, description="Jobs that run at the same time in each process.")
    queues: str = Field("", description="Queues to work on, comma-separated. Unset: all of them.")
    poll_seconds: float = Field(
        1.0, gt=0, le=10, description="Time between two looks for jobs where no notification arrives."
    )
    grace_seconds: float = Field(
        20.0, ge=0, le=86_400, description="Time from SIGTERM until running jobs are ended and queued again."
    )
    unknown_hours: float = Field(
        24.0, gt=0, le=8760, description="Time after which a job is given up that no worker has a task for."
    )
    status_folder: Path | None = Field(
        None, description="Where the worker keeps its liveness and readiness files; unset: it keeps none."
    )

    @property
    def queue_names(self) -> list[str]:
        return [name.strip() for name in self.queues.split(",") if name.strip()]
