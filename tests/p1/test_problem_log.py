"""Which problems are logged."""

from dsmr_rest.p1.problem_log import PROBLEMS_LOGGED, ProblemLog


def test_a_kind_of_problem_is_logged_once() -> None:
    """The first problem of a kind is to be logged, and no other of that kind."""
    problems = ProblemLog()
    assert problems.add('unread', '1-0:1.8.1')
    assert not problems.add('unread', '1-0:1.8.1')
    assert problems.add('unread', '1-0:1.8.2')


def test_a_line_that_garbles_everything_does_not_fill_the_log() -> None:
    """However many kinds of problem there are, PROBLEMS_LOGGED of them are to be logged."""
    problems = ProblemLog()
    logged = [problems.add('unread', str(number)) for number in range(2 * PROBLEMS_LOGGED)]
    assert logged == [True] * PROBLEMS_LOGGED + [False] * PROBLEMS_LOGGED
