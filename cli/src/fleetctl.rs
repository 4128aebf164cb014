//! What is left of fleetctl's command line that flotctl has no use for: taken where it
//! does no harm, explained where it cannot be meant any more.
//!
//! Nothing of it is shown in help; docs/coming-from-fleet.md lists it.

use std::ffi::OsString;

use crate::{
    exit::{Exit, Failure},
    paint, print,
};

/// fleetctl's variables, and ours that are stronger. The rest of what fleetctl read is explained in
/// docs/coming-from-fleet.md.
const OLD_VARIABLES: [(&str, &str); 11] = [
    ("FLOTCTL_ENDPOINT", "FLEETCTL_ENDPOINT"),
    ("FLOTCTL_TUNNEL", "FLEETCTL_TUNNEL"),
    ("FLOTCTL_SSH_USERNAME", "FLEETCTL_SSH_USERNAME"),
    ("FLOTCTL_SSH_TIMEOUT", "FLEETCTL_SSH_TIMEOUT"),
    ("FLOTCTL_STRICT_HOST_KEY_CHECKING", "FLEETCTL_STRICT_HOST_KEY_CHECKING"),
    ("FLOTCTL_KNOWN_HOSTS_FILE", "FLEETCTL_KNOWN_HOSTS_FILE"),
    ("FLOTCTL_CA", "FLEETCTL_CA_FILE"),
    ("FLOTCTL_CERTIFICATE", "FLEETCTL_CERT_FILE"),
    ("FLOTCTL_KEY", "FLEETCTL_KEY_FILE"),
    ("FLOTCTL_REQUEST_TIMEOUT", "FLEETCTL_REQUEST_TIMEOUT"),
    ("FLOTCTL_DEBUG", "FLEETCTL_DEBUG"),
];

/// fleetctl's options of every command that flotctl has no use for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Options {
    #[arg(long, global = true, hide = true, value_parser = driver)]
    driver: Option<()>,

    #[arg(
        long,
        global = true,
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = experimental_api
    )]
    experimental_api: Option<()>,

    #[arg(long, global = true, hide = true)]
    etcd_key_prefix: Option<String>,

    #[arg(long, global = true, hide = true, value_name = "FILE")]
    etcd_cafile: Option<String>,

    #[arg(long, global = true, hide = true, value_name = "FILE")]
    etcd_certfile: Option<String>,

    #[arg(long, global = true, hide = true, value_name = "FILE")]
    etcd_keyfile: Option<String>,
}

/// The arguments of a command that takes any, to say why it is gone.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Anything {
    #[arg(num_args = 0.., allow_hyphen_values = true, trailing_var_arg = true)]
    _arguments: Vec<OsString>,
}

/// fleetctl's `--sign` of the commands that create units.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Signing {
    #[arg(long, hide = true)]
    sign: bool,
}

impl Options {
    /// Says what has no effect, beside the output: with fleetctl's own default driver it had none either.
    pub(crate) fn tell(&self) {
        let given = [
            (self.etcd_key_prefix.is_some(), "--etcd-key-prefix"),
            (self.etcd_cafile.is_some(), "--etcd-cafile"),
            (self.etcd_certfile.is_some(), "--etcd-certfile"),
            (self.etcd_keyfile.is_some(), "--etcd-keyfile"),
        ];
        for (_, option) in given.iter().filter(|(given, _)| *given) {
            let why = "has no effect: flotctl asks flotillad, which alone speaks to etcd";
            print::tell(paint::dim(format!("{option} {why}")));
        }
    }
}

impl Signing {
    /// Refuses a promise that nobody keeps.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        if self.sign {
            let why = "--sign: units are not signed; fleet itself gave signatures up, and who may submit units is \
                       decided by certificates and by the socket's group";
            return Err(Failure::error(Exit::Usage, why));
        }
        Ok(())
    }
}

/// Says what became of `fleetctl verify`.
pub(crate) fn verify() -> anyhow::Error {
    let why = "verify: units are not signed; fleet itself gave signatures up. `flotctl submit` checks a unit file, \
               and `flotctl cat` prints what the cluster has";
    Failure::error(Exit::Usage, why)
}

/// Returns a command line that reads fleetctl's variables where ours are not set. One of ours that is
/// set to nothing is as good as not given, and hides fleetctl's.
pub(crate) fn with_old_variables(
    command: clap::Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> clap::Command {
    command.mut_args(|argument| {
        let own = argument.get_env().and_then(|name| name.to_str()).map(str::to_owned);
        let Some((own, old)) = own.and_then(|own| OLD_VARIABLES.into_iter().find(|(name, _)| *name == own))
        else {
            return argument;
        };
        match (variable(own), variable(old)) {
            (Some(value), _) if value.is_empty() => argument.env(None::<&'static str>),
            (None, Some(value)) if !value.is_empty() => argument.env(old),
            _ => argument,
        }
    })
}

fn driver(name: &str) -> Result<(), String> {
    if name.eq_ignore_ascii_case("api") {
        return Ok(());
    }
    Err("flotctl has no drivers: it asks the API of a flotillad, never etcd; leave --driver out, and name a machine \
         of the cluster with --endpoint or --tunnel"
        .to_owned())
}

fn experimental_api(value: &str) -> Result<(), String> {
    match value {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(()),
        _ => Err("the API is all that there is; leave --experimental-api out".to_owned()),
    }
}

#[cfg(test)]
mod tests;
