"""Policy packs and component providers, run by the embedded language host."""

import json
from pathlib import Path

import pytest

from tests.engine.support.projects import Project

POLICY = """
import pulumi
from pulumi_policy import (EnforcementLevel, PolicyPack, ReportViolation,
                           ResourceValidationArgs, ResourceValidationPolicy)

def check(args: ResourceValidationArgs, report: ReportViolation) -> None:
    if "forbidden" in args.props.get("create", ""):
        report(f"no {pulumi.get_stack()} may be forbidden, says {pulumi.Config('p').get('who')}")

PolicyPack("house", policies=[ResourceValidationPolicy(
    name="no-forbidden", description="Nothing forbidden.", validate=check,
    enforcement_level=EnforcementLevel.MANDATORY)])
"""


@pytest.fixture
def policy_pack(tmp_path: Path, environment: Path) -> Path:
    """A policy pack with an environment of its own."""
    folder = tmp_path / "policy"
    folder.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": str(environment)}}
    (folder / "PulumiPolicy.yaml").write_text(json.dumps({"runtime": runtime, "version": "1"}))
    (folder / "__main__.py").write_text(POLICY)
    return folder


def test_a_policy_pack_passes_what_is_allowed_and_stops_what_is_not(
    project: Project, policy_pack: Path
) -> None:
    program = "from pulumi_command import local\nlocal.Command('c', create='echo {}')\n"
    project.write(program.format("allowed"))
    project.make_stack("test")
    project.cli("config", "set", "p:who", "the law", "--stack", "test")
    project.preview("--policy-pack", str(policy_pack)).succeeded()

    project.write(program.format("forbidden"))
    run = project.preview("--policy-pack", str(policy_pack)).failed()
    assert run.code == 1
    assert "no-forbidden" in run.text
    # The stack's name and configuration have reached the pack.
    assert "no test may be forbidden, says the law" in run.text


def test_a_policy_pack_that_is_broken_is_an_error_and_does_not_hang(
    project: Project, policy_pack: Path
) -> None:
    (policy_pack / "__main__.py").write_text("raise ValueError('broken pack')\n")
    project.write("import pulumi\n")
    text = project.preview("--policy-pack", str(policy_pack)).failed().text
    assert "broken pack" in text or "policy pack" in text


COMPONENT = """
from typing import Optional, TypedDict
import pulumi
from pulumi.provider.experimental import component_provider_host

class GreeterArgs(TypedDict):
    who: pulumi.Input[str]
    \"\"\"Whom to greet.\"\"\"

class Greeter(pulumi.ComponentResource):
    greeting: pulumi.Output[str]
    def __init__(self, name: str, args: GreeterArgs,
                 opts: Optional[pulumi.ResourceOptions] = None) -> None:
        super().__init__("greetings:index:Greeter", name, {}, opts)
        self.greeting = pulumi.Output.concat("hello ", args["who"])
        self.register_outputs({"greeting": self.greeting})

component_provider_host(components=[Greeter], name="greetings", version="1.0.0")
"""


def test_a_component_provider_tells_its_schema_and_makes_its_components(
    project: Project, tmp_path: Path, environment: Path
) -> None:
    folder = tmp_path / "greetings"
    folder.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": str(environment)}}
    (folder / "PulumiPlugin.yaml").write_text(json.dumps({"runtime": runtime}))
    (folder / "__main__.py").write_text(COMPONENT)
    project.write(
        "import pulumi\n"
        "class Greeter(pulumi.ComponentResource):\n"
        "    greeting: pulumi.Output[str]\n"
        "    def __init__(self):\n"
        "        super().__init__('greetings:index:Greeter', 'g',\n"
        "                         {'who': 'world', 'greeting': None}, remote=True)\n"
        "pulumi.export('greeting', Greeter().greeting)\n"
    )
    schema = json.loads(project.cli("package", "get-schema", str(folder)))
    component = schema["resources"]["greetings:index:Greeter"]
    assert component["isComponent"]
    assert component["inputProperties"]["who"]["description"] == "Whom to greet."

    settings = json.loads((project.folder / "Pulumi.yaml").read_text())
    settings["plugins"] = {"providers": [{"name": "greetings", "path": str(folder)}]}
    (project.folder / "Pulumi.yaml").write_text(json.dumps(settings))
    project.up().succeeded()
    assert project.exports()["greeting"] == "hello world"
