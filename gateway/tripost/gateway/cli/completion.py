"""tripost completion bash | zsh | fish: a script that completes commands, options and their values

    source <(tripost completion bash)            in ~/.bashrc
    tripost completion zsh > DIR/_tripost        DIR in $fpath
    tripost completion fish > ~/.config/fish/completions/tripost.fish

Made from the argument parser, so that it knows what this version knows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from tripost.gateway.cli.tree import Command, Option

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, known: list[Command]) -> str:
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](known)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _full(command: Command) -> str:
    return f"tripost {command.name}".strip()


def _valued(known: list[Command]) -> Iterable[tuple[str, Option]]:
    """(command and flag, option) of all that take a value."""
    for command in known:
        for option in command.options:
            if option.value:
                for flag in option.flags:
                    yield f"{_full(command)} {flag}", option


def _cases(known: list[Command], files: str, words: str) -> list[str]:
    """Branches by "command flag": how its value is completed. What nobody can know is completed to nothing."""
    rows: list[str] = []
    for place, option in _valued(known):
        if option.file:
            does = files
        elif option.words:
            does = words.replace("WORDS", " ".join(option.words))
        else:
            does = ":"
        rows.append(f"    {_quoted(place)}) {does}; return ;;")
    return rows


def _bash(known: list[Command]) -> str:
    paths = "|".join(_quoted(_full(one)) for one in known if one.name)
    cases = _cases(
        known,
        'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")',
        'mapfile -t COMPREPLY < <(compgen -W "WORDS" -- "$cur")',
    )
    rows: list[str] = []
    for one in known:
        flags = [flag for option in one.options for flag in option.flags]
        files = "files=1" if one.file else "files="
        rows.append(
            f"    {_quoted(_full(one))}) words={_quoted(' '.join([*one.below, *one.words]))} "
            f"flags={_quoted(' '.join(flags))} {files} ;;"
        )
    return "\n".join(
        [
            "# bash completion for tripost",
            "_tripost() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at=tripost words flags files i",
            "  for ((i = 1; i < COMP_CWORD; i++)); do",
            '    case "$at ${COMP_WORDS[i]}" in',
            f'      {paths}) at="$at ${{COMP_WORDS[i]}}" ;;',
            "      *) break ;;",
            "    esac",
            "  done",
            "  COMPREPLY=()",
            '  case "$at $prev" in',
            *cases,
            "  esac",
            '  case "$at" in',
            *rows,
            "  esac",
            "  [[ $cur == -* ]] && words=$flags files=",
            '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
            "  if [[ $files ]]; then",
            "    compopt -o filenames",
            '    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$cur")',
            "  fi",
            "}",
            "complete -F _tripost tripost",
            "",
        ]
    )


def _zsh(known: list[Command]) -> str:
    paths = "|".join(_quoted(_full(one)) for one in known if one.name)
    rows: list[str] = []
    for one in known:
        below = " ".join(_quoted(f"{word}:{help}") for word, help in one.below.items())
        flags = " ".join(
            _quoted(f"{flag}:{option.help.replace(':', ' -')}") for option in one.options for flag in option.flags
        )
        does = [f"flags=({flags})"]
        if below:
            does.append(f"below=({below})")
        if one.words:
            does.append(f"words_here=({' '.join(one.words)})")
        if one.file:
            does.append("files=1")
        rows.append(f"    {_quoted(_full(one))}) {'; '.join(does)} ;;")
    return "\n".join(
        [
            "#compdef tripost",
            "_tripost() {",
            "  local at=tripost prev=${words[CURRENT-1]} i files=",
            "  local -a flags below words_here",
            "  for ((i = 2; i < CURRENT; i++)); do",
            '    case "$at ${words[i]}" in',
            f'      ({paths}) at="$at ${{words[i]}}" ;;',
            "      (*) break ;;",
            "    esac",
            "  done",
            '  case "$at $prev" in',
            *[row.replace("    '", "    ('", 1) for row in _cases(known, "_files", "compadd -- WORDS")],
            "  esac",
            '  case "$at" in',
            *[row.replace("    '", "    ('", 1) for row in rows],
            "  esac",
            "  if [[ ${words[CURRENT]} == -* ]]; then _describe option flags; return; fi",
            "  (( $#below )) && _describe command below",
            "  (( $#words_here )) && compadd -- $words_here",
            "  [[ -n $files ]] && _files",
            "  return 0",
            "}",
            'if [[ ${funcstack[1]} == _tripost ]]; then _tripost "$@"; else compdef _tripost tripost; fi',
            "",
        ]
    )


def _fish(known: list[Command]) -> str:
    rows: list[str] = []
    for one in known:
        when = f"-n {_quoted(f'__tripost_at {one.name}'.strip())}"
        for word, help in one.below.items():
            rows.append(f"complete -c tripost -f {when} -a {_quoted(word)} -d {_quoted(help)}")
        if one.words:
            rows.append(f"complete -c tripost -f {when} -a {_quoted(' '.join(one.words))}")
        if one.file:
            rows.append(f"complete -c tripost -F {when}")
        elif not one.below:
            rows.append(f"complete -c tripost -f {when}")
        for option in one.options:
            rows.append(f"complete -c tripost {when} {_fish_option(option)} -d {_quoted(option.help)}")
    known_paths = " ".join(_quoted(one.name) for one in known if one.name)
    return "\n".join(
        [
            "# fish completion for tripost",
            "function __tripost_at",
            "    set -l known " + known_paths,
            "    set -l at",
            "    for word in (commandline -opc)[2..]",
            '        set -l next (string trim -- "$at $word")',
            "        contains -- $next $known; or break",
            "        set at $next",
            "    end",
            '    test "$at" = "$argv"',
            "end",
            *rows,
            "",
        ]
    )


def _fish_option(option: Option) -> str:
    names: list[str] = []
    for flag in option.flags:
        if flag.startswith("--"):
            names.append(f"-l {flag[2:]}")
        else:
            names.append(f"-s {flag[1:]}" if len(flag) == 2 else f"-o {flag[1:]}")
    text = " ".join(names)
    if option.value:
        text += " -r -F" if option.file else " -x"
    return f"{text} -a {_quoted(' '.join(option.words))}" if option.words else text
