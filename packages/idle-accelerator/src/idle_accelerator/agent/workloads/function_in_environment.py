"""Starts ``function_guest`` by the Python of an environment: ``python -I FILE PACKAGE CLOUDPICKLE``, the folders of both.

An environment holds what its requirements name, and nothing of the agent's. Of the agent's own packages exactly two are lent to it:
this one, whose guest program must fit the agent, and cloudpickle where the environment has none of its own.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location


def _lend(name: str, folder: str) -> None:
    spec = spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no package")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    _lend("idle_accelerator", sys.argv[1])
    if find_spec("cloudpickle") is None:
        _lend("cloudpickle", sys.argv[2])
    del sys.argv[1:]
    from idle_accelerator.agent.workloads import function_guest

    function_guest.main()
