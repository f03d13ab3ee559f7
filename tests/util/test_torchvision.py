"""torchvision is usable beside any torch, and left alone beside one that it fits."""

import subprocess
import sys
from textwrap import dedent

import pytest
from helpers import LIMIT, ROOT


def python(code, *path):
    """Run ``code`` in a fresh interpreter with warnings as errors; what it printed, as lines."""
    first = f"import sys; sys.path[:0] = {[*map(str, path), str(ROOT)]!r}\n"
    command = [sys.executable, "-W", "error", "-c", first + dedent(code)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.fixture
def stand_in(tmp_path):
    """Make a module ``torchvision`` with the given source, found before the installed one."""

    def make(source):
        (tmp_path / "torchvision.py").write_text(dedent(source), encoding="utf-8")
        return tmp_path

    return make


def test_datasets_models_and_transforms_work():
    lines = python("""
        import torch
        from robustness.util.torchvision_compat import datasets, models, torchvision, transforms

        print(issubclass(datasets.MNIST, torch.utils.data.Dataset))
        print(tuple(models.resnet18(weights=None).eval()(torch.zeros(2, 3, 32, 32)).shape))
        print(tuple(transforms.Resize(8)(torch.zeros(1, 16, 16)).shape))

        import torchvision as again
        from robustness.util.torchvision_compat import torchvision as once_more
        print(torchvision is again is once_more)
        """)

    assert lines == ["True", "(2, 1000)", "(1, 8, 8)", "True"]


def test_works_after_somebody_elses_import_failed():
    lines = python("""
        try:
            import torchvision
        except RuntimeError:
            pass
        from robustness.util.torchvision_compat import torchvision

        print(torchvision.models.resnet18.__name__)
        """)

    assert lines == ["resnet18"]


def test_threads_can_ask_at_once():
    lines = python("""
        from concurrent.futures import ThreadPoolExecutor
        from robustness.util import torchvision_compat as _torchvision

        names = ["torchvision", "datasets", "models", "transforms"] * 2
        with ThreadPoolExecutor(8) as pool:
            print(*(module.__name__ for module in pool.map(lambda name: getattr(_torchvision, name), names)))
        """)

    assert lines == [
        " ".join(["torchvision", "torchvision.datasets", "torchvision.models", "torchvision.transforms"] * 2)
    ]


def test_importing_robustness_imports_neither_torch_nor_torchvision():
    lines = python("""
        import robustness, robustness.util.torchvision_compat

        print(sorted({"torch", "torchvision"} & sys.modules.keys()))
        """)

    assert lines == ["[]"]


def test_declares_nothing_where_torchvision_imports(stand_in):
    lines = python(
        """
        import torch
        from robustness.util.torchvision_compat import torchvision

        print(torchvision.fits, hasattr(torch.ops.torchvision, "nms"))
        """,
        stand_in("fits = True"),
    )

    assert lines == ["True False"]


def test_declares_no_operator_that_exists():
    lines = python("""
        import torch

        torch.library.define("torchvision::nms", "(Tensor boxes) -> Tensor")
        from robustness.util import torchvision_compat as _torchvision
        _torchvision._declare()

        print(torch.ops.torchvision.nms.default._schema)
        """)

    assert lines == ["torchvision::nms(Tensor boxes) -> Tensor"]


@pytest.mark.parametrize(
    "error",
    ['ImportError("no libjpeg")', 'RuntimeError("compiled with different CUDA major versions")'],
    ids=["import", "cuda"],
)
def test_another_reason_is_passed_on(stand_in, error):
    lines = python(
        """
        import torch

        try:
            from robustness.util.torchvision_compat import torchvision
        except Exception as error:
            print(repr(error), hasattr(torch.ops.torchvision, "nms"))
        """,
        stand_in(f"raise {error}"),
    )

    assert lines == [f"{error} False".replace('"', "'")]


def test_a_declared_operator_says_that_it_cannot_run():
    lines = python("""
        import torch
        from robustness.util import torchvision_compat as _torchvision

        _torchvision._declare()
        _torchvision._declare()
        try:
            torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except NotImplementedError as error:
            print("torchvision::nms" in str(error))
        """)

    assert lines == ["True"]


def test_other_names_are_refused():
    from robustness.util import torchvision_compat

    with pytest.raises(AttributeError, match="no attribute 'ops'"):
        torchvision_compat.ops  # noqa: B018
