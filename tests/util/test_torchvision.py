"""torchvision is usable beside any torch, and left alone beside one that it fits."""

import subprocess
import sys
from textwrap import dedent

import pytest
from helpers import LIMIT, ROOT

NAMES = "torchvision torchvision.datasets torchvision.models torchvision.transforms"
PASSED_ON = """
    import torch
    try:
        from robustness.util.torchvision_compat import torchvision
    except Exception as error:
        print(repr(error), hasattr(torch.ops.torchvision, "nms"))
"""
# What a fresh interpreter runs, a torchvision that stands in for the installed one, and what is printed.
CASES = {
    "datasets, models, transforms": (
        """
        import torch
        from robustness.util.torchvision_compat import datasets, models, torchvision, transforms
        print(issubclass(datasets.MNIST, torch.utils.data.Dataset))
        print(tuple(models.resnet18(weights=None).eval()(torch.zeros(2, 3, 32, 32)).shape))
        print(tuple(transforms.Resize(8)(torch.zeros(1, 16, 16)).shape))
        import torchvision as again
        from robustness.util.torchvision_compat import torchvision as once_more
        print(torchvision is again is once_more)
        """,
        None,
        ["True", "(2, 1000)", "(1, 8, 8)", "True"],
    ),
    "after an import that failed": (
        """
        try:
            import torchvision
        except RuntimeError:
            pass
        from robustness.util.torchvision_compat import torchvision
        print(torchvision.models.resnet18.__name__)
        """,
        None,
        ["resnet18"],
    ),
    "in threads": (
        """
        from concurrent.futures import ThreadPoolExecutor
        from robustness.util import torchvision_compat
        names = ["torchvision", "datasets", "models", "transforms"] * 2
        with ThreadPoolExecutor(8) as pool:
            print(*(module.__name__ for module in pool.map(lambda name: getattr(torchvision_compat, name), names)))
        """,
        None,
        [f"{NAMES} {NAMES}"],
    ),
    "imported late": (
        """
        import robustness, robustness.util.torchvision_compat
        print(sorted({"torch", "torchvision"} & sys.modules.keys()))
        """,
        None,
        ["[]"],
    ),
    "one that fits": (
        """
        import torch
        from robustness.util.torchvision_compat import torchvision
        print(torchvision.fits, hasattr(torch.ops.torchvision, "nms"))
        """,
        "fits = True",
        ["True False"],
    ),
    "an operator that exists": (
        """
        import torch
        torch.library.define("torchvision::nms", "(Tensor boxes) -> Tensor")
        from robustness.util import torchvision_compat
        torchvision_compat._declare()
        print(torch.ops.torchvision.nms.default._schema)
        """,
        None,
        ["torchvision::nms(Tensor boxes) -> Tensor"],
    ),
    "another error of import": (
        PASSED_ON,
        "raise ImportError('no libjpeg')",
        ["ImportError('no libjpeg') False"],
    ),
    "another error of CUDA": (
        PASSED_ON,
        "raise RuntimeError('compiled with different CUDA major versions')",
        ["RuntimeError('compiled with different CUDA major versions') False"],
    ),
    "a declared operator cannot run": (
        """
        import torch
        from robustness.util import torchvision_compat
        torchvision_compat._declare()
        torchvision_compat._declare()
        try:
            torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        except NotImplementedError as error:
            print("torchvision::nms" in str(error))
        """,
        None,
        ["True"],
    ),
}


@pytest.mark.parametrize(("code", "stand_in", "lines"), CASES.values(), ids=CASES)
def test_torchvision_is_imported_when_asked_for_and_declared_for_only_where_it_must_be(tmp_path, code, stand_in, lines):
    """Catches: an import of torch too early, operators declared twice or needlessly, another error swallowed."""
    if stand_in:
        (tmp_path / "torchvision.py").write_text(stand_in, encoding="utf-8")
    first = f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]!r}\n"
    command = [sys.executable, "-W", "error", "-c", first + dedent(code)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == lines


def test_other_names_are_refused():
    from robustness.util import torchvision_compat

    with pytest.raises(AttributeError, match="no attribute 'ops'"):
        torchvision_compat.ops  # noqa: B018
