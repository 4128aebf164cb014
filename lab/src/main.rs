//! `flotilla-lab`: the lab for people, behind `cargo xtask lab`.
//!
//! Owns the words of the command line. What they do is in the library, which
//! finds a lab by its name, so every command is a process of its own.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use flotilla_lab::{Image, Installation, Lab, Machine, Name, Node, Options};

/// A cluster of real systemd machines on this computer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask lab", version)]
struct Arguments {
    /// The directory with the images and etcd, in which labs live
    #[arg(long, default_value = "target/lab")]
    directory: PathBuf,
    /// Which lab, when there are several
    #[arg(long, global = true, default_value = "dev")]
    name: Name,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a lab and leave it running
    Up {
        /// How many machines: m1, m2, ..
        #[arg(long, default_value_t = 3)]
        machines: usize,
        /// How many etcd members: etcd1, ..
        #[arg(long, default_value_t = 1)]
        etcd: usize,
        /// `plain`, or `user` for machines with logins and user managers
        #[arg(long, default_value = "plain", value_parser = image)]
        image: Image,
        /// Programs for /usr/local/bin of every machine
        #[arg(long)]
        program: Vec<PathBuf>,
    },
    /// End the lab; nothing of it is left
    Down,
    /// Make a flotilla cluster of a lab that has just come up
    Cluster {
        /// The directory with flotillad and flotctl
        #[arg(long, default_value = "target/debug", value_name = "DIR")]
        programs: PathBuf,
        /// The directory with flotilla's service files
        #[arg(long, default_value = "dist", value_name = "DIR")]
        services: PathBuf,
        /// A machine's metadata (can be repeated)
        #[arg(long, value_name = "MACHINE:KEY=VALUE", value_parser = metadata)]
        metadata: Vec<(String, String, String)>,
    },
    /// Show what runs, and where it is reached
    Status,
    /// Open a shell in a machine
    Shell {
        /// The machine
        machine: String,
    },
    /// Run a command in a machine
    Exec {
        /// The machine
        machine: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Copy files of the host into a directory of a machine
    Copy {
        /// The machine
        machine: String,
        /// The directory in the machine; made if it is missing
        directory: String,
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take the power from a machine or etcd member
    Kill {
        /// Machine or member
        node: String,
    },
    /// Switch a machine or etcd member on again
    Boot {
        /// Machine or member
        node: String,
    },
    /// Shut a machine down in order
    Poweroff {
        /// The machine
        machine: String,
    },
    /// Reboot a machine in order
    Reboot {
        /// The machine
        machine: String,
    },
    /// Pull the network cable of a machine or etcd member
    Cut {
        /// Machine or member
        node: String,
        /// Cut it from this one only
        #[arg(long)]
        from: Option<String>,
        /// With --from: drop only what `node` sends
        #[arg(long, requires = "from")]
        one_way: bool,
    },
    /// Put the cable back; without a name, all cables, and end the cuts between pairs
    Heal {
        /// Machine or member
        node: Option<String>,
    },
    /// Stop every process of a machine or etcd member where it is
    Freeze {
        /// Machine or member
        node: String,
    },
    /// Let the processes go on
    Thaw {
        /// Machine or member
        node: String,
    },
    /// Put a program into /usr/local/bin of every machine
    Install {
        /// The program
        program: PathBuf,
    },
    /// Print a machine's journal, or an etcd member's log
    Logs {
        /// Machine or member
        node: String,
        /// Only these units
        #[arg(long, short)]
        unit: Vec<String>,
    },
    /// Ask the lab's etcd
    Etcdctl {
        /// What to ask, as etcdctl takes it
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { directory, name, command } = arguments;
    match command {
        Command::Up { machines, etcd, image, program } => {
            let options = Options {
                machines,
                members: etcd,
                image,
                programs: program,
                ..Options::new(directory, name)
            };
            up(&options)?;
        }
        Command::Down => {
            let start = Instant::now();
            Lab::remove(&directory, &name)?;
            say(&format!("the lab {name} is down, nothing is left of it ({})\n", seconds(start.elapsed())))?;
        }
        other => return in_lab(&Lab::attach(&directory, &name)?, other),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.directory)?;
    let start = Instant::now();
    let lab = Lab::up(options)?;
    let took = seconds(start.elapsed());
    let shown = status(&lab);
    // First this: nothing that happens to our output may take the lab down again.
    lab.leave_running()?;
    say(&format!("the lab {} is up ({took})\n{shown}", options.name))
}

/// The commands that a running lab is needed for.
fn in_lab(lab: &Lab, command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { .. } | Command::Down => bail!("not a command for a running lab"),
        Command::Cluster { programs, services, metadata } => {
            let installation = Installation::new(programs, services);
            let installation = metadata.iter().fold(installation, |installation, (machine, key, value)| {
                installation.with_metadata(machine, key, value)
            });
            let start = Instant::now();
            lab.make_cluster(&installation)?;
            say(&format!("the cluster has formed ({})\n", seconds(start.elapsed())))?;
        }
        Command::Status => say(&status(lab))?,
        Command::Shell { machine } => match lab.machine(&machine)?.become_command(&["/bin/bash", "-l"])? {},
        Command::Exec { machine, words } => return exec(lab, &machine, &words),
        Command::Copy { machine, directory, files } => copy(lab.machine(&machine)?, &directory, &files)?,
        Command::Kill { node } => match lab.member(&node) {
            Ok(member) => member.kill()?,
            Err(_) => lab.machine(&node)?.kill()?,
        },
        Command::Boot { node } => match lab.member(&node) {
            Ok(member) => member.start().and_then(|()| member.wait_healthy())?,
            Err(_) => lab.machine(&node)?.boot()?,
        },
        Command::Poweroff { machine } => lab.machine(&machine)?.poweroff()?,
        Command::Reboot { machine } => lab.machine(&machine)?.reboot()?,
        Command::Cut { node, from: None, .. } => find(lab, &node)?.cut()?,
        Command::Cut { node, from: Some(other), one_way: true } => {
            find(lab, &node)?.cut_one_way(find(lab, &other)?)?
        }
        Command::Cut { node, from: Some(other), one_way: false } => {
            find(lab, &node)?.cut_from(find(lab, &other)?)?
        }
        Command::Heal { node: Some(node) } => find(lab, &node)?.heal()?,
        Command::Heal { node: None } => heal_all(lab)?,
        Command::Freeze { node } => find(lab, &node)?.freeze()?,
        Command::Thaw { node } => find(lab, &node)?.thaw()?,
        Command::Install { program } => lab.install(&program)?,
        Command::Logs { node, unit } => say(&logs(lab, &node, &unit)?)?,
        Command::Etcdctl { words } => say(&lab.etcdctl(&borrowed(&words))?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status(lab: &Lab) -> String {
    let members = lab
        .members()
        .iter()
        .map(|member| format!("{:<7} {:<15} {}\n", member.name(), state(member), member.endpoint()));
    let machines = lab.machines().iter().map(|machine| {
        format!("{:<7} {:<15} {:<13} {}\n", machine.name(), state(machine), machine.address(), machine.id())
    });
    members.chain(machines).collect()
}

/// Prints; whoever reads may have read enough.
fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn state(node: &Node) -> String {
    let power = if node.is_running() { "running" } else { "off" };
    if node.is_cut() { format!("{power}, cut") } else { power.to_owned() }
}

/// Runs for as long as it likes, with our output: a journal may be followed.
fn exec(lab: &Lab, machine: &str, words: &[String]) -> Result<ExitCode> {
    let status = lab.machine(machine)?.command(&borrowed(words))?.status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn copy(machine: &Machine, directory: &str, files: &[PathBuf]) -> Result<()> {
    for file in files {
        let Some(name) = file.file_name() else { bail!("{} is no file", file.display()) };
        machine.copy_in(file, &format!("{directory}/{}", name.to_string_lossy()))?;
    }
    Ok(())
}

fn heal_all(lab: &Lab) -> Result<()> {
    lab.heal_pairs()?;
    lab.nodes().filter(|node| node.is_cut()).try_for_each(Node::heal)
}

fn logs(lab: &Lab, node: &str, units: &[String]) -> Result<String> {
    match lab.member(node) {
        Ok(member) => Ok(member.log()),
        Err(_) => lab.machine(node)?.journal(&borrowed(units)),
    }
}

fn find<'a>(lab: &'a Lab, name: &str) -> Result<&'a Node> {
    match lab.nodes().find(|node| node.name() == name) {
        Some(node) => Ok(node),
        None => bail!("no machine or etcd member {name:?}; `cargo xtask lab status` lists them"),
    }
}

fn image(word: &str) -> Result<Image> {
    match word {
        "plain" => Ok(Image::Plain),
        "user" => Ok(Image::User),
        other => bail!("{other:?} is neither `plain` nor `user`"),
    }
}

fn metadata(word: &str) -> Result<(String, String, String)> {
    let parts = word.split_once(':').and_then(|(machine, pair)| Some((machine, pair.split_once('=')?)));
    let Some((machine, (key, value))) = parts else {
        bail!("{word:?} is not MACHINE:KEY=VALUE, for example m1:disk=ssd");
    };
    Ok((machine.to_owned(), key.to_owned(), value.to_owned()))
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
