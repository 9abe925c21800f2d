"""The page that compares two recordings, in a real browser, with a file instead of the microphone."""

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.browser import PROGRAM, Browser
from wespeaker_lite import SpeakerModel
from wespeaker_lite.corpora.simulation import SAMPLE_RATE, make_session, make_speaker, simulate_utterance

onnx = pytest.importorskip("onnx", reason="tools/install.sh --extras export")
onnxruntime = pytest.importorskip("onnxruntime", reason="tools/install.sh --extras export")
if PROGRAM is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)
if shutil.which("npm") is None:
    pytest.skip("there is no npm here, which fetches onnxruntime-web", allow_module_level=True)

ROOT = Path(__file__).parents[2]
MEAN, THRESHOLD = [0.01, -0.02, 0.03, 0.0], 0.5
FAKE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def write_model(path: Path) -> None:
    """A network of one convolution: samples (B, n) -> embs (B, 4)."""
    kernel = np.random.default_rng(0).normal(0, 1, (4, 1, 25)).astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["samples", "one"], ["rows"]),
            helper.make_node("Conv", ["rows", "kernel"], ["heard"]),
            helper.make_node("Abs", ["heard"], ["size"]),
            helper.make_node("ReduceMean", ["size", "time"], ["embs"], keepdims=0),
        ],
        "demo",
        [helper.make_tensor_value_info("samples", kind, ["B", "n"])],
        [helper.make_tensor_value_info("embs", kind, ["B", 4])],
        [onnx.numpy_helper.from_array(kernel, "kernel")]
        + [onnx.numpy_helper.from_array(np.array([axis]), name) for name, axis in (("one", 1), ("time", 2))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def voice(pitch: float, seconds: float = 2.0, rate: int = 16000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * pitch * time) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with an exported model, its site, and recordings."""
    folder = tmp_path_factory.mktemp("demo")
    write_model(folder / "exp/export/model_wave.onnx")
    verify = {"mean": MEAN, "thresholds": {"trials_O": THRESHOLD}, "cosine_linear": None}
    (folder / "exp/export/verify.json").write_text(json.dumps(verify))
    made = subprocess.run(
        ["bash", "docs/demo/serve.sh", folder / "exp", folder / "site", "0"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if "could not fetch" in made.stderr:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    soundfile.write(folder / "low.wav", voice(200), 16000)
    soundfile.write(folder / "high.wav", voice(3000), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "short.wav", voice(200, 0.2), 16000)
    (folder / "text.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Browser]:
    yield from served(folder / "site", folder / "profile", folder / "low.wav")


def served(site: Path, profile: Path, microphone: Path) -> Iterator[Browser]:
    """A browser with the page of a site, whose microphone plays a file."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Browser(profile, (*FAKE, f"--use-file-for-fake-audio-capture={microphone}")) as browser:
            browser.open(f"http://127.0.0.1:{server.server_port}/")
            yield browser
        server.shutdown()


@pytest.fixture(scope="module")
def shipped(folder: Path) -> Iterator[Browser]:
    """The page with the model that comes with the package, exported by the program."""
    command = [sys.executable, "-m", "wespeaker_lite.bin.export", "--model", "pretrained/bc_cmt_tiny.pt"]
    subprocess.run([*command, "--out", folder / "tiny/export"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["bash", "docs/demo/serve.sh", folder / "tiny", folder / "tiny_site", "0"], cwd=ROOT, check=True)
    yield from served(folder / "tiny_site", folder / "tiny_profile", folder / "low.wav")


def score(folder: Path, *names: str) -> float:
    session = onnxruntime.InferenceSession(folder / "exp/export/model_wave.onnx", providers=["CPUExecutionProvider"])
    first, second = (
        session.run(None, {"samples": soundfile.read(folder / name, dtype="float32")[0][None]})[0][0] - np.array(MEAN)
        for name in names
    )
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def choose(page: Browser, folder: Path, *names: str) -> None:
    for section, name in zip(("first", "second"), names, strict=True):
        page.evaluate(f"document.querySelector('#{section} input').value = ''")  # or the same file would be no change
        page.evaluate(f"document.querySelector('#{section} .state, #{section} .error').textContent = ''")
        page.choose(f"#{section} input", folder / name)
        page.wait_for(f"document.querySelector('#{section} .state, #{section} .error').textContent != ''")


@pytest.mark.parametrize("names", [("low.wav", "low.wav"), ("low.wav", "high.wav")])
def test_two_files_are_compared_as_onnxruntime_does(page: Browser, folder: Path, names: tuple[str, str]) -> None:
    choose(page, folder, *names)
    shown = float(page.evaluate("document.querySelector('#details').dataset.score"))
    assert shown == pytest.approx(score(folder, *names), abs=1e-4)
    expected = "Same speaker" if shown >= THRESHOLD else "Different speakers"
    assert page.evaluate("document.querySelector('#answer').textContent") == expected
    assert "threshold 0.5000 (EER point of trials_O)" in page.evaluate("document.querySelector('#details').textContent")


@pytest.mark.parametrize(
    ("name", "message"),
    [("silent.wav", "Silent"), ("short.wav", "Too short: 0.20 s"), ("text.wav", "cannot read the file as audio")],
)
def test_a_bad_file_gets_one_line(page: Browser, folder: Path, name: str, message: str) -> None:
    choose(page, folder, "low.wav", name)
    assert message in page.evaluate("document.querySelector('#second .error').textContent")


def test_the_microphone_is_recorded(page: Browser, folder: Path) -> None:
    choose(page, folder, "low.wav", "high.wav")
    page.evaluate("document.querySelector('#second button').click()")
    page.wait_for("document.querySelector('#second button').textContent == 'Stop'")
    page.evaluate("new Promise((done) => setTimeout(done, 1500))")
    page.evaluate("document.querySelector('#second .state').textContent = ''")
    page.evaluate("document.querySelector('#second button').click()")
    page.wait_for("document.querySelector('#second .state').textContent.includes('s of audio')")
    assert (
        float(page.evaluate("document.querySelector('#details').dataset.score")) > 0.9
    )  # the microphone plays low.wav


def test_the_shipped_model_judges_by_its_threshold(shipped: Browser, folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, speaker in (("one.wav", 0), ("same.wav", 0), ("other.wav", 7)):
        samples = simulate_utterance(make_speaker(0, speaker), make_session(rng), rng)
        soundfile.write(folder / name, samples, SAMPLE_RATE)
    model = SpeakerModel.load(ROOT / "pretrained/bc_cmt_tiny.pt")
    threshold = next(iter(model.verification.thresholds.values()))
    for other in ("same.wav", "other.wav"):
        choose(shipped, folder, "one.wav", other)
        shown = float(shipped.evaluate("document.querySelector('#details').dataset.score"))
        # The page's features are not rounded to the bytes of arks.
        assert shown == pytest.approx(model.score(folder / "one.wav", folder / other), abs=0.02)
        expected = "Same speaker" if shown >= threshold else "Different speakers"
        assert shipped.evaluate("document.querySelector('#answer').textContent") == expected
