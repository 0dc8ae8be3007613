"""What is done about a head that is still starting; the rest of jobs.py is tested against a real one."""

from __future__ import annotations

import pytest

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.ray.dashboard import Dashboard, _once_the_head_is_ready

NOT_YET = "Request failed with status code 500: No available agent to submit job, please try again later.."


@pytest.fixture(autouse=True)
def waited(monkeypatch) -> list[float]:
    """The pauses, which are not made."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses


class Head:
    """Refuses ``answers`` in turn, then accepts."""

    def __init__(self, *answers: str):
        self.answers = list(answers)
        self.submitted = 0

    def submit(self) -> None:
        if self.answers:
            raise RuntimeError(self.answers.pop(0))
        self.submitted += 1


def test_a_head_whose_agent_is_still_starting_is_asked_again(waited):
    head = Head(NOT_YET, NOT_YET)
    _once_the_head_is_ready(head.submit)
    assert head.submitted == 1
    assert len(waited) == 2


def test_a_refusal_of_another_kind_is_told_at_once(waited):
    head = Head("Request failed with status code 400: no")
    with pytest.raises(RuntimeError, match="code 400"):
        _once_the_head_is_ready(head.submit)
    assert (head.submitted, waited) == (0, [])


def test_a_head_that_never_gets_an_agent_is_given_up(waited):
    head = Head(*[NOT_YET] * 1000)
    with pytest.raises(RuntimeError, match="No available agent"):
        _once_the_head_is_ready(head.submit)
    assert 0 < len(waited) < 100


@pytest.mark.ray
def test_an_agent_that_stays_away_is_named_with_its_port():
    dashboard = Dashboard.__new__(Dashboard)  # without connecting
    dashboard.url = "http://127.0.0.1:8265"
    expected = r"the job agent of its head does not.*52365.*--dashboard-agent-listen-port"
    with pytest.raises(ClusterError, match=expected), dashboard._translated():
        raise RuntimeError(NOT_YET)
