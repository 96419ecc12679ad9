"""Turns what there is to complete into scripts for bash, zsh and fish. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One spelling of an option.

    Attributes:
        spelling: with its dashes.
        help: one line.
        choices: the values that it takes, where they are few.
        names: which of our own names it takes (`grants`, `submitters`); empty for none.
        takes_value: whether a value follows.
    """

    spelling: str
    help: str
    choices: Sequence[str]
    names: str
    takes_value: bool


@dataclass(frozen=True, slots=True)
class Completed:
    """A verb: its options, and what else may follow it: fixed words, our own names."""

    verb: str
    summary: str
    options: Sequence[Option]
    words: Sequence[str]
    names: str


def bash(verbs: Sequence[Completed]) -> str:
    """Needs nothing but bash 4. Names may hold `@`, at which bash splits words."""
    cases: list[str] = []
    for one in verbs:
        cases += [
            f'    "{one.verb} {option.spelling}") {_bash_words(option)} ;;'
            for option in one.options
            if option.takes_value
        ]
        offered = " ".join([*one.words, *(option.spelling for option in one.options)])
        names = f" $(lender completion {one.names} 2>/dev/null)" if one.names else ""
        cases.append(f'    "{one.verb} "*) words="{offered}{names}" ;;')
    return f"""\
_lender() {{
  local line=${{COMP_LINE:0:COMP_POINT}} words="" cur="" prev
  local -a typed
  read -ra typed <<<"$line"
  [[ $line == *[[:space:]] ]] || {{ cur=${{typed[-1]}}; unset 'typed[-1]'; }}
  prev=${{typed[-1]}}
  case "${{typed[1]-}} $prev" in
    " "*) words="{" ".join(one.verb for one in verbs)}" ;;
{chr(10).join(cases)}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ $cur != *@* ]] || COMPREPLY=("${{COMPREPLY[@]#"${{cur%@*}}@"}}")
}}
complete -o default -F _lender lender
"""


def zsh(verbs: Sequence[Completed]) -> str:
    """For a folder of $fpath, or to be sourced after compinit."""
    summaries = "\n".join(f"    {shlex.quote(f'{one.verb}:{one.summary}')}" for one in verbs)
    cases: list[str] = []
    for one in verbs:
        cases += [
            f'    "{one.verb} {option.spelling}") {_zsh_words(option)} ;;'
            for option in one.options
            if option.takes_value
        ]
        offered = " ".join([*one.words, *(option.spelling for option in one.options)])
        names = (
            f'compadd -- ${{(f)"$(lender completion {one.names} 2>/dev/null)"}}; '
            if one.names
            else ""
        )
        cases.append(f'    "{one.verb} "*) {names}compadd -- {offered} ;;')
    return f"""\
#compdef lender
_lender() {{
  local -a verbs=(
{summaries}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  case "${{words[2]}} ${{words[CURRENT-1]}}" in
{chr(10).join(cases)}
  esac
}}
if [[ $funcstack[1] == _lender ]]; then _lender "$@"; else compdef _lender lender; fi
"""


def fish(verbs: Sequence[Completed]) -> str:
    """For ~/.config/fish/completions."""
    lines = ["complete -c lender -f"]
    for one in verbs:
        summary = shlex.quote(one.summary)
        lines.append(f"complete -c lender -n __fish_use_subcommand -a {one.verb} -d {summary}")
        seen = f"complete -c lender -n '__fish_seen_subcommand_from {one.verb}'"
        if one.words:
            lines.append(f"{seen} -a {shlex.quote(' '.join(one.words))}")
        if one.names:
            lines.append(f"{seen} -a '(lender completion {one.names} 2>/dev/null)'")
        for option in one.options:
            dashes = "-l" if option.spelling.startswith("--") else "-s"
            line = f"{seen} {dashes} {option.spelling.lstrip('-')} -d {shlex.quote(option.help)}"
            if option.names:
                line += f" -x -a '(lender completion {option.names} 2>/dev/null)'"
            elif option.choices:
                line += f" -x -a {shlex.quote(' '.join(option.choices))}"
            elif option.takes_value:
                line += " -r -F"
            lines.append(line)
    return "\n".join(lines) + "\n"


def _bash_words(option: Option) -> str:
    if option.names:
        return f'words="$(lender completion {option.names} 2>/dev/null)"'
    return f'words="{" ".join(option.choices)}"'  # none: bash goes on with files


def _zsh_words(option: Option) -> str:
    if option.names:
        return f'compadd -- ${{(f)"$(lender completion {option.names} 2>/dev/null)"}}'
    return f"compadd -- {' '.join(option.choices)}" if option.choices else "_files"
