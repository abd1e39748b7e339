"""Runs a Pulumi program; the language host starts this file with the program's own interpreter.

Usage: python run_program.py SETTINGS PROGRAM [ARGUMENT...]

SETTINGS is a JSON object with the arguments of `pulumi.runtime.Settings` and the working directory
`pwd`. The configuration comes in the environment, as from Pulumi's own language host. Nothing but
the standard library and `pulumi`, in whatever version the program uses, may be imported here.
"""

import asyncio
import inspect
import json
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# The language host adds nothing when it sees this code: the person has been told already.
TOLD = 32
INTERRUPTED = 130


def main() -> int:
    """Run the program and return the exit code."""
    settings = json.loads(sys.argv[1])
    program = sys.argv[2]
    del sys.argv[:2]
    if sys.path and Path(sys.path[0]) == Path(__file__).parent:
        del sys.path[0]
    os.chdir(settings.pop("pwd"))
    try:
        import pulumi
        import pulumi.runtime
    except ImportError:
        traceback.print_exc()
        sys.stderr.write(
            f"The Pulumi SDK cannot be imported by {sys.executable}. Install the program's "
            "dependencies into that environment, or name the right one by the runtime option "
            "`virtualenv` in Pulumi.yaml.\n"
        )
        return 1

    _configure(settings)
    main_file = _main_file(program)
    if not main_file.exists():
        pulumi.log.error(f"there is no program {main_file}")
        return TOLD
    # A program that ends early leaves futures that nobody looks at, which is of no interest.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(settings["parallel"], 1) * 4)
    loop.set_default_executor(executor)

    def run() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run))
    except KeyboardInterrupt:
        # The update was cancelled. Threads still wait for the engine; nobody waits for them.
        _flush()
        os._exit(INTERRUPTED)
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return TOLD
    except Exception as error:
        pulumi.log.error(
            "Program failed with an unhandled exception:\n" + _traceback(error, main_file)
        )
        return TOLD
    else:
        return 0
    finally:
        executor.shutdown(wait=True)
        loop.close()


def _configure(settings: dict[str, Any]) -> None:
    """Hand configuration and settings to the SDK; older ones know fewer of them."""
    from pulumi import runtime

    config = runtime.get_config_env()
    if hasattr(runtime, "set_all_config") and hasattr(runtime, "get_config_secret_keys_env"):
        runtime.set_all_config(config, runtime.get_config_secret_keys_env())
    else:
        for key, value in config.items():
            runtime.set_config(key, value)
    known = inspect.signature(runtime.Settings.__init__).parameters
    runtime.configure(
        runtime.Settings(**{name: value for name, value in settings.items() if name in known})
    )


def _main_file(program: str) -> Path:
    path = Path(os.path.abspath(program))  # noqa: PTH100 - `resolve` would follow links
    return path / "__main__.py" if path.is_dir() else path


def _traceback(error: BaseException, main_file: Path) -> str:
    """Return the traceback from the program's own first line on."""
    frames = traceback.extract_tb(error.__traceback__)
    limit = None
    for index, frame in enumerate(frames):
        if _main_file(frame.filename) == main_file:
            limit = index - len(frames)
            break
    return "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=limit))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    _flush()
    sys.exit(code)
