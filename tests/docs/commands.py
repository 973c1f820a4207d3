"""The commands that a text shows: found in scripts, recipes and pages, and read by the parsers that would read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from clusterproof import cli, settings

PROGRAMS = ("clusterproof", "pytest", "prove")
_WORDS_BEFORE = ("sudo", "env", "exec", "then", "do", "!", "time", ".")


def commands(script: str) -> Iterator[list[str]]:
    """The calls of our programs in a shell script, each as words, with 1 for every variable.

    What a page has in brackets is what may be left out, and is.
    """
    plain = re.sub(r"\$\{\{.*?\}\}|\$\{[^}]*\}|\$\w+|\$@", "1", script.replace("\\\n", " "))
    plain = re.sub(r" \[-[^]]*\]", "", re.sub(r"\$\([^()]*\)", "1", plain))
    for line in plain.splitlines():
        for words in _simple(line):
            while words and (words[0] in _WORDS_BEFORE or re.match(r"\w+=", words[0])):
                words = words[1:]
            # `NAME|| …` and `prove` alone are the script's own functions.
            if words and (words[0] in PROGRAMS[:2] or words[0] == "./prove"):
                yield words


def _simple(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("();<>|&"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def scripts(path: Path) -> Iterator[str]:
    """The shell scripts in a file: all of it, what a recipe runs, or what a page shows as code."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        yield from (block for language, block in blocks if language in ("", "sh"))
    elif path.suffix == ".yml":
        yield from _run(yaml.safe_load(text))
    elif path.name == "Jenkinsfile":
        yield from re.findall(r"\bsh '([^']*)'", text)
    else:
        yield text


def _run(node: object) -> Iterator[str]:
    """What stands behind `run` (GitHub) and `script` (GitLab)."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script") and not isinstance(value, dict):
                yield "\n".join(_flat(value))
            else:
                yield from _run(value)
    elif isinstance(node, list):
        for each in node:
            yield from _run(each)


def _flat(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield str(value)


def problem(words: list[str]) -> str:
    """What the program itself says is wrong with a call; nothing, when it understands it."""
    program, *arguments = words
    try:
        if program == "clusterproof":
            cli._parser(cli._commands()).parse_args(arguments)
            return ""
        if program == "./prove":
            if arguments[:1] not in (["suites"], ["tests"]):
                return f"./prove knows suites and tests, not {arguments[:1]}"
            arguments = arguments[1:]
            if words[1] == "tests":
                return ""
        # This pytest captures already, and has imported what would be rewritten.
        settings.resolve(pytest.Config.fromdictargs({}, ["--assert=plain", "--capture=no", *arguments]), {})
    except SystemExit as left:
        return f"exits with {left.code}"
    except pytest.UsageError as error:
        return str(error)
    return ""
