"""The plug-in of pytest: a test per model, and one per rule that fails it."""

from __future__ import annotations

import shutil

import pytest
from corpora import FIXTURES

pytest_plugins = ["pytester"]


@pytest.fixture
def models(pytester):
    for name in ("healthy_cnn", "decayed_cnn"):
        shutil.copy(FIXTURES / f"{name}.onnx", pytester.path)
    (pytester.path / "broken.onnx").write_text("none")
    return pytester


def test_each_model_and_each_failing_rule_is_a_test(models):
    done = models.runpytest_subprocess("--symlint", "*.onnx", "-v", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(
        [
            "broken.onnx::audit FAILED*",
            "decayed_cnn.onnx::audit PASSED*",
            "decayed_cnn.onnx::SYM101 dead-unit FAILED*",
            "healthy_cnn.onnx::audit PASSED*",
            "audit incomplete: *",
            "SYM101 [[]error[]] 15 of 24 units of conv2 cannot affect the output; units 0, 2-9, *",
        ]
    )


def test_models_are_chosen_and_configured_like_other_tests(models):
    (models.path / "symlint.toml").write_text('[[accept]]\nrule = "dead-unit"\nreason = "known"\n')
    done = models.runpytest_subprocess("--symlint", "*_cnn.onnx", "-k", "decayed")
    done.assert_outcomes(passed=1, deselected=1)
    done = models.runpytest_subprocess("--symlint", "no/*.onnx")
    done.stderr.fnmatch_lines(["ERROR: --symlint no/[*].onnx: no such file"])


def test_without_the_option_nothing_is_audited(models):
    models.makepyfile("def test_nothing(): import sys; assert 'onnx' not in sys.modules")
    models.runpytest_subprocess().assert_outcomes(passed=1)
