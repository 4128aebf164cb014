//! The command line, and the environment behind it. Both are stronger than the file.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
    parser::ValueSource,
};

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
    #[arg(long)]
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
    /// The address of this machine to show first, instead of the one that is found
    #[arg(long, env = "FLOTILLA_ADDRESS", value_name = "ADDRESS", global = true)]
    pub(crate) address: Option<String>,
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
    #[arg(long, env = "FLOTILLA_STORE_PATH", value_name = "FILE", global = true)]
    pub(crate) store_path: Option<PathBuf>,
    /// Metadata of this machine, KEY=VALUE; each wins over the file's
    #[arg(long, env = "FLOTILLA_METADATA", value_name = "KEY=VALUE", value_delimiter = ',', global = true)]
    pub(crate) metadata: Option<Vec<String>>,
    /// Addresses and ports that the API answers on, for example 10.0.0.1:7400; needs --tls-*
    #[arg(long, env = "FLOTILLA_LISTEN", value_name = "ADDRESS", value_delimiter = ',', global = true)]
    pub(crate) listen: Option<Vec<String>>,
    /// The https:// URL at which other machines reach this one
    #[arg(long, env = "FLOTILLA_ADVERTISE", value_name = "URL", global = true)]
    pub(crate) advertise: Option<String>,
    /// The unix socket that the API answers on
    #[arg(long, env = "FLOTILLA_SOCKET", value_name = "FILE", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// Authority that other machines' and users' certificates are checked against
    #[arg(long, env = "FLOTILLA_TLS_CA", value_name = "FILE", global = true)]
    pub(crate) tls_ca: Option<PathBuf>,
    /// This machine's certificate
    #[arg(long, env = "FLOTILLA_TLS_CERTIFICATE", value_name = "FILE", global = true)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "FLOTILLA_TLS_KEY", value_name = "FILE", global = true)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where what lives as long as the boot is kept
    #[arg(long, env = "FLOTILLA_RUN_DIR", value_name = "DIR", hide = true, global = true)]
    pub(crate) run_dir: Option<PathBuf>,
    /// Where what outlives the boot is kept
    #[arg(long, env = "FLOTILLA_STATE_DIR", value_name = "DIR", hide = true, global = true)]
    pub(crate) state_dir: Option<PathBuf>,
}

/// What `--dev` and the options of etcd cannot be said beside, by clap's ids.
const ETCD: [&str; 5] = ["etcd_endpoints", "etcd_ca", "etcd_certificate", "etcd_key", "etcd_user"];

impl Args {
    /// Reads the command line and the environment; ends the program where they cannot be.
    pub(crate) fn read() -> Self {
        let password = std::env::var("FLOTILLA_ETCD_PASSWORD").ok();
        Self::from_words(std::env::args_os(), password).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line. An option of it wins over a variable that contradicts it: clap's own
    /// conflicts count variables as if they had been typed.
    fn from_words(
        words: impl IntoIterator<Item = OsString>,
        password: Option<String>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut args = Self::from_arg_matches(&matches)?;
        // A variable that is set to nothing says nothing.
        args.settings.etcd_password = password.filter(|password| !password.is_empty());
        let etcd = ETCD.into_iter().find(|id| is_typed(&matches, id));
        let refuse = |one: &str, other: &str| {
            let text = format!("the option --{one} cannot be used with --{}", other.replace('_', "-"));
            Err(Self::command().error(ErrorKind::ArgumentConflict, text))
        };
        if args.dev {
            if is_typed(&matches, "config") {
                return refuse("dev", "config");
            }
            if let Some(etcd) = etcd {
                return refuse("dev", etcd);
            }
            args.config = None;
            args.settings.forget_etcd();
        }
        if is_typed(&matches, "store_path") {
            if let Some(etcd) = etcd {
                return refuse("store-path", etcd);
            }
            args.settings.forget_etcd();
        } else if is_typed(&matches, "etcd_endpoints") {
            args.settings.store_path = None;
        }
        Ok(args)
    }
}

/// Tells whether an option was on the command line, the part behind a subcommand included.
fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    let here =
        matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, matches)| is_typed(matches, id))
}

impl SettingArgs {
    fn forget_etcd(&mut self) {
        self.etcd_endpoints = None;
        (self.etcd_ca, self.etcd_certificate, self.etcd_key) = (None, None, None);
        (self.etcd_user, self.etcd_password) = (None, None);
    }
}

/// What else this program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration and say what is in force
    Check,
    /// Give this machine's lease up, at its shutdown, after its units have stopped
    Handover,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Args, String> {
        let words = ["flotillad"].iter().chain(words).map(OsString::from);
        Args::from_words(words, None).map_err(|error| error.to_string())
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for words in [
            &["--dev", "--config", "/x"][..],
            &["--dev", "--etcd-endpoints", "http://a:1"],
            &["--dev", "--etcd-ca", "/x"],
            &["--store-path", "/x", "--etcd-endpoints", "http://a:1"],
            &["--etcd-endpoints", "http://a:1", "check", "--store-path", "/x"],
        ] {
            let said = read(words).unwrap_err();
            assert!(said.contains("cannot be used with --"), "{words:?}: {said}");
        }
        assert!(read(&["--dev", "--store-path", "/x"]).unwrap().dev);
    }

    #[test]
    fn an_empty_password_says_nothing() {
        let read =
            |password: &str| Args::from_words(["flotillad".into()], Some(password.to_owned())).unwrap();
        assert_eq!(read("").settings.etcd_password, None);
        assert_eq!(read("secret").settings.etcd_password.as_deref(), Some("secret"));
    }
}
