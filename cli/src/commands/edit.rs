//! `flotctl edit`: a unit's file in the user's editor, and back to the cluster.
//!
//! What was written is never lost: whatever keeps it from being given to the
//! cluster, it stays in a file whose path is told. The cluster takes it only if nobody
//! changed the unit meanwhile.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use flotilla_api::{action::Outcome, client::ClientError, error::ErrorKind, unit::UnitContent};
use flotilla_units::{UnitFile, UnitName};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::submit;
use crate::{
    args::Output,
    connection::Cluster,
    exit::{Exit, Failure},
    print,
    selector::{is_glob, mangle},
    text, unified,
};

/// Where an editor is looked for: what a person says, then what Debian has, then what POSIX has.
const EDITORS: [&str; 2] = ["VISUAL", "EDITOR"];
const LAST_EDITOR: &str = "$(command -v editor || command -v vi)";

/// Changes a unit's file.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The unit; of an instance without a text of its own, its template is edited
    #[arg(value_name = "UNIT", add = crate::complete::unit_files())]
    unit: String,

    /// Do not ask before it is given to the cluster
    #[arg(long, short)]
    yes: bool,
}

/// What a person wants done with what they wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Apply,
    Edit,
    Leave,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    if is_glob(&args.unit) {
        return Err(Failure::error(Exit::Usage, "edit takes one unit, no pattern"));
    }
    let before = content(cluster, &mangle(&args.unit)).await?;
    let name = before.name.clone();
    let mut signals = Signals::new()?;
    let draft = Draft::new(&name, &before.text)?;
    let asks = !args.yes && io::stdin().is_terminal();
    loop {
        draft.edit(&mut signals).await?;
        let bytes = fs::read(&draft.path).with_context(|| format!("cannot read {}", draft.path.display()))?;
        if bytes == before.text.as_bytes() {
            draft.remove();
            print::tell(format_args!("{name} unchanged"));
            return Ok(Exit::Done);
        }
        let (text, question) = match check(&name, &bytes) {
            Ok(text) => {
                unified::print(name.as_str(), Some(&before.text), Some(&text), unified::Other::Edited)?;
                (Some(text), "Give it to the cluster? [y]es, [e]dit again, [N]o: ")
            }
            Err(why) => {
                for line in text::lines(&why) {
                    print::tell(line);
                }
                (None, "Edit it again? [Y]es, [n]o: ")
            }
        };
        let answer = match &text {
            _ if asks => {
                draft.unless_ended(&mut signals, ask(question, text.is_some()), "interrupted").await??
            }
            Some(_) if args.yes => Answer::Apply,
            Some(_) => {
                let why = "there is nobody to ask whether it is meant; --yes says so";
                return Err(draft.kept(Exit::Usage, why));
            }
            None => return Err(draft.kept(Exit::Failed, "the unit file is not valid")),
        };
        match (answer, text) {
            (Answer::Apply, Some(text)) => {
                let given = cluster.client().replace_content(before.name.as_str(), &text, before.revision);
                let why = "interrupted, and it is not known whether the cluster took it";
                let given = draft.unless_ended(&mut signals, given, why).await?;
                return answered(draft, &before, given, output);
            }
            (Answer::Edit, _) | (Answer::Apply, None) => {}
            (Answer::Leave, _) => return Err(draft.kept(Exit::Failed, "nothing was changed")),
        }
    }
}

/// Returns a unit's text under the name of the unit that has it: an instance's is its template's, unless it was
/// given one of its own.
async fn content(cluster: &Cluster, word: &str) -> anyhow::Result<UnitContent> {
    let name: UnitName = word.parse().map_err(|e| Failure::error(Exit::Usage, format!("{e}")))?;
    let read = async |name: UnitName| cluster.read(async |client| client.content(name.as_str()).await).await;
    let found = match (read(name.clone()).await, name.template()) {
        // An instance that was never made has no text, and its template may be there.
        (Err(e), Some(template)) if e.kind() == Some(ErrorKind::NotFound) => {
            UnitContent { template: Some(template.clone()), ..read(template).await? }
        }
        (found, _) => found?,
    };
    let Some(template) = found.template.clone() else { return Ok(found) };
    print::tell(format_args!("{name} has its text from {template}, which all its instances follow"));
    Ok(UnitContent { name: template, template: None, ..found })
}

/// Checks what was written as the cluster does, with the unit's name in the findings' places.
fn check(name: &UnitName, bytes: &[u8]) -> Result<String, String> {
    let refuse =
        |problems: flotilla_units::Problems| format!("{name} is not valid\n{}", problems.render().trim_end());
    let file = UnitFile::parse(name.as_str(), bytes).map_err(refuse)?;
    file.validate(name).map_err(refuse)?;
    submit::tell_without_effect(name, &file);
    Ok(file.text().to_owned())
}

/// Tells what became of a text that was given to the cluster.
fn answered(
    draft: Draft,
    before: &UnitContent,
    given: Result<Outcome, ClientError>,
    output: Output,
) -> anyhow::Result<Exit> {
    let outcome = match given {
        Ok(outcome) => outcome,
        Err(e) if e.kind() == Some(ErrorKind::RevisionDiffers) => {
            let why = format!("{} was changed by somebody else meanwhile, and not by this edit", before.name);
            return Err(draft.kept(Exit::Failed, &why));
        }
        Err(e) => {
            draft.tell_kept();
            return Err(e.into());
        }
    };
    draft.remove();
    if output == Output::Json {
        print::json(&outcome)?;
        return Ok(Exit::Done);
    }
    for unit in &outcome.units {
        print::line(format_args!("{} {}", unit.unit, if unit.changed { "updated" } else { "unchanged" }))?;
    }
    Ok(Exit::Done)
}

/// Asks on the terminal. Nothing said means the safe thing: to go on writing what is not valid, and to
/// leave alone what is. The answer is awaited on a thread of its own, which nobody waits for if it never comes.
async fn ask(question: &'static str, is_valid: bool) -> anyhow::Result<Answer> {
    let read = move || {
        let mut err = anstream::stderr().lock();
        write!(err, "{question}")?;
        err.flush()?;
        drop(err);
        let mut line = String::new();
        let ended = io::stdin().lock().read_line(&mut line)? == 0;
        io::Result::Ok(match (line.trim().to_ascii_lowercase().as_str(), is_valid) {
            _ if ended => Answer::Leave,
            ("y" | "yes", true) => Answer::Apply,
            ("e" | "edit", _) | ("y" | "yes" | "", false) => Answer::Edit,
            _ => Answer::Leave,
        })
    };
    Ok(on_a_thread(read).await?)
}

/// Does what blocks, while signals are heard.
async fn on_a_thread<T: Send + 'static>(
    blocks: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().spawn(move || {
        // Whoever was to be told has ended.
        let _nobody_listens = tell.send(blocks());
    })?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that was asked ended")))
}

/// The signals that end a program, taken so that nobody is left without a word about what they wrote.
struct Signals {
    interrupt: Signal,
    others: [Signal; 2],
}

impl Signals {
    fn new() -> io::Result<Self> {
        let others = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, others })
    }

    /// Waits for a signal that is not meant for the editor.
    async fn ended(&mut self) {
        let [terminate, hangup] = &mut self.others;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Waits for any.
    async fn any(&mut self) {
        let [terminate, hangup] = &mut self.others;
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }

    /// Forgets what was pressed in the editor.
    fn forget(&mut self) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while self.interrupt.poll_recv(&mut context).is_ready() {}
    }
}

/// What a person is writing, in a folder that nobody else may look into.
struct Draft {
    folder: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn new(name: &UnitName, text: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("flotctl-edit-{:016x}", rand::random::<u64>()));
        let shown = folder.display().to_string();
        DirBuilder::new().mode(0o700).create(&folder).with_context(|| format!("cannot make {shown}"))?;
        // An editor knows by the name what it is.
        let path = folder.join(name.as_str());
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { folder, path })
    }

    /// Runs the editor until it ends. A shell does it: an editor may have options of its own. Ctrl-C is the
    /// editor's affair, though the terminal sends it to both.
    async fn edit(&self, signals: &mut Signals) -> anyhow::Result<()> {
        let chosen = EDITORS.iter().filter_map(std::env::var_os).find(|editor| !editor.is_empty());
        let mut line = chosen.unwrap_or_else(|| OsString::from(LAST_EDITOR));
        line.push(" \"$1\"");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&line).arg("sh").arg(&self.path);
        let status = tokio::select! {
            status = on_a_thread(move || shell.status()) => status,
            () = signals.ended() => return Err(self.kept(Exit::Interrupted, "ended by a signal")),
        };
        signals.forget();
        let status = status.context("cannot run a shell for the editor")?;
        if status.success() {
            return Ok(());
        }
        let shown = Path::new(&line).display().to_string();
        let why = format!("the editor ended with {status} ({shown}); nothing was changed, set EDITOR to one");
        Err(self.kept(Exit::Failed, &why))
    }

    /// Waits for something, unless a signal comes first.
    async fn unless_ended<T>(
        &self,
        signals: &mut Signals,
        comes: impl Future<Output = T>,
        why: &str,
    ) -> anyhow::Result<T> {
        tokio::select! {
            it = comes => Ok(it),
            () = signals.any() => Err(self.kept(Exit::Interrupted, why)),
        }
    }

    /// An error that tells where the text is.
    fn kept(&self, exit: Exit, why: &str) -> anyhow::Error {
        Failure::error(exit, format!("{why}; what you wrote is in {}", self.path.display()))
    }

    fn tell_kept(&self) {
        print::tell(format_args!("what you wrote is in {}", self.path.display()));
    }

    /// A folder that stays is some bytes in a folder for what is temporary, and nobody's trouble.
    fn remove(&self) {
        let _stays = fs::remove_dir_all(&self.folder);
    }
}
