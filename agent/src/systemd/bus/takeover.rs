//! Taking over units of the machine's own while they run.
//!
//! ```text
//! survey ─▶ copy, ledger ─▶ own file and link ─▶ remove the originals ─▶ Reload ─▶ ledger ─▶ evidence ─▶ ledger
//!           `taking`        below /run           (/etc comes before       │        `ours`    started    done
//!                                                 /run until then)        └─ from here on it is flotilla's
//! ```
//!
//! Every step may be taken again, and whoever comes after a crash goes on from the ledger; before the
//! reload it may be taken back as well. No step stops or starts anything: systemd keeps what runs
//! through a reload.

use async_trait::async_trait;
use flotilla_units::{ContentHash, UnitFile, UnitName};

use super::{DbusSystemd, Properties, ask::properties_of};
use crate::{
    adoption::{AdoptionError, AdoptionSource, Found},
    systemd::{
        Evidence, SystemdError,
        ledger::{Ledger, Record},
        survey::{self, Loaded},
    },
};

#[async_trait]
impl AdoptionSource for DbusSystemd {
    async fn survey(&self, unit: &UnitName) -> Result<Found, AdoptionError> {
        let refuse = |why| AdoptionError::Refused { unit: unit.clone(), why };
        // Before systemd is asked, which loads what it is asked about.
        if let Some(why) = crate::adoption::Refusal::of_name(unit) {
            return Err(refuse(why));
        }
        let disk = self.files.read(unit)?;
        if disk.file.is_some() || disk.evidence.is_some() {
            return Err(refuse(crate::adoption::Refusal::Ours));
        }
        let loaded = self.look(unit).await?;
        self.examine(unit, &loaded, true).await?.map_err(refuse)
    }
}

impl DbusSystemd {
    /// Takes a unit over, or goes on with it; see [`Systemd::take_over`](crate::systemd::Systemd::take_over).
    pub(super) async fn take_unit_over(
        &self,
        unit: &UnitName,
        text: &str,
        evidence: &Evidence,
    ) -> Result<(), SystemdError> {
        let (ledger, hash) = (Ledger::of(unit, &self.layout), ContentHash::of(text.as_bytes()));
        let mut begun = begun(&ledger).await?;
        if begun.as_ref().is_some_and(|record| record.hash != hash && !record.ours) {
            self.let_unit_go(unit).await?;
            begun = None;
        }
        let (record, text) = match begun {
            Some(record) => (record, text.to_owned()),
            None => match self.begin(unit, text, &ledger).await? {
                Some(begun) => begun,
                None => return Ok(()),
            },
        };
        if !record.ours {
            self.carry_out(unit, &text, &ledger, &record).await?;
        }
        self.note_taken(unit, evidence, &ledger, &record).await
    }

    /// Copies and notes what is to be taken, and returns it with the text that it runs with; `None` when the
    /// machine has nothing of its own to take.
    async fn begin(
        &self,
        unit: &UnitName,
        text: &str,
        ledger: &Ledger,
    ) -> Result<Option<(Record, String)>, SystemdError> {
        let loaded = self.look(unit).await?;
        if loaded.load == "not-found" || self.files.is_ours(unit, &loaded.fragment) {
            return Ok(None);
        }
        // It was taken over and has left, or the machine has booted: a package's file is not in the way.
        if !loaded.runs() && ledger.overrides(loaded.fragment.as_ref()) {
            return Ok(None);
        }
        let found = self.examine(unit, &loaded, false).await?;
        let found = found.map_err(|why| not_taken(unit, why.to_string()))?;
        if !runs_alike(unit, &found.text, text) {
            let why = "its files are others here than those that it was adopted with; destroy it in the cluster and \
                       adopt it anew";
            return Err(not_taken(unit, why.to_owned()));
        }
        let (ledger, invocation) = (ledger.clone(), loaded.invocation);
        // What it runs with, which is written where it is loaded; another text that runs alike comes later.
        let (text, hash) = (found.text.clone(), ContentHash::of(found.text.as_bytes()));
        let record = blocking(move || ledger.begin(&found, hash, invocation)).await?;
        Ok(Some((record, text)))
    }

    async fn carry_out(
        &self,
        unit: &UnitName,
        text: &str,
        ledger: &Ledger,
        record: &Record,
    ) -> Result<(), SystemdError> {
        self.shared.add(unit);
        self.shared.doubt(unit);
        let under_way = self.installs.begin();
        self.files.install(unit, text)?;
        let (of, what) = (ledger.clone(), record.clone());
        if !blocking(move || of.take(&what)).await? {
            self.let_unit_go(unit).await?;
            let why = "its files were changed on the machine while it was being taken over".to_owned();
            return Err(not_taken(unit, why));
        }
        // A link of the machine's own may have been where flotilla's belongs. All are read by the reload.
        self.files.install(unit, text)?;
        drop(under_way);
        self.reload().await?;
        let after = self.look(unit).await?;
        if !self.files.is_ours(unit, &after.fragment) {
            return Err(not_taken(unit, format!("after a reload systemd has it from {:?}", after.fragment)));
        }
        if after.invocation != record.invocation {
            tracing::info!(%unit, "it was started anew on the machine while it was being taken over");
        }
        let (of, what) = (ledger.clone(), record.clone());
        // Before the evidence: what there is evidence of is never given back.
        blocking(move || of.pass_over(&what)).await
    }

    /// Writes the evidence of what was taken over, if it runs, and that it is done.
    async fn note_taken(
        &self,
        unit: &UnitName,
        evidence: &Evidence,
        ledger: &Ledger,
        record: &Record,
    ) -> Result<(), SystemdError> {
        let loaded = self.look(unit).await?;
        self.shared.doubt(unit);
        // After a boot it may be there as a package has it.
        if loaded.runs() && self.files.is_ours(unit, &loaded.fragment) {
            self.files.write_evidence(unit, &Evidence { hash: record.hash, ..evidence.clone() })?;
            self.files.mark_started(unit)?;
        }
        let (ledger, record) = (ledger.clone(), record.clone());
        blocking(move || ledger.finish(&record)).await
    }

    /// Finishes every taking over that there is evidence of, so that it is not taken back when its unit
    /// leaves. One that cannot be is told, and finished when its unit leaves.
    pub(super) async fn settle_ledgers(&self) -> Result<(), SystemdError> {
        for unit in self.files.names()? {
            if self.files.read(&unit)?.evidence.is_some()
                && let Err(error) = self.settle_ledger(&unit).await
            {
                tracing::warn!(%unit, %error, "it was taken over, which could not be noted yet");
            }
        }
        Ok(())
    }

    /// Finishes the taking over of a unit that there is evidence of.
    pub(super) async fn settle_ledger(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let ledger = Ledger::of(unit, &self.layout);
        blocking(move || ledger.settle()).await
    }

    /// Gives back what was not taken over whole; see [`Systemd::let_go`](crate::systemd::Systemd::let_go).
    pub(super) async fn let_unit_go(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let ledger = Ledger::of(unit, &self.layout);
        let disk = self.files.read(unit)?;
        let begun = begun(&ledger).await?;
        if begun.is_none() && (disk.file.is_none() || disk.evidence.is_some()) {
            return Ok(());
        }
        let loaded = self.look(unit).await?;
        match begun {
            Some(record)
                if record.ours || disk.evidence.is_some() || self.files.is_ours(unit, &loaded.fragment) =>
            {
                blocking(move || ledger.finish(&record)).await
            }
            Some(record) => {
                self.files.remove(unit)?;
                blocking(move || ledger.put_back(&record)).await?;
                self.shared.forget(unit);
                Ok(())
            }
            None if loaded.fragment.is_empty() || self.files.is_ours(unit, &loaded.fragment) => Ok(()),
            None => {
                self.files.remove(unit)?;
                self.shared.forget(unit);
                Ok(())
            }
        }
    }

    async fn examine(
        &self,
        unit: &UnitName,
        loaded: &Loaded,
        must_run: bool,
    ) -> Result<Result<Found, crate::adoption::Refusal>, SystemdError> {
        let ours = self.files.names()?;
        let is_ours = |name: &str| name.parse::<UnitName>().is_ok_and(|name| ours.contains(&name));
        Ok(survey::examine(unit, loaded, &self.layout, is_ours, must_run))
    }

    /// Asks for everything about a unit, which loads it if it is not loaded.
    async fn look(&self, unit: &UnitName) -> Result<Loaded, SystemdError> {
        let all = self.call_unit("GetAll", unit, |m, name| async move {
            properties_of(&m, &name).await?.get_all("").await
        });
        Ok(loaded(&Properties(all.await?)))
    }
}

fn loaded(properties: &Properties) -> Loaded {
    let list = |name: &str| properties.get::<Vec<String>>(name).unwrap_or_default();
    let needed_by = ["RequiredBy", "BoundBy", "RequisiteOf", "UpheldBy", "TriggeredBy"];
    Loaded {
        load: properties.text("LoadState"),
        active: properties.active(),
        invocation: properties.invocation(),
        names: list("Names"),
        fragment: properties.text("FragmentPath"),
        source: properties.text("SourcePath"),
        drop_ins: list("DropInPaths"),
        transient: properties.get("Transient").unwrap_or(false),
        needs_reload: properties.get("NeedDaemonReload").unwrap_or(false),
        needed_by: needed_by.into_iter().flat_map(list).collect(),
        before: list("Before"),
    }
}

/// Reads what was begun and not done.
async fn begun(ledger: &Ledger) -> Result<Option<Record>, SystemdError> {
    let ledger = ledger.clone();
    let record = blocking(move || ledger.read()).await?;
    Ok(record.filter(|record| record.taking))
}

/// Tells whether systemd runs two texts alike; nothing is known of one that cannot be read.
fn runs_alike(unit: &UnitName, one: &str, other: &str) -> bool {
    let file = |text: &str| UnitFile::parse(unit.as_str(), text.as_bytes()).ok();
    one == other || file(one).zip(file(other)).is_some_and(|(one, other)| one.runs_like(&other))
}

fn not_taken(unit: &UnitName, why: String) -> SystemdError {
    SystemdError::NotTaken { unit: unit.to_string(), why }
}

/// Does what waits for a disk off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SystemdError> + Send + 'static,
) -> Result<T, SystemdError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| {
        let source = std::io::Error::other(ended);
        Err(SystemdError::File { action: "cannot work in", path: "the state directory".to_owned(), source })
    })
}
