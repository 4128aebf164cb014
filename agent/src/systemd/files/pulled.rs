//! Notes of units that a stop of another one takes down with it (`/run/flotilla/pulled/<unit>`).
//!
//! systemd stops with a unit all that needs it (`Requires=`, `BindsTo=`, `PartOf=`), and nothing starts them
//! again when that unit is stopped and started, as an update or a restart does. A note is written before such
//! a stop. It counts only for what ran then, and what has become of the other unit is read from that one's
//! evidence, so that nothing has to be done in between and an agent that was killed leaves nothing undone.

use flotilla_registry::records::Token;
use flotilla_units::UnitName;

use super::{Evidence, Files, SystemdError, failed, read, remove, value, write};
use crate::systemd::{Pulled, Then};

impl Files {
    /// Notes that what runs of a unit is stopped by a stop of another one.
    pub(in crate::systemd) fn note_pulled(
        &self,
        unit: &UnitName,
        by: &UnitName,
        invocation: &str,
    ) -> Result<(), SystemdError> {
        let (of, other) = (self.evidence(unit)?, self.evidence(by)?);
        let Some(Evidence { token, run, .. }) = of else { return Ok(()) };
        let (by_token, by_run) = other.map_or((Token(0), 0), |it| (it.token, it.run));
        let text = format!(
            "TOKEN={token}\nRUN={run}\nINVOCATION={invocation}\nBY={by}\nBY_TOKEN={by_token}\nBY_RUN={by_run}\n"
        );
        write(&self.layout.pulled().join(unit.as_str()), &text)
    }

    /// Returns what is noted of a unit under this evidence.
    pub(super) fn pulled(
        &self,
        unit: &UnitName,
        evidence: &Evidence,
    ) -> Result<Option<Pulled>, SystemdError> {
        let Some(text) = read(&self.layout.pulled().join(unit.as_str()))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let started = |token, run| -> Option<(Token, u64)> {
            Some((value(&text, token)?.parse().ok()?, value(&text, run)?.parse().ok()?))
        };
        let (of, before) = (started("TOKEN", "RUN"), started("BY_TOKEN", "BY_RUN"));
        let by = value(&text, "BY").and_then(|by| by.parse::<UnitName>().ok());
        let (Some(of), Some(before), Some(by)) = (of, before, by) else { return Ok(None) };
        if of != (evidence.token, evidence.run) {
            return Ok(None);
        }
        let then = match self.evidence(&by)? {
            None => Then::Stays,
            Some(now) if now.loaded => Then::Stays,
            Some(now) if now.started && (now.token, now.run) != before => Then::Starts,
            Some(_) => Then::Waits,
        };
        let invocation = value(&text, "INVOCATION").unwrap_or_default().to_owned();
        Ok(Some(Pulled { by, then, invocation }))
    }

    /// Forgets a note.
    pub(in crate::systemd) fn forget_pulled(&self, unit: &UnitName) -> Result<(), SystemdError> {
        remove(&self.layout.pulled().join(unit.as_str()))
    }

    /// Returns the units of which it is noted that a stop of this one took them down.
    pub(in crate::systemd) fn pulled_by(&self, by: &UnitName) -> Result<Vec<UnitName>, SystemdError> {
        let folder = self.layout.pulled();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(|e| failed("cannot list", &folder, e))? {
            let entry = entry.map_err(|e| failed("cannot list", &folder, e))?;
            let Some(unit) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let text = read(&entry.path())?.unwrap_or_default();
            if value(&String::from_utf8_lossy(&text), "BY") == Some(by.as_str()) {
                found.push(unit);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn what_was_stopped_with_another_starts_again_once_that_has() {
        let p = place();
        let (db, web) = (name("db.service"), name("web.service"));
        for unit in [&db, &web] {
            p.files.install(unit, TEXT).unwrap();
            p.files.write_evidence(unit, &evidence(1)).unwrap();
            p.files.mark_started(unit).unwrap();
        }
        let then = || p.files.read(&web).unwrap().pulled.map(|it| (it.by, it.then));
        let is = |then| Some((db.clone(), then));
        assert_eq!(then(), None);
        p.files.note_pulled(&web, &db, "ab").unwrap();
        assert_eq!(then(), is(Then::Waits), "it is being stopped");
        assert_eq!(p.files.pulled_by(&db).unwrap(), std::slice::from_ref(&web));
        assert_eq!(p.files.pulled_by(&web).unwrap(), []);
        p.files.write_evidence(&db, &evidence(2)).unwrap();
        assert_eq!(then(), is(Then::Waits), "its start has not ended");
        p.files.mark_started(&db).unwrap();
        assert_eq!(then(), is(Then::Starts));
        p.files.mark_loaded(&db, &evidence(3)).unwrap();
        assert_eq!(then(), is(Then::Stays));
        p.files.remove(&db).unwrap();
        assert_eq!(then(), is(Then::Stays));
        // Of another start nothing is noted.
        p.files.write_evidence(&web, &evidence(4)).unwrap();
        p.files.mark_started(&web).unwrap();
        assert_eq!(then(), None);
        p.files.remove(&web).unwrap();
        assert_eq!(p.files.pulled_by(&db).unwrap(), []);
    }
}
