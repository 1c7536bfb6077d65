"""Problems as people read them."""

from edgeproxy.config.problems import ConfigError, Problem, format_path


def test_problem_text_states_place_fault_and_remedy():
    problem = Problem("edge.yaml", 3, "drain", "'5' lacks a unit", "a time such as 5s")
    assert str(problem) == "edge.yaml:3: drain: '5' lacks a unit, a time such as 5s"


def test_a_problem_of_the_command_line_has_no_place():
    assert str(Problem("", 0, "--rate", "is wrong", "write 5/s")) == "--rate: is wrong, write 5/s"


def test_errors_have_a_line_for_each_problem():
    problems = [Problem("a", 1, "x", "is wrong", "right it"), Problem("b", 2, "y", "is missing", "write it")]
    errors = ConfigError(iter(problems))
    assert errors.problems == problems
    assert str(errors) == "a:1: x: is wrong, right it\nb:2: y: is missing, write it"


def test_a_path_is_dotted_and_odd_names_are_quoted():
    assert format_path(("tiers", "basic", "limits", 0)) == "tiers.basic.limits.0"
    assert format_path(("tiers", "a b\n", "limits")) == r"tiers.'a b\n'.limits"
    assert len(format_path(("x" * 1000 + ".",))) == 60
