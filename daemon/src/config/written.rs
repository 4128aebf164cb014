//! The configuration as it is written: every option may be missing, nothing is checked but names
//! and types.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::resources::WrittenAmount;
use crate::args::SettingArgs;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Written {
    pub(super) name: Option<String>,
    pub(super) machine_id: Option<Spanned<String>>,
    pub(super) roles: Option<Vec<Spanned<String>>>,
    pub(super) address: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) metadata: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub(super) resources: BTreeMap<Spanned<String>, WrittenAmount>,
    #[serde(default)]
    pub(super) store: WrittenStore,
    #[serde(default)]
    pub(super) api: WrittenApi,
    pub(super) tls: Option<Spanned<WrittenTls>>,
    #[serde(skip)]
    pub(super) run_dir: Option<PathBuf>,
    #[serde(skip)]
    pub(super) state_dir: Option<PathBuf>,
    #[serde(skip)]
    pub(super) metadata_given: Vec<String>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenStore {
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) etcd: Option<Spanned<WrittenEtcd>>,
    pub(super) embedded: Option<Spanned<WrittenEmbedded>>,
}

/// `[store.etcd]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenEtcd {
    #[serde(default)]
    pub(super) endpoints: Vec<Spanned<String>>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) password_file: Option<Spanned<PathBuf>>,
}

/// `[store.embedded]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenEmbedded {
    pub(super) path: Option<PathBuf>,
}

/// `[api]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenApi {
    pub(super) listen: Option<Spanned<OneOrMore>>,
    pub(super) advertise: Option<Spanned<String>>,
    pub(super) socket: Option<PathBuf>,
    #[serde(default)]
    pub(super) insecure_loopback: bool,
}

/// One address, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// `[tls]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WrittenTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// What comes from the command line or the environment has no place in the file.
fn given<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

impl Written {
    /// Lets the command line and the environment win.
    pub(super) fn overridden_by(mut self, args: &SettingArgs) -> Self {
        self.name = args.name.clone().or(self.name);
        self.machine_id = args.machine_id.clone().map(given).or(self.machine_id);
        self.address = args.address.clone().map(given).or(self.address);
        self.roles = args.roles.clone().map(|roles| roles.into_iter().map(given).collect()).or(self.roles);
        self.store.prefix = args.prefix.clone().map(given).or(self.store.prefix);
        self.run_dir = args.run_dir.clone();
        self.state_dir = args.state_dir.clone();
        self.metadata_given = args.metadata.clone().unwrap_or_default();
        self.override_api(args);
        if let Some(path) = &args.store_path {
            self.store.etcd = None;
            self.store.embedded = Some(given(WrittenEmbedded { path: Some(path.clone()) }));
        }
        let any = args.etcd_endpoints.is_some()
            || args.etcd_ca.is_some()
            || args.etcd_certificate.is_some()
            || args.etcd_key.is_some()
            || args.etcd_user.is_some();
        if args.etcd_endpoints.is_some() {
            self.store.embedded = None;
        }
        if any && self.store.etcd.is_none() {
            self.store.etcd = Some(given(WrittenEtcd::default()));
        }
        if let Some(etcd) = self.store.etcd.as_mut().map(Spanned::get_mut) {
            if let Some(endpoints) = &args.etcd_endpoints {
                etcd.endpoints = endpoints.iter().cloned().map(given).collect();
            }
            etcd.ca = args.etcd_ca.clone().or(etcd.ca.take());
            etcd.certificate = args.etcd_certificate.clone().or(etcd.certificate.take());
            etcd.key = args.etcd_key.clone().or(etcd.key.take());
            etcd.user = args.etcd_user.clone().or(etcd.user.take());
            if let Some(password) = &args.etcd_password {
                (etcd.password, etcd.password_file) = (Some(password.clone()), None);
            }
        }
        self
    }

    fn override_api(&mut self, args: &SettingArgs) {
        let api = &mut self.api;
        api.listen = args.listen.clone().map(|listen| given(OneOrMore::More(listen))).or(api.listen.take());
        api.advertise = args.advertise.clone().map(given).or(api.advertise.take());
        api.socket = args.socket.clone().or(api.socket.take());
        if args.tls_ca.is_some() || args.tls_certificate.is_some() || args.tls_key.is_some() {
            let tls = self.tls.get_or_insert_with(|| given(WrittenTls::default())).get_mut();
            tls.ca = args.tls_ca.clone().or(tls.ca.take());
            tls.certificate = args.tls_certificate.clone().or(tls.certificate.take());
            tls.key = args.tls_key.clone().or(tls.key.take());
        }
    }
}
