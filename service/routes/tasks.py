"""What can be trained."""

from fastapi import APIRouter

from service.parameters import DatabaseOfApp
from service.problems import responses
from service.schemas import Page, TaskView
from service.store import workers

router = APIRouter(tags=["tasks"])


@router.get("/v1/tasks", summary="What can be trained", responses=responses(503))
def list_tasks(database: DatabaseOfApp) -> Page[TaskView]:
    """The tasks that workers have published, all on one page, each with the JSON schema of its arguments."""
    with database.read() as session:
        items = [TaskView.of(row) for row in workers.tasks(session)]
    return Page(items=sorted(items, key=lambda task: task.name), next_cursor=None)
