//! `flotctl completion`: a script that makes the shell complete commands, options and unit names.

use std::io::Write as _;

use clap::ValueEnum;

/// bash's script. clap's own asks with the words that bash makes, and bash divides them at `@`, `=` and `:` too:
/// no instance of a template and no URL would ever be completed. Here blanks divide words, and of what is
/// offered bash gets what stands behind its own division.
const BASH: &str = r#"_flotctl() {
    local line="${COMP_LINE:0:COMP_POINT}" words last before
    IFS=$' \t\n' read -ra words <<<"$line"
    if [[ "$line" == *[[:blank:]] ]]; then
        words+=("")
    fi
    last=$((${#words[@]} - 1))
    # A quote that is still open is the shell's.
    words[last]="${words[last]#[\"\']}"
    before="${words[last]%"$2"}"
    IFS=$'\013' read -r -d '' -a COMPREPLY < <(
        _CLAP_IFS=$'\013' \
        _CLAP_COMPLETE_INDEX="$last" \
        _CLAP_COMPLETE_COMP_TYPE="$COMP_TYPE" \
        _CLAP_COMPLETE_SPACE=true \
        COMPLETE=bash \
        flotctl -- "${words[@]}" 2>/dev/null
    )
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
    if [[ "${COMPREPLY[0]-}" == *[=/:] ]]; then
        compopt -o nospace
    fi
}
if ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))); then
    complete -o nosort -F _flotctl flotctl
else
    complete -F _flotctl flotctl
fi
"#;

/// Prints a completion script.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    use clap_complete::env::{EnvCompleter, Fish, Zsh};
    let mut out = std::io::stdout().lock();
    let completer: &dyn EnvCompleter = match args.shell {
        Shell::Bash => return Ok(out.write_all(BASH.as_bytes())?),
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    completer.write_registration("COMPLETE", "flotctl", "flotctl", "flotctl", &mut out)?;
    Ok(())
}
