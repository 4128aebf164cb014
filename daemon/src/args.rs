//! The command line, and the environment behind it. Both are stronger than the file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The flotilla daemon: runs this machine's share of the cluster.
///
/// Settings come from the configuration file, then from the environment, then from these options;
/// the later wins.
#[derive(Debug, Parser)]
#[command(name = "flotillad", version, max_term_width = 100)]
pub(crate) struct Args {
    /// Configuration file; only the default one may be missing
    #[arg(long, env = "FLOTILLA_CONFIG", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// What to log: a level, or tracing's directives
    #[arg(long, env = "FLOTILLA_LOG", value_name = "FILTER", default_value = "info", global = true)]
    pub(crate) log: String,
    /// Run a cluster of this machine alone, with its store in a file and nothing to configure: as
    /// root with the system's units, as anybody else with the user's own
    #[arg(long, conflicts_with_all = ["config", "etcd_endpoints"])]
    pub(crate) dev: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What a file may say too.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct SettingArgs {
    /// This machine's name, instead of its host name
    #[arg(long, env = "FLOTILLA_NAME", global = true)]
    pub(crate) name: Option<String>,
    /// This machine's id, instead of /etc/machine-id's
    #[arg(long, env = "FLOTILLA_MACHINE_ID", value_name = "ID", global = true)]
    pub(crate) machine_id: Option<String>,
    /// What this daemon does: agent, engine
    #[arg(long, env = "FLOTILLA_ROLES", value_name = "ROLE", value_delimiter = ',', global = true)]
    pub(crate) roles: Option<Vec<String>>,
    /// Prefix of every key in the store
    #[arg(long, env = "FLOTILLA_PREFIX", value_name = "PREFIX", global = true)]
    pub(crate) prefix: Option<String>,
    /// URLs of the etcd members, for example https://10.0.0.1:2379
    #[arg(long, env = "FLOTILLA_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',', global = true)]
    pub(crate) etcd_endpoints: Option<Vec<String>>,
    /// Authority that etcd's certificate is checked against
    #[arg(long, env = "FLOTILLA_ETCD_CA", value_name = "FILE", global = true)]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, env = "FLOTILLA_ETCD_CERTIFICATE", value_name = "FILE", global = true)]
    pub(crate) etcd_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "FLOTILLA_ETCD_KEY", value_name = "FILE", global = true)]
    pub(crate) etcd_key: Option<PathBuf>,
    /// User to etcd; its password comes from FLOTILLA_ETCD_PASSWORD or from the file
    #[arg(long, env = "FLOTILLA_ETCD_USER", value_name = "NAME", global = true)]
    pub(crate) etcd_user: Option<String>,
    // An option would show it to everybody who can list processes, and in the help.
    #[arg(skip)]
    pub(crate) etcd_password: Option<String>,
    /// Keep the store in this file instead of etcd: a cluster of this machine alone
    #[arg(
        long,
        env = "FLOTILLA_STORE_PATH",
        value_name = "FILE",
        conflicts_with = "etcd_endpoints",
        global = true
    )]
    pub(crate) store_path: Option<PathBuf>,
    /// Metadata of this machine, KEY=VALUE; each wins over the file's
    #[arg(long, env = "FLOTILLA_METADATA", value_name = "KEY=VALUE", value_delimiter = ',', global = true)]
    pub(crate) metadata: Option<Vec<String>>,
    /// Where what lives as long as the boot is kept
    #[arg(long, env = "FLOTILLA_RUN_DIR", value_name = "DIR", hide = true, global = true)]
    pub(crate) run_dir: Option<PathBuf>,
    /// Where what outlives the boot is kept
    #[arg(long, env = "FLOTILLA_STATE_DIR", value_name = "DIR", hide = true, global = true)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// What else this program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration and say what is in force
    Check,
    /// Give this machine's lease up, at its shutdown, after its units have stopped
    Handover,
}
