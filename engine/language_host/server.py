"""The grpc service of the language host."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty

from engine.language_host.processes import STDOUT, Children, Command, exit_text
from engine.language_host.run_program import TOLD
from engine.language_host.toolchains import Options, Python, Toolchain
from engine.pins import EMBEDDED_CLI
from engine.protocol import language_pb2, plugin_pb2
from engine.serving import EngineLog, Refusal

_RUN_PROGRAM = Path(__file__).with_name("run_program.py")
_POLICY_PACK = "analyzer"
_OWN_CLI_ADVICE = "Pulumi's own CLI can"


class LanguageHost:
    """Answers the engine's calls of `LanguageRuntime`."""

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address
        self._log = EngineLog(engine_address)
        self._children = Children()
        self._is_cancelled = False

    async def handshake(
        self, request: language_pb2.LanguageHandshakeRequest
    ) -> language_pb2.LanguageHandshakeResponse:
        self._engine_address = request.engine_address
        self._log.connect(request.engine_address)
        return language_pb2.LanguageHandshakeResponse()

    async def get_plugin_info(self, _: Empty) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=EMBEDDED_CLI)

    async def about(self, request: language_pb2.AboutRequest) -> language_pb2.AboutResponse:
        executable, version = await self._toolchain(request.info).version()
        return language_pb2.AboutResponse(executable=str(executable), version=version)

    async def get_required_packages(
        self, request: language_pb2.GetRequiredPackagesRequest
    ) -> language_pb2.GetRequiredPackagesResponse:
        """Make the program's environment if there is none yet; name no plugins.

        Pulumi's own host names a plugin for every installed package that has one, used or not, and
        the CLI then downloads all of them before it starts. That must not happen where downloads
        are out of reach. Without it the CLI looks for a plugin when a program first uses it: on
        PATH (where `epibackup` puts the embedded `command` provider, if it is needed), then among
        the installed ones, and only then, unless that is switched off, it downloads it. So an
        official plugin is used wherever there is one, and nothing unused is ever fetched.
        """
        toolchain = self._toolchain(request.info)
        if not toolchain.is_installed():
            async for _, part in toolchain.install():
                await self._log.status(part.decode(errors="replace"))
        return language_pb2.GetRequiredPackagesResponse()

    async def get_program_dependencies(
        self, request: language_pb2.GetProgramDependenciesRequest
    ) -> language_pb2.GetProgramDependenciesResponse:
        packages = await self._toolchain(request.info).packages(
            transitive=request.transitiveDependencies
        )
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=name, version=version)
                for name, version in packages.items()
            ]
        )

    async def install_dependencies(
        self, request: language_pb2.InstallDependenciesRequest
    ) -> AsyncIterator[language_pb2.InstallDependenciesResponse]:
        answer = language_pb2.InstallDependenciesResponse
        options = Options.from_info(request.info)
        if request.is_plugin:
            options = options.of_plugin(is_installed=False)
        yield answer(stdout=b"Installing dependencies...\n\n")
        async for stream, part in Toolchain(options, self._children).install():
            yield answer(stdout=part) if stream == STDOUT else answer(stderr=part)
        yield answer(stdout=b"Finished installing dependencies\n\n")

    async def runtime_options_prompts(
        self, _: language_pb2.RuntimeOptionsRequest
    ) -> language_pb2.RuntimeOptionsResponse:
        return language_pb2.RuntimeOptionsResponse()

    async def run(self, request: language_pb2.RunRequest) -> language_pb2.RunResponse:
        """Run a program to its end."""
        if request.attach_debugger:
            reason = "the embedded language host cannot attach a debugger"
            return language_pb2.RunResponse(error=f"{reason}; {_OWN_CLI_ADVICE}")
        options = Options.from_info(request.info)
        python = await Toolchain(options, self._children).python()
        if options.type_checker:
            await self._check_types(options, python)
        code = await self._children.run(self._program(request, python))
        if self._is_cancelled or code == TOLD:
            return language_pb2.RunResponse(bail=True)
        if code > 0:
            return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {code}")
        if code < 0:
            return language_pb2.RunResponse(error=f"program exited unexpectedly: {exit_text(code)}")
        return language_pb2.RunResponse()

    async def run_plugin(
        self, request: language_pb2.RunPluginRequest
    ) -> AsyncIterator[language_pb2.RunPluginResponse]:
        """Run a policy pack, a component provider or another plugin to its end."""
        if request.attach_debugger:
            raise Refusal(f"the embedded language host cannot attach a debugger; {_OWN_CLI_ADVICE}")
        answer = language_pb2.RunPluginResponse
        options = Options.from_info(request.info).of_plugin(is_installed=True)
        python = await Toolchain(options, self._children).python()
        given = dict(item.split("=", 1) for item in request.env if "=" in item)
        environment = python.activated(given or os.environ)
        parts = (
            self._policy_pack(request, python, environment)
            if request.kind == _POLICY_PACK
            else self._children.stream(
                Command(_plugin_arguments(request, python), request.pwd or None, environment)
            )
        )
        async for part in parts:
            if isinstance(part, int):
                yield answer(exitcode=part if part >= 0 else 128 - part)
            else:
                stream, data = part
                yield answer(stdout=data) if stream == STDOUT else answer(stderr=data)

    async def _policy_pack(
        self, request: language_pb2.RunPluginRequest, python: Python, environment: dict[str, str]
    ) -> AsyncIterator[tuple[str, bytes] | int]:
        # Few runs have a policy pack; the others need not wait for this to be imported.
        from engine.language_host.policy_packs import PolicyPackProxy

        proxy = PolicyPackProxy()
        try:
            yield STDOUT, f"{await proxy.start()}\n".encode()
            environment = environment | await proxy.environment()
            folder = request.info.program_directory
            command = Command(
                [python.executable, "-u", "-m", "pulumi.policy", *request.args, folder],
                folder,
                environment,
            )
            port = b""
            async for part in self._children.stream(command):
                # The first line is the pack's port.
                if isinstance(part, tuple) and part[0] == STDOUT and not port.endswith(b"\n"):
                    first, end, rest = part[1].partition(b"\n")
                    port += first + end
                    if end:
                        await proxy.connect(int(port))
                    part = (STDOUT, rest)
                elif isinstance(part, int):
                    proxy.fail(f"the policy pack ended with {exit_text(part)}")
                yield part
        finally:
            await proxy.close()

    async def generate_package(
        self, _: language_pb2.GeneratePackageRequest
    ) -> language_pb2.GeneratePackageResponse:
        reason = "the embedded language host cannot generate SDKs"
        raise Refusal(f"{reason}; {_OWN_CLI_ADVICE}", grpc.StatusCode.UNIMPLEMENTED)

    async def cancel(self, _: Empty) -> Empty:
        """End what runs; the engine also calls this when all is done."""
        self._is_cancelled = True
        await self._children.interrupt()
        return Empty()

    async def close(self) -> None:
        """End everything: the CLI is gone or wants this process to go."""
        self._is_cancelled = True
        await self._children.interrupt()

    def _toolchain(self, info: language_pb2.ProgramInfo) -> Toolchain:
        return Toolchain(Options.from_info(info), self._children)

    def _program(self, request: language_pb2.RunRequest, python: Python) -> Command:
        settings = {
            "monitor": request.monitor_address,
            "engine": self._engine_address,
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "root_directory": request.info.root_directory,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "pwd": request.pwd,
        }
        environment = python.activated(os.environ)
        environment["PULUMI_CONFIG"] = json.dumps(dict(request.config))
        environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
        # Unbuffered, so that what a program prints is shown when it prints it.
        arguments: list[str | Path] = [python.executable, "-u", _RUN_PROGRAM, json.dumps(settings)]
        arguments += [request.info.entry_point or ".", *request.args]
        return Command(arguments, None, environment)

    async def _check_types(self, options: Options, python: Python) -> None:
        folder = options.program_folder
        arguments = [str(python.executable), "-m", options.type_checker]
        if options.type_checker == "mypy" and python.virtualenv:
            arguments += ["--exclude", os.path.relpath(python.virtualenv, folder)]
        environment = python.activated(os.environ)
        code = await self._children.run(Command([*arguments, str(folder)], folder, environment))
        if code:
            raise Refusal(f"{options.type_checker} failed: {exit_text(code)}")


def _plugin_arguments(request: language_pb2.RunPluginRequest, python: Python) -> list[str | Path]:
    """Return how to start a plugin: its `__main__.py`, or the package that its folder makes."""
    folder = Path(request.info.program_directory)
    if (folder / "__main__.py").exists():
        return [python.executable, "-u", folder, *request.args]
    import tomllib

    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(
            f"the plugin in {folder} has neither __main__.py nor a pyproject.toml with a project"
        ) from error
    return [python.executable, "-u", "-m", "pulumi.run.plugin", project, *request.args]
