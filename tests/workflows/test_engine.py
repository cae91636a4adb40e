"""The run goes on when a step fails or its process is killed, and the account of it is true."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline.engine import MapNode, Node, Workflow

from sodium_prep.workflows.engine import run_workflow

LIMIT_S = 20.0


def _double(x):
    return 2 * x


def _total(x, y=0):
    return (sum(x) if isinstance(x, list) else x) + y


def _kill_self(x):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return x


def _slow_double(x):
    import time

    time.sleep(1.5)
    return 2 * x


def _refuse(x):
    from sodium_prep.errors import InputError

    raise InputError("sub-01_PDw.json", f"EchoTime is {x}", "Give it in seconds")


def _fill_disk(x):
    import errno
    import os

    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out/map.nii.gz")


def _exit(x):
    import os

    os.write(1, b"the library says goodbye")
    os._exit(7)


def _write(x):
    from pathlib import Path

    path = Path("value.txt").resolve()
    path.write_text(str(x))
    return str(path)


def _read(path):
    from pathlib import Path

    return Path(path).read_text()


def _spawn_and_die(pid_file):
    import os
    import signal
    import subprocess
    from pathlib import Path

    child = subprocess.Popen(["sleep", "300"])
    Path(pid_file).write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


def _node(name, function, inputs=("x",), kind=Node, **values):
    interface = Function(input_names=list(inputs), output_names=["out"], function=function)
    extra = {"iterfield": ["x"]} if kind is MapNode else {}
    node = kind(interface, name=name, **extra)
    for key, value in values.items():
        setattr(node.inputs, key, value)
    return node


def _workflow(base_dir, *links, nodes=()):
    workflow = Workflow(name="wf", base_dir=str(base_dir))
    workflow.add_nodes(list(nodes))
    for source, target, field in links:
        workflow.connect(source, "out", target, field)
    return workflow


def _run(workflow, **options):
    begun = time.monotonic()
    result = run_workflow(workflow, nprocs=2, mem_gb=2.0, progress=False, **options)
    assert time.monotonic() - begun < LIMIT_S
    return result


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killed_worker_costs_its_own_step_only(tmp_path):
    bad, needs_bad = _node("bad", _kill_self, x=1), _node("needs_bad", _double)
    neighbour, later = _node("neighbour", _slow_double, x=3), _node("later", _double)
    result = _run(_workflow(tmp_path, (bad, needs_bad, "x"), (neighbour, later, "x")))

    assert set(result.failed) == {"wf.bad"}
    assert "worker running wf.bad was killed by SIGKILL (out of memory?)" in result.failed["wf.bad"]
    assert result.out_of_resources == ["wf.bad"]
    assert result.not_run == ["wf.needs_bad"]
    assert sorted(result.executed) == ["wf.later", "wf.neighbour"], "the step beside the killed one must not suffer"
    assert "SIGKILL" in result.crash_files["wf.bad"].read_text()


def test_stock_plugin_does_not_survive_a_killed_worker(tmp_path):
    """Why the engine has a plugin of its own: nipype's waits for ever, or at best ends the run with an error."""
    script = tmp_path / "stock.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from nipype.interfaces.utility import Function
            from nipype.pipeline.engine import Node, Workflow

            def kill_self(x):
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)

            if __name__ == "__main__":
                workflow = Workflow(name="wf", base_dir=sys.argv[1])
                interface = Function(input_names=["x"], output_names=["out"], function=kill_self)
                node = Node(interface, name="bad")
                node.inputs.x = 1
                workflow.add_nodes([node])
                workflow.config["execution"] = {"crashdump_dir": sys.argv[1], "poll_sleep_duration": "0.1"}
                workflow.run(plugin="MultiProc", plugin_args={"n_procs": 1, "memory_gb": 2.0})
            """
        )
    )
    environment = {**os.environ, "NIPYPE_NO_ET": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as stock:
        try:
            output, _ = stock.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(stock.pid, signal.SIGKILL)
            output, _ = stock.communicate()
            assert "BrokenProcessPool" in output, "it hung, but before its worker was killed"
        else:
            assert stock.returncode != 0


def test_killed_worker_takes_its_children_along(tmp_path):
    pid_file = tmp_path / "child.pid"
    node = _node("bad", _spawn_and_die, inputs=("pid_file",), pid_file=str(pid_file))
    result = _run(_workflow(tmp_path, nodes=[node]))
    assert set(result.failed) == {"wf.bad"}
    deadline = time.monotonic() + 5.0
    while _is_alive(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "the child of a killed step is still running"
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_steps_end_with_a_killed_run(tmp_path, sent):
    """A run that is itself ended (time limit, Ctrl-C) leaves nothing behind that goes on writing."""
    pid_file, script = tmp_path / "step.pid", tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal, sys
            from nipype.interfaces.utility import Function
            from nipype.pipeline.engine import Node, Workflow
            from sodium_prep.workflows.engine import run_workflow

            def stay(pid_file):
                import os, time
                from pathlib import Path
                Path(pid_file).write_text(str(os.getpid()))
                time.sleep(300)

            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs it in the background
            if __name__ == "__main__":
                interface = Function(input_names=["pid_file"], output_names=["out"], function=stay)
                node = Node(interface, name="stay")
                node.inputs.pid_file = sys.argv[1]
                workflow = Workflow(name="wf", base_dir=sys.argv[2])
                workflow.add_nodes([node])
                run_workflow(workflow, nprocs=1, mem_gb=2.0, progress=False)
            """
        )
    )
    repository = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(script), str(pid_file), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + LIMIT_S
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(sent)
    step = int(pid_file.read_text())
    deadline = time.monotonic() + 5.0
    while _is_alive(step):
        assert time.monotonic() < deadline, "the step outlived its run"
        time.sleep(0.05)


def _chain(base_dir, *, first=1, added=10):
    first_node, middle = _node("first", _write, x=first), _node("middle", _read, inputs=("path",))
    last, apart = _node("last", _write), _node("apart", _write, x=added)
    return _workflow(base_dir, (first_node, middle, "path"), (middle, last, "x"), nodes=[apart])


def test_second_run_executes_nothing(tmp_path):
    names = ["wf.apart", "wf.first", "wf.last", "wf.middle"]
    first = _run(_chain(tmp_path))
    assert (sorted(first.executed), first.cached) == (names, [])
    assert all(use.elapsed_s > 0 and use.peak_gb > 0.01 for use in first.usage.values())
    second = _run(_chain(tmp_path))
    assert (second.executed, sorted(second.cached), second.ok) == ([], names, True)


def test_changed_input_executes_the_steps_that_depend_on_it(tmp_path):
    _run(_chain(tmp_path))
    result = _run(_chain(tmp_path, first=2))
    assert sorted(result.executed) == ["wf.first", "wf.last", "wf.middle"]
    assert result.cached == ["wf.apart"]
    assert (tmp_path / "wf" / "last" / "value.txt").read_text() == "2"


def test_step_added_downstream_leaves_the_others_alone(tmp_path):
    _run(_chain(tmp_path))
    workflow = _chain(tmp_path)
    workflow.connect(workflow.get_node("first"), "out", _node("extra", _read, inputs=("path",)), "path")
    assert _run(workflow).executed == ["wf.extra"]


def test_failed_step_runs_again(tmp_path):
    target = tmp_path / "late.txt"
    nodes = [_node("late", _read, inputs=("path",), path=str(target)), _node("apart", _double, x=1)]
    first = _run(_workflow(tmp_path, nodes=nodes))
    assert "FileNotFoundError" in first.failed["wf.late"]
    target.write_text("here")
    second = _run(_workflow(tmp_path, nodes=nodes))
    assert (second.executed, second.cached) == (["wf.late"], ["wf.apart"])


def test_error_in_a_step_keeps_its_words(tmp_path):
    nodes = [_node("refuse", _refuse, x=300), _node("full", _fill_disk, x=1), _node("exits", _exit, x=1)]
    result = _run(_workflow(tmp_path, nodes=[*nodes, _node("fine", _double, x=1)]))
    assert result.failed["wf.refuse"] == "sub-01_PDw.json: EchoTime is 300. Give it in seconds."
    assert result.failed["wf.full"] == "OSError: [Errno 28] No space left on device: '/out/map.nii.gz'"
    assert "ended with code 7 without a result" in result.failed["wf.exits"]
    assert "the library says goodbye" in result.crash_files["wf.exits"].read_text()
    assert result.out_of_resources == ["wf.full"]
    assert result.executed == ["wf.fine"]


def test_run_is_quiet_and_its_log_complete(tmp_path, capfd, caplog):
    with caplog.at_level(logging.DEBUG, logger="sodium_prep"):
        _run(_workflow(tmp_path, nodes=[_node("refuse", _refuse, x=300), _node("exits", _exit, x=1)]))
    assert capfd.readouterr() == ("", "")
    steps = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert "failed wf.refuse (1/2): sub-01_PDw.json: EchoTime is 300. Give it in seconds." in steps
    assert any("Traceback" in record.getMessage() for record in caplog.records)


def test_damaged_cache_costs_one_step(tmp_path):
    _run(_chain(tmp_path))
    (tmp_path / "wf" / "first" / "value.txt").unlink()
    (tmp_path / "wf" / "middle" / "result_middle.pklz").unlink()
    result = _run(_chain(tmp_path))
    assert "wf.middle" in result.failed
    assert result.not_run == ["wf.last"]
    assert "wf.apart" in result.cached


def test_map_node_counts_as_one_step(tmp_path):
    source = _node("source", _double, kind=MapNode, x=[1, 2, 3])
    total = _node("total", _total)
    for _ in range(2):
        result = _run(_workflow(tmp_path, (source, total, "x")))
        assert sorted([*result.executed, *result.cached]) == ["wf.source", "wf.total"]
    assert sorted(result.cached) == ["wf.source", "wf.total"]

    broken = _node("source", _kill_self, kind=MapNode, x=[1, 2, 3])
    result = _run(_workflow(tmp_path / "broken", (broken, _node("total", _total), "x")))
    assert (list(result.failed), result.not_run) == (["wf.source"], ["wf.total"])


def test_stop_on_first_crash(tmp_path):
    bad, slow = _node("bad", _refuse, x=1), _node("slow", _slow_double, x=1)
    later = _node("later", _slow_double)
    result = _run(_workflow(tmp_path, (slow, later, "x"), nodes=[bad]), stop_on_first_crash=True)
    assert "wf.bad" in result.failed
    assert "wf.later" in result.not_run


def test_error_of_the_workflow_itself_is_raised(tmp_path):
    workflow = _workflow(tmp_path, nodes=[_node("fine", _double, x=1)])
    workflow.config["execution"] = {"poll_sleep_duration": "1"}
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        run_workflow(workflow, nprocs=1, mem_gb=1.0, progress=False)


def test_throughput(tmp_path):
    """A step costs little beyond its own work (the stock plugin needs 1 s at its default settings)."""
    nodes = [_node(f"node{i:02d}", _double, x=i) for i in range(30)]
    begun = time.monotonic()
    assert len(_run(_workflow(tmp_path, nodes=nodes)).executed) == 30
    assert (time.monotonic() - begun) / 30 < 0.5
