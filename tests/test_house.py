"""The rules of the house: jobs -> pipeline -> moss_tok, steps that do not know each other, one door to each service."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = (
    {"cli"},
    {"serve"},
    {"verify", "report", "distributed"},
    {"evaluate"},
    {"loading", "export", "monitoring", "shard"},
    {"dataset"},
    {"steps"},
    {"codecs"},
    {"storage", "pages"},
)
"""The rooms of `pipeline/` from the top. A room imports from rooms on lower floors and from the modules at the root."""


@cache
def modules(package: str) -> dict[str, ast.Module]:
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}


def imports(tree: ast.Module) -> set[str]:
    """Full names of everything that the module imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module comes from"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def reaches(imported: set[str], *targets: str) -> list[str]:
    return sorted(name for name in imported for target in targets if f"{name}.".startswith(f"{target}."))


def test_the_codec_knows_nothing_of_ray_arrow_storage_or_the_pipeline():
    for name, tree in modules("moss_tok").items():
        forbidden = reaches(
            imports(tree), "ray", "pyarrow", "fsspec", "s3fs", "datasets", "pipeline", "jobs", "pydantic"
        )
        assert not forbidden, f"{name} imports {forbidden}"


def test_only_the_audio_modules_of_the_codec_import_decoders():
    for name, tree in modules("moss_tok").items():
        if not name.startswith(("moss_tok.audio", "moss_tok.audio.resample")):
            assert not reaches(imports(tree), "soundfile", "av", "torchaudio"), name


def test_the_pipeline_does_not_import_jobs_or_tests():
    for name, tree in (modules("pipeline") | modules("schemas")).items():
        assert not reaches(imports(tree), "jobs", "tests", "benchmarks", "demo"), name


def room(name: str) -> str:
    """The folder of `pipeline/` that a module lies in; "" for the modules at the root, and for other packages."""
    package, *rest = name.split(".")
    return rest[0] if package == "pipeline" and rest and (ROOT / "pipeline" / rest[0]).is_dir() else ""


def floor(name: str) -> int:
    """0 is the top; the modules at the root of `pipeline/` lie below all rooms."""
    return next((number for number, rooms in enumerate(FLOORS) if room(name) in rooms), len(FLOORS))


def test_every_room_has_a_floor():
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set().union(*FLOORS)


def test_a_room_imports_only_from_lower_floors():
    for name, tree in modules("pipeline").items():
        for imported in imports(tree):
            if imported.startswith("pipeline.") and room(imported) != room(name):
                storage = room(name) == "" and room(imported) == "storage"  # parquet.py and others read through it
                assert storage or floor(imported) > floor(name), f"{name} imports {imported}"


def test_a_step_imports_no_other_step():
    """A step is a module of `steps/`, or a folder there. What several steps share composes nothing."""
    shared = {
        *("columns", "formats", "jsonl_csv", "listed_clips", "lhotse_records", "segments", "segment_decoder"),
        *("audio_stats", "clip_decoder", "clip_signals", "watchdog", "reject_reasons"),
    }
    for name, tree in modules("pipeline/steps").items():
        step = name.split(".")[2]
        for imported in imports(tree):
            if imported.startswith("pipeline.steps."):
                assert imported.split(".")[2] in {step, *shared}, f"{name} imports {imported}"


def test_ray_appears_only_in_distributed():
    users = {name for name, tree in modules("pipeline").items() if reaches(imports(tree), "ray")}
    assert users
    assert all(room(name) == "distributed" for name in users), users


def test_object_stores_are_reached_only_through_storage():
    users = {name for name, tree in modules("pipeline").items() if reaches(imports(tree), "fsspec", "s3fs", "boto3")}
    assert users
    assert all(name.startswith("pipeline.storage.") for name in users)


def test_parquet_is_read_in_the_callers_thread():
    """Arrow's own threads hold Python buffers, and abort a process that ends meanwhile: see pipeline/parquet.py."""
    for name, tree in modules("pipeline").items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert "pq.read_table" not in calls, name
        assert "pq.ParquetFile" not in calls or name in ("pipeline.parquet", "pipeline.steps.read.parquet"), name


def test_nothing_unpickles():
    for package in ("moss_tok", "pipeline", "jobs"):
        for name, tree in modules(package).items():
            assert not reaches(imports(tree), "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"), name
            calls = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
            assert "weights_only" not in calls, name
            source = ast.unparse(tree)
            assert "torch.load(" not in source, name
            assert "trust_remote_code" not in source, name


def test_jobs_stay_short():
    for path in (ROOT / "jobs").glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name


def test_reader_processes_and_commands_that_encode_nothing_load_no_torch():
    modules = "pipeline.shard.chunks, pipeline.monitoring.status, pipeline.verify.repair, pipeline.verify.duplicates"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_help_does_not_wait_for_torch_or_ray():
    code = "import sys, pipeline.cli.main; print({'torch', 'ray', 'pyarrow', 'av'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
