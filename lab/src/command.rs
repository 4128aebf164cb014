//! Running the host's tools, with their own words in the error when they fail.

use std::{
    ffi::OsStr,
    io::Write,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// A command from its words.
pub fn command<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().as_ref().map_or(OsStr::new(""), |word| word.as_ref()));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs the words and returns their standard output, or what they said on failing.
pub fn run<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Result<String> {
    checked(&mut command(words))
}

/// Runs a command and returns its standard output, or what it said on failing.
pub fn checked(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    stdout_of(&format!("{command:?}"), &output)
}

/// Runs a command with `input` on its standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let name = format!("{command:?}");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("starting {name}"))?;
    // Both ends here are small (a tool's answer), so writing first cannot block
    // on an unread output pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().with_context(|| format!("waiting for {name}"))?;
    let answer = stdout_of(&name, &output)?;
    written.with_context(|| format!("writing to {name}"))?;
    Ok(answer)
}

/// The standard output of something that succeeded, else an error with its words.
pub fn stdout_of(what: &str, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{what} ended with {}: {}{}", output.status, stderr.trim(), stdout.trim());
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_the_words_of_the_tool() {
        let error = run(["sh", "-c", "echo no such thing >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('3'), "{error}");
        assert_eq!(run(["echo", "well"]).unwrap(), "well\n");
    }

    #[test]
    fn input_arrives() {
        assert_eq!(with_input(&mut command(["cat"]), b"bytes").unwrap(), "bytes");
    }
}
